"""The door of aim.benchmark: a misspelt setting and --help are answered before the imports that take seconds."""

from aim.shell import command

if __name__ == "__main__":
    command.entrypoint("aim.benchmark", "benchmark", "aim.benchmark.verb.Settings", wants="experiment")
