"""The command line: `python -m experiments COMMAND`."""

import sys

from experiments.cli import main
from experiments.quiet import quiet_threads

if __name__ == "__main__":
    quiet_threads()
    sys.exit(main())
