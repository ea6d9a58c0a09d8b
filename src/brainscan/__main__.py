"""``python -m brainscan``."""

import sys

from brainscan.cli.app import main

if __name__ == "__main__":
    code = main()
    # An interrupt that passes through eval() leaves a mark by which `python -m` ends itself with
    # SIGINT although it was caught; an eval() that succeeds takes the mark away.
    eval("None")
    sys.exit(code)
