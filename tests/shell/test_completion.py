"""The completions of `aim`."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aim.shell import completion
from tests.conftest import ROOT, missing
from tests.messages import refused


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("aim tr", ["train "]),
        ("aim  ev", ["eval "]),
        ("aim comp", ["completion "]),
        ("aim completion ", ["bash ", "zsh "]),
        ("aim train +", ["+experiment="]),
        ("aim train +experiment=de", ["+experiment=demo ", "+experiment=demo_hard "]),
        ("aim train +experiment=ablation/ratio_8", ["+experiment=ablation/ratio_8th "]),
        ("aim train +experiment=demo train.ep", ["train.epochs="]),
        ("aim train backb", ["backbone.", "backbone="]),
        ("aim train backbone=swin", ["backbone=swin_b ", "backbone=swin_l ", "backbone=swin_s ", "backbone=swin_t "]),
        ("aim train -m adapter=aim,st_", ["adapter=aim,st_adapter "]),
        ("aim train train.prof", ["train.profile="]),
        ("aim train train.profile=t", ["train.profile=true "]),
        ("aim train --ver", ["--version "]),
        ("aim train data.root=", []),  # the shell's own: files
        ("aim prepare format=uc", ["format=ucf101 "]),
        ("aim study +", ["+study="]),
        ("aim study +study=ra", ["+study=ratio "]),
        ("aim predict +", []),
        ("aim predict che", ["checkpoint="]),
        ("aim report runs/", []),
        ("aim nonsense x", []),
    ],
)
def test_tab_offers(line: str, expected: list[str]) -> None:
    assert completion.candidates(line) == expected


def test_tab_offers_groups_before_their_settings() -> None:
    offered = completion.candidates("aim train ")
    assert {"+experiment=", "backbone=", "adapter=", "data=", "train.", "seed="} <= set(offered)
    assert not any(text.startswith("train.e") for text in offered)
    assert "train.epochs=" in completion.candidates("aim train train.")


def test_another_shell_is_an_error() -> None:
    with refused("bash", "zsh", "completion"):
        completion.script(["fish"])


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which `aim` is found, as installing makes it."""
    program = tmp_path / "bin" / "aim"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom aim.__main__ import main\nmain()\n")
    program.chmod(0o755)
    paths = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return os.environ | paths | {"TERM": "dumb", "INPUTRC": os.devnull}


def test_bash_is_given_what_it_replaces(on_path: dict[str, str]) -> None:
    lines = ["aim train +experiment=demo adapter=aim,lo", "aim report runs/"]
    code = ['eval "$(aim completion bash)"']
    for line in lines:
        code += [
            f"COMP_LINE='{line}' COMP_POINT={len(line)}; _aim",
            'printf "%s:" "${#COMPREPLY[@]}" "${COMPREPLY[@]}"',
        ]
    done = subprocess.run(["bash", "-c", "\n".join(code)], env=on_path, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("1:aim,lora :0:", "")


START = {
    "bash": (["bash", "--norc", "--noprofile"], ""),
    "zsh": (["zsh", "-f"], "autoload -U compinit && compinit -u -D; "),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", START)
def test_tab_in_a_real_shell(on_path: dict[str, str], shell: str) -> None:
    command, before = START[shell]
    if shutil.which(shell) is None:
        missing(f"{shell} is not installed")
    process, terminal = pty.fork()
    if not process:
        os.execvpe(shell, command, on_path)

    def shown(keys: str, until: str) -> str:
        os.write(terminal, keys.encode())
        text, end = "", time.monotonic() + 100
        while until not in text and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                text += os.read(terminal, 4096).decode()
        assert until in text, text
        return text

    try:
        shown('PS1="<rea""dy>"\n', "<ready>")
        shown(f'{before}eval "$(aim completion {shell})"; echo "st""ated"\n', "stated")
        shown("aim tra\t", "in ")
        shown("+exp\t", "eriment=")
        shown("demo_\b\t", "demo")
        shown(" train.ep\t", "ochs=")
        shown("1 backbone=swin\t", "_")
        assert "swin_s" in shown("\t\t", "swin_t")
    finally:
        os.close(terminal)
        os.kill(process, 9)
        os.waitpid(process, 0)
