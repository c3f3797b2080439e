"""A worker process of a job on this machine: Beam's own, without its chatter, and gone at once on Ctrl-C."""

import logging
import os
import signal
import sys

from pipeline.core.process import LOG_FORMAT, LOGGER
from pipeline.engines.quiet import without_python_stderr


def main() -> None:
    """Works until the launcher ends."""
    # Left to itself it would finish its bundle, which may be the whole job. Nothing half-written bears a final name.
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    # The launcher is sent every log and every exception. What Beam prints here besides would stand on the terminal
    # twice; the engine's own last words in a crash come from C++ and still get there.
    logging.getLogger().addHandler(logging.NullHandler())
    # What maskbeam itself has to say to whoever started the job.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.getLogger(LOGGER).addHandler(handler)
    logging.getLogger(LOGGER).setLevel(logging.WARNING)
    with without_python_stderr():
        from apache_beam.runners.worker import sdk_worker_main

        sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
