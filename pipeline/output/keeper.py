"""Renewing the lease of a run while a process works for it."""

import threading

from pipeline.core.errors import OutputInUseError
from pipeline.output.holder import Holder
from pipeline.output.lease import release, renew
from pipeline.output.outputs import Destination

CHECK_S = 20.0
"""So often a process looks whether the lease must be renewed: when less than half of its time is left."""


class Keeper:
    """Renews the lease of a run as long as this process works for it.

    Args:
        output: absolute folder or bucket prefix.
        holder: who holds it.
        check_s: seconds between two looks; by default `CHECK_S`.
    """

    def __init__(self, output: str, holder: Holder, check_s: float | None = None) -> None:
        self._output = output
        self._holder = holder
        self._check_s = check_s or CHECK_S
        self._is_lost = False
        self._stopped = threading.Event()
        threading.Thread(target=self._keep, name="maskbeam-lease", daemon=True).start()

    def check(self) -> None:
        """Makes sure that the run still has the lease, as far as this process knows.

        Raises:
            OutputInUseError: another run has taken the output over.
        """
        if self._is_lost:
            raise OutputInUseError(f"{self._output} was taken over by another run; this one has stopped writing")

    def stop(self) -> None:
        """Ends the renewing."""
        self._stopped.set()

    def _keep(self) -> None:
        while not self._stopped.wait(self._check_s):
            try:
                if not renew(self._output, self._holder):
                    self._is_lost = not self._stopped.is_set()
                    return
            except OSError:
                continue  # a store that fails for a while; the lease may be renewed as long as nobody has taken it


_KEEPERS: dict[tuple[str, str], Keeper] = {}
_KEEPING = threading.Lock()


def keep(output: str, holder: Holder) -> Keeper:
    """This process's keeper of a run's lease, which works until the run or the process ends.

    Args:
        output: absolute folder or bucket prefix.
        holder: who holds the lease.
    """
    with _KEEPING:
        keeper = _KEEPERS.get((output, holder.run_id))
        if keeper is None:
            keeper = _KEEPERS[output, holder.run_id] = Keeper(output, holder)
        return keeper


def keep_output(destination: Destination) -> None:
    """Keeps a job's output for its run, and makes sure that the run still has it.

    Args:
        destination: the job's.

    Raises:
        OutputInUseError: another run has taken the output over.
    """
    if destination.holder is not None:
        keep(destination.root, destination.holder).check()


def end(output: str, holder: Holder) -> None:
    """Ends the keeping of a run's lease in this process and gives the lease back.

    Args:
        output: absolute folder or bucket prefix.
        holder: who holds the lease.

    Raises:
        StorageError: it can't be given back.
    """
    with _KEEPING:
        keeper = _KEEPERS.pop((output, holder.run_id), None)
    if keeper is not None:
        keeper.stop()
    release(output, holder)
