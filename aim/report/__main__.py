"""The door of aim.report."""

import sys

from aim.report.verb import main

if __name__ == "__main__":
    main(sys.argv[1:])
