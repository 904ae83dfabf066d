"""Start ranks of a module: RANKS RESTARTS MODULE ARGUMENTS."""

import sys

from aim.engine.machine.launcher import launch

if __name__ == "__main__":
    ranks, restarts, *module = sys.argv[1:]
    sys.exit(launch([sys.executable, "-m", *module], int(ranks), int(restarts)))
