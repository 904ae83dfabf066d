"""The door of a verb for tests."""

from aim.shell import command

if __name__ == "__main__":
    command.entrypoint("tests.programs.verb", "config")
