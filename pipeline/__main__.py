"""`python -m pipeline`."""

import os
import sys
from collections.abc import Sequence

from pipeline.app.launcher import INTERRUPTED, main


def run(arguments: Sequence[str]) -> int:
    """Runs the job's command, and ends the process at once if it was interrupted.

    Args:
        arguments: without the program's name.

    Returns:
        The exit status.
    """
    status = main(arguments)
    if status == INTERRUPTED:
        # Beam's threads would continue with their bundles. Partial files never have their final names.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
