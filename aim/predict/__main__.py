"""The door of aim.predict: a misspelt setting and --help are answered before the imports that take seconds."""

from aim.shell import command

if __name__ == "__main__":
    command.entrypoint("aim.predict", "predict", "aim.predict.settings.Settings")
