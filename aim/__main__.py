"""The verbs from one command: `aim train +experiment=demo` is `python -m aim.train +experiment=demo`.

aim                    # the commands
aim completion bash    # Tab completion of verbs, experiments, groups and settings; see docs/shell.md
"""

import runpy
import sys

from aim.ground.errors import UserError, nearest
from aim.shell import command, completion, verbs

HELP = """\
Turns a frozen image or video model into a video classifier.

aim VERB [KEY=VALUE ...], or python -m aim.VERB [KEY=VALUE ...]:
{verbs}

aim VERB --help lists a verb's settings, aim train alone the experiments,
aim completion bash prints the code for Tab completion. To begin:
  aim train +experiment=demo
"""


def main() -> None:
    """Run the verb that the command line names, or say which there are."""
    arguments = sys.argv[1:]
    with command.reported(debug=False):
        command.answer_version()
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(HELP.format(verbs=verbs.verbs_text()), end="")
        elif arguments[0] == "completion":
            print(completion.script(arguments[1:]), end="")
        elif arguments[0] == "--complete":
            print(*completion.candidates(*arguments[1:]), sep="\n", end="")
        elif arguments[0] not in verbs.verbs():
            names = [*verbs.verbs(), "completion"]
            raise UserError(f"no verb {arguments[0]!r}{nearest(arguments[0], names)}; there are: {', '.join(names)}")
        else:
            del sys.argv[0]
            runpy.run_module(f"aim.{arguments[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
