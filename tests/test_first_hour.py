"""The tutorial of docs/first-hour.md, command by command, from its text."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from aim.data.demo.moving_shapes import MovingShapes
from tests.conftest import ROOT, shared_folder

TEXT = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The lines of the document's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def own_videos(folder: Path) -> None:
    """Twelve videos in each of two folders, like a user's."""
    made = folder.parent / "made"
    lists = MovingShapes(num_train=96, num_val=8, size=64, num_frames=17, seed=0)(made)
    for i, video in enumerate(lists.train):
        if video.label in (2, 3):  # down and up, which a mirror doesn't change
            place = folder / ("jump", "wave")[video.label - 2] / f"{i}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            (made / video.path).rename(place)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_first_hour_works(tmp_path: Path) -> None:
    own_videos(tmp_path / "videos")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "AIM_CACHE": str(tmp_path / "cache")}
    assert len(commands()) >= 5
    for command in commands():
        program, *words = shlex.split(command)
        assert program == "aim"
        if "+experiment=probe" in words:
            words.append(f"backbone.weights={shared_folder()}/real/dinov2_vit_s14.safetensors")
        done = subprocess.run(
            [sys.executable, "-m", "aim", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if words[0] == "train":
            assert "top-1" in done.stdout
    results = json.loads((tmp_path / "runs" / "first" / "results.json").read_text(encoding="utf-8"))
    assert results["top1"] > 80  # of two classes
    assert not list((tmp_path / "videos").glob("*.txt")), "the videos' folder stays as it was"
