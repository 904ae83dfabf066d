"""The pages for users of other frameworks: their lists are read as the pages say, and each setting exists."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from aim.data.lists import Lists
from aim.engine.run.settings import Run
from aim.ground import choices, config
from aim.prepare import verb as prepare
from tests.conftest import ROOT
from tests.data.test_lists import write

NAMES = ("mmaction2", "transformers")
PAGES = {name: (ROOT / "docs" / f"from-{name}.md").read_text(encoding="utf-8") for name in NAMES}
CLASSES = ["jump", "run"]
NO_SETTINGS = r"aim\.\w+|.*\.(csv|json|jsonl|npz|onnx|pt|py|safetensors|slurm|txt|yaml)"


def lines(page: str, start: str) -> list[str]:
    """The lines of a page's shell blocks that begin so."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGES[page], flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(start)]


def lists_of(command: str, root: Path) -> Lists:
    """The lists of a page's `aim train`, run in this folder."""
    words = [re.sub(r"^data\.root=.*", f"data.root={root}", word) for word in shlex.split(command, comments=True)[2:]]
    return config.build(config.compose(words), Run).load_lists()


def mmaction2(root: Path, kind: str) -> None:
    """Lists and files in MMAction2's form: a video, or a folder of three frames, of each class in each split."""
    for split in ("train", "val"):
        names = [f"{name}/{split}" + ".mp4" * (kind == "videos") for name in CLASSES]
        for name in names:
            for file in [name] if kind == "videos" else [f"{name}/img_{i:05}.jpg" for i in (1, 2, 3)]:
                write(root / f"{kind}_{split}" / file, "")
        rows = [f"{name}{' 3' * (kind == 'rawframes')} {label}\n" for label, name in enumerate(names)]
        write(root / f"kinetics400_{split}_list_{kind}.txt", "".join(rows))
        write(root / f"ucf101_{split}_list.txt", "".join(f"{kind}_{split}/{row}" for row in rows))
    write(root / "label_map_k400.txt", "\n".join(CLASSES))


def test_lists_of_mmaction2_are_read_as_they_are_or_prepared(tmp_path: Path) -> None:
    mmaction2(tmp_path, "videos")
    prepared, direct, _ = lines("mmaction2", "aim train")
    write(tmp_path / "label_map.txt", "\n".join(CLASSES))
    lists = lists_of(direct, tmp_path)
    assert [(video.path, video.label) for video in lists.train] == [
        ("videos_train/jump/train.mp4", 0),
        ("videos_train/run/train.mp4", 1),
    ]
    for name in ("label_map.txt", "ucf101_train_list.txt", "ucf101_val_list.txt"):
        (tmp_path / name).unlink()
    words = shlex.split(lines("mmaction2", "aim prepare")[0].replace("RAW", str(tmp_path)))[2:]
    prepare.main(config.compose([*words, "processes=1"], "prepare"))
    again = lists_of(prepared, tmp_path)
    assert (again.train, again.val, again.classes) == (lists.train, lists.val, CLASSES)


def test_folders_of_frames_and_several_labels_of_mmaction2_are_rewritten(tmp_path: Path) -> None:
    mmaction2(tmp_path, "rawframes")
    write(tmp_path / "multi_list.txt", "a.mp4 1 3 5\nb.mp4 2\n")
    *rewrite, several = lines("mmaction2", "awk")
    for command in [*rewrite, *lines("mmaction2", "cp")]:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    lists = lists_of(lines("mmaction2", "aim train")[2], tmp_path)
    assert [(video.path, video.label) for video in lists.val] == [
        ("rawframes_val/jump/val", 0),
        ("rawframes_val/run/val", 1),
    ]
    assert lists.classes == CLASSES
    subprocess.run(several, shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "train.txt").read_text(encoding="utf-8") == "a.mp4 1,3,5\nb.mp4 2\n"


@pytest.mark.parametrize("table", [False, True])
def test_folders_of_hugging_face_are_read_as_they_are(tmp_path: Path, table: bool) -> None:
    for split in ("train", "val", "test"):
        for name in CLASSES:
            write(tmp_path / split / ("" if table else name) / f"{name}.avi", "")
        if table:
            write(tmp_path / split / "metadata.csv", "file_name,label\n" + "".join(f"{c}.avi,{c}\n" for c in CLASSES))
    lists = lists_of(lines("transformers", "aim train +experiment=probe")[0], tmp_path)
    assert [video.path.split("/")[0] for part in lists.parts.values() for video in part] == [
        *("train", "train", "val", "val", "test", "test")
    ]
    assert ([video.label for video in lists.train], lists.classes) == ([0, 1], CLASSES)


@pytest.mark.parametrize("page", NAMES)
def test_each_setting_in_a_column_of_ours_exists(page: str) -> None:
    known = {*choices.groups(), *(name for verb in choices.primary() for name in choices.settings(verb))}
    rows = [row.split(" | ")[1] for row in PAGES[page].splitlines() if row.startswith("| ")]
    words = [word for row in rows for span in re.findall(r"`([^`]*)`", row) for word in span.split()]
    keys = [
        word.split("=")[0].lstrip("+")
        for word in words
        if re.match(r"\+?[a-z_]+(\.[a-z_]+)*=|[a-z_]+\.[a-z_.]+$", word)
    ]
    settings = [key for key in keys if not re.fullmatch(NO_SETTINGS, key)]
    assert len(settings) > 15
    assert not [key for key in settings if key not in known]
