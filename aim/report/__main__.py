"""The door of aim.report."""

import sys

from aim.report.verb import main
from aim.shell import command

if __name__ == "__main__":
    command.in_utf8()
    main(sys.argv[1:])
