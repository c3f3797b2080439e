"""A worker process of a job on this machine: Beam's own, without its messages, which ends at once on Ctrl-C."""

import logging
import os
import signal
import sys

from pipeline.core.process import LOG_FORMAT, LOGGER
from pipeline.engines.quiet import without_python_stderr


def main() -> None:
    """Works until the launcher ends."""
    # By default it would finish its bundle, which may be the whole job. Partial files never have their final names.
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    # The launcher receives every log and every exception. What Beam also prints here would be shown twice; the engine's
    # messages in a crash come from C++ and are still shown.
    logging.getLogger().addHandler(logging.NullHandler())
    # maskbeam's own warnings are shown.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.getLogger(LOGGER).addHandler(handler)
    logging.getLogger(LOGGER).setLevel(logging.WARNING)
    with without_python_stderr():
        from apache_beam.runners.worker import sdk_worker_main

        sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
