"""`python -m pipeline.flink`: starts a Flink cluster on this machine, runs one job on it, stops it."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.app.launcher import BROKEN, UNUSABLE, main
from pipeline.core.errors import OptionError
from pipeline.engines.load import usable_cores
from pipeline.flink.cluster import Cluster, ClusterError
from pipeline.flink.packages import default_cache, fetch_packages


def run(arguments: Sequence[str]) -> int:
    """Runs one job on its own cluster.

    Args:
        arguments: the options of `python -m pipeline`, and those of the cluster.

    Returns:
        The exit status, as that of `python -m pipeline`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.flink",
        description="Starts a standalone Flink cluster on this machine, runs one job on it and stops it."
        " All further options are those of python -m pipeline.",
        allow_abbrev=False,
    )
    parser.add_argument("--flink_task_managers", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--flink_slots", type=int, default=2, metavar="N", help="per manager; default: %(default)s")
    parser.add_argument("--flink_logs", metavar="DIR", help="keep settings and logs there (default: deleted)")
    values, rest = parser.parse_known_args(list(arguments))
    if "--threads" not in {argument.partition("=")[0] for argument in rest}:
        # The task managers share this machine; on separate machines each would use all cores.
        rest.append(f"--threads={max(1, usable_cores() // max(1, values.flink_task_managers))}")
    try:
        packages = fetch_packages(default_cache())
    except OptionError as error:
        print(f"maskbeam: {error}", file=sys.stderr)
        return UNUSABLE
    # `kill` stops the cluster, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _folder(values.flink_logs) as folder:
        cluster = Cluster(
            packages,
            folder,
            task_managers=values.flink_task_managers,
            slots=values.flink_slots,
            environment=_environment(),
        )
        try:
            with cluster:
                return main([*rest, *cluster.beam_options()])
        except ClusterError as error:
            print(f"maskbeam: {error}", file=sys.stderr)
            return BROKEN


@contextlib.contextmanager
def _folder(named: str | None) -> Iterator[Path]:
    if named:
        yield Path(named).absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="maskbeam-flink-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)


def _environment() -> dict[str, str]:
    """This process's environment, with this package on the workers' path."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
