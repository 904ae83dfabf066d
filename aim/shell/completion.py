"""Tab completion behind `aim`: verbs, experiments, groups, settings and their values; paths are the shell's own."""

from collections.abc import Sequence

from aim.ground import choices
from aim.ground.errors import UserError
from aim.shell import verbs
from aim.shell.words import OPTIONS

# Bash takes the text after the last = for the word, and replaces that alone.
BASH = """\
_aim() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    mapfile -t COMPREPLY < <(aim --complete "$line" 2>/dev/null)
    word="${line##*[[:space:]]}"
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
}
complete -o default -o nospace -F _aim aim
"""
ZSH = """\
_aim() {
    local -a found
    found=("${(@f)$(aim --complete "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    if [[ -n $found ]]; then
        compadd -Q -S '' -- "${found[@]}"
    else
        compset -P '*='
        _files
    fi
}
compdef _aim aim
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}


def script(shells: Sequence[str]) -> str:
    """The completion script of a shell. Raises UserError for another than bash and zsh."""
    if len(shells) != 1 or shells[0] not in SCRIPTS:
        raise UserError('completion is there for bash and zsh: eval "$(aim completion bash)"')
    return SCRIPTS[shells[0]]


def candidates(line: str) -> list[str]:
    """The words that the last one of a command line, up to the cursor, may become; finished ones end with a space."""
    *before, word = line.split(" ")
    words = [text for text in before[1:] if text]
    if not words:
        return [f"{verb} " for verb in [*verbs.verbs(), "completion"] if verb.startswith(word)]
    if words[0] == "completion":
        return [f"{shell} " for shell in SCRIPTS if shell.startswith(word)]
    config_name = verbs.config_of(words[0]) if words[0] in verbs.verbs() else None
    if config_name is None:
        return []
    if word.startswith("-"):
        return [f"{option} " for option in OPTIONS if option.startswith(word)]
    key, equals, value = word.partition("=")
    if equals:
        *earlier, last = value.split(",")
        start = f"{key}={''.join(f'{text},' for text in earlier)}"
        return [f"{start}{text} " for text in values(key, config_name) if text.startswith(last) and text not in earlier]
    return keys(word, config_name)


def values(key: str, config_name: str) -> list[str]:
    """The values of a setting, where that is a choice."""
    if key == f"+{choices.added(config_name)}" or key in choices.config_groups(config_name):
        return choices.choices(key.lstrip("+"))
    known = choices.settings(config_name)
    return ["true", "false"] if isinstance(known.get(key), bool) else []


def keys(word: str, config_name: str) -> list[str]:
    """The settings that begin with a word: up to their next dot, so that a group stands there once."""
    found = {f"{group}=" for group in choices.config_groups(config_name)}
    if group := choices.added(config_name):
        found.add(f"+{group}=")
    for key in filter(lambda key: key.startswith(word), choices.settings(config_name)):
        head, dot, _ = key.removeprefix(word).partition(".")
        found.add(f"{word}{head}{dot or '='}")
    return sorted(text for text in found if text.startswith(word))
