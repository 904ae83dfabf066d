"""The door of aim.train: a misspelt setting and --help are answered before the imports that take seconds."""

from aim.shell import command

if __name__ == "__main__":
    command.entrypoint("aim.train", "config", "aim.engine.run.settings.Run", wants="experiment")
