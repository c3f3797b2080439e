"""`python -m maskbeam`."""

import sys

from pipeline.maskbeam.command import main

if __name__ == "__main__":
    sys.exit(main())
