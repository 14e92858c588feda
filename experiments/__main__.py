"""The command line: `python -m experiments COMMAND`."""

import sys

# Not above: a process that decodes images imports this module, and none of the others.
if __name__ == "__main__":
    from experiments.cli import main
    from experiments.hosts import supervision
    from experiments.training.checkpoints import quiet_threads

    quiet_threads()
    sys.exit(supervision.main(main))
