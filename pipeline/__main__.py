"""`python -m pipeline`."""

import os
import sys

from pipeline.app.launcher import INTERRUPTED, main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status == INTERRUPTED:
        # Beam's threads would go on with their bundles. Nothing half-written bears a final name.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
