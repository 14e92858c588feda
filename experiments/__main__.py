"""The command line: `python -m experiments COMMAND`."""

import sys

# Not above: a process that decodes images imports this module, and one that watches
# another one, and none of the others.
if __name__ == "__main__":
    from experiments import supervision

    sys.exit(supervision.main())
