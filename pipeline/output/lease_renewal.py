"""Renewal of a run's lease while a process works for it."""

import threading

from pipeline.core.errors import OutputInUseError
from pipeline.output.holder import Holder
from pipeline.output.lease import release, renew
from pipeline.output.outputs import Destination

CHECK_S = 20.0
"""Interval at which a process checks whether less than half of the lease's time is left, and renews it then."""


class LeaseRenewer:
    """Renews the lease of a run in a thread, as long as this process works for it.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run.
        check_s: seconds between two checks; by default `CHECK_S`.
    """

    def __init__(self, output: str, holder: Holder, check_s: float | None = None) -> None:
        self._output = output
        self._holder = holder
        self._check_s = check_s or CHECK_S
        self._is_lost = False
        self._stopped = threading.Event()
        threading.Thread(target=self._renew, name="maskbeam-lease", daemon=True).start()

    def check(self) -> None:
        """Checks that the run still has the lease, as far as this process knows.

        Raises:
            OutputInUseError: another run has taken the output over.
        """
        if self._is_lost:
            raise OutputInUseError(f"{self._output} was taken over by another run; this one has stopped writing")

    def stop(self) -> None:
        """Stops the renewal."""
        self._stopped.set()

    def _renew(self) -> None:
        while not self._stopped.wait(self._check_s):
            try:
                if not renew(self._output, self._holder):
                    self._is_lost = not self._stopped.is_set()
                    return
            except OSError:
                continue  # the store fails for a while; an expired lease can be renewed until another run takes it


_RENEWERS: dict[tuple[str, str], LeaseRenewer] = {}
_RENEWERS_LOCK = threading.Lock()


def renewer_of(output: str, holder: Holder) -> LeaseRenewer:
    """This process's renewer of a run's lease; it is started once and runs until the run or the process ends.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run.
    """
    with _RENEWERS_LOCK:
        renewer = _RENEWERS.get((output, holder.run_id))
        if renewer is None:
            renewer = _RENEWERS[output, holder.run_id] = LeaseRenewer(output, holder)
        return renewer


def check_lease(destination: Destination) -> None:
    """Starts the renewal of a job's lease in this process, and checks that the job's run still has it.

    Args:
        destination: the job's.

    Raises:
        OutputInUseError: another run has taken the output over.
    """
    if destination.holder is not None:
        renewer_of(destination.root, destination.holder).check()


def release_lease(output: str, holder: Holder) -> None:
    """Stops the renewal of a run's lease in this process and releases the lease.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run.

    Raises:
        StorageError: the output can't be written.
    """
    with _RENEWERS_LOCK:
        renewer = _RENEWERS.pop((output, holder.run_id), None)
    if renewer is not None:
        renewer.stop()
    release(output, holder)
