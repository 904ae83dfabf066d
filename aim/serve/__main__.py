"""The door of aim.serve: a misspelt setting and --help are answered before the imports that take seconds."""

from aim.shell import command

if __name__ == "__main__":
    command.entrypoint("aim.serve", "serve", "aim.serve.verb.Settings")
