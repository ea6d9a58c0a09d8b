"""``python -m brainscan``."""

import sys

from brainscan.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
