"""Every reader of other people's files: whatever their content, the only error is ours, in one line."""

import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from aim.data.lists import read_classes
from aim.data.readers.decord import Decord
from aim.data.readers.frames import Frames
from aim.data.readers.interface import BadVideo, Reader
from aim.data.readers.pyav import PyAV
from aim.data.readers.torchcodec import TorchCodec
from aim.data.rows import read_list
from aim.data.sources.detected import last_report
from aim.data.sources.diving48 import Diving48
from aim.data.sources.hmdb51 import HMDB51
from aim.data.sources.kinetics import Kinetics
from aim.data.sources.mmaction2 import MMAction2
from aim.data.sources.something_something import SomethingSomething
from aim.data.sources.ucf101 import UCF101
from aim.data.stored import shards
from aim.engine.run import results
from aim.engine.scores import predictions
from aim.engine.telling import bad_list
from aim.engine.telling.progress import Journal
from aim.engine.trained import checkpoint, exported
from aim.features import extracting
from aim.ground import config
from aim.ground.errors import UserError
from aim.report import runs
from aim.shell import sweep
from aim.study.findings import tables
from aim.weights.trunk import read_tensors
from tests.messages import named
from tests.report.made import RESULT, predicted

SPOILT: dict[str, bytes] = {
    "empty": b"",
    "garbage": np.random.default_rng(0).bytes(3000),
    "zeros": bytes(3000),
    "text": b"hello\nworld 1 2 3\n\xc3\xa9 0\n",
    "list": b"[]",
    "object": b"{}",
    "number": b"5",
    "null": b"null",
    "name": b'"x"',
    "list of lists": b"[[[1], {}], null, 3]",
    "list in objects": b'{"settings": [1], "shorter": 3, "top1": {}, "train": [], "step": "x"}',
    "deep": b"[" * 100_000,
    "long number": b"9" * 5000,
    "zip": b"PK\x03\x04" + bytes(60),
    "pickle": b"\x80\x02]q\x00(K\x01K\x02e.",
    "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (10,)}" + b" " * 57 + b"\n",
}


@dataclass(frozen=True)
class Kind:
    """A reader's files, and the reader."""

    good: dict[str, bytes]  # by name; the first one is spoilt
    read: Callable[[Path], Any]  # of the folder
    error: type[Exception] = UserError


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def npz(**columns: Any) -> bytes:
    stream = BytesIO()
    np.savez(stream, **columns)
    return stream.getvalue()


def pt(value: Any) -> bytes:
    stream = BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def tar(name: str) -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for ending, content in ((".mp4", b"video"), (".json", b'{"label": 1}')):
            about = tarfile.TarInfo(f"{name}{ending}")
            about.size = len(content)
            file.addfile(about, BytesIO(content))
    return stream.getvalue()


def predictions_file() -> bytes:
    found = predicted([0, 1], [[0.9, 0.1], [0.2, 0.8]])
    columns = {name: getattr(found, name) for name in predictions.KINDS}
    return npz(**columns, about=np.array(json.dumps(found.about)))


def checkpoint_file() -> bytes:
    about = {"config": {}, "classes": ["a", "b"], "trunk": {"name": "x", "sha256": "0"}}
    return save({"a": torch.ones(2)}, {"format": "aim-video 1"} | {key: json.dumps(x) for key, x in about.items()})


def pixels(reader: Reader) -> Kind:
    """A file of video that nobody can read."""
    return Kind({"a.mp4": b""}, lambda folder: reader(folder / "a.mp4", lambda n: [0]), BadVideo)


def rotated(good: dict[str, bytes], read: Callable[[Path], Any]) -> dict[str, Kind]:
    """A kind for each of several files; the first existing one counts."""
    return {name: Kind({name: good[name]} | good, read) for name in good}


SSV2 = {
    "labels.json": as_json({"Holding something": "0"}),
    "train.json": as_json([{"id": "7", "template": "Holding [something]"}]),
    "validation.json": as_json([{"id": "8", "template": "Holding [something]"}]),
}
DIVING = {
    "Diving48_vocab.json": as_json([["Back", "15som"], ["Inward", "Dive"]]),
    "Diving48_V2_train.json": as_json([{"vid_name": "a", "label": 1}]),
    "Diving48_V2_test.json": as_json([{"vid_name": "b", "label": 0}]),
}
CSV = b"label,youtube_id,time_start,time_end\njump,abc,0,10\nrun,def,3,13\n"
UCF = {
    "classInd.txt": b"1 Jump\n2 Run\n",
    "trainlist01.txt": b"Jump/a.avi 1\nRun/b.avi 2\n",
    "testlist01.txt": b"Jump/c.avi\n",
}
LISTS = {"x_train_list.txt": b"a.mp4 0\nb.mp4 1\n", "x_val_list.txt": b"c.mp4 1\n"}
KINDS: dict[str, Kind] = {
    "classes": Kind({"classes.txt": b"a\nb\n"}, lambda folder: read_classes(folder / "classes.txt")),
    "list": Kind({"train.txt": b"a.mp4 0\nb.mp4 1\n"}, lambda folder: read_list(folder / "train.txt", ["a", "b"])),
    "prepared": Kind({"prepare.json": as_json({"settings": {}})}, last_report),
    "kinetics": Kind({"train.csv": CSV, "val.csv": CSV}, Kinetics()),
    **rotated(SSV2, SomethingSomething()),
    **rotated(DIVING, Diving48()),
    **rotated(UCF, UCF101(1)),
    **rotated(LISTS, MMAction2()),
    "hmdb51": Kind({"jump_test_split1.txt": b"a.avi 1\nb.avi 2\n"}, HMDB51(1)),
    "tar": Kind({"train.tar": tar("a")}, lambda folder: shards.entries(folder / "train.tar")),
    "label in a tar": Kind(
        {"a.json": b'{"label": 1}'}, lambda folder: shards._label(_bytes(folder / "a.json"), ".json", str(folder))
    ),
    "index": Kind(
        {"train.tar.tsv": b"bytes\t0\tvideos\t0\n", "train.tar": b""},
        lambda folder: shards.read_index(folder / "train.tar", folder / "train.tar.tsv"),
    ),
    "result": Kind({"results.json": as_json(RESULT)}, lambda folder: results.read(folder / "results.json")),
    "reported": Kind({"results.json": as_json(RESULT)}, lambda folder: runs.read(folder, whole=True)),
    "settings": Kind({"config.yaml": b"name: x\nseed: 1\n"}, lambda folder: config.load(folder / "config.yaml")),
    "log": Kind({"log.jsonl": b'{"step": 1, "epoch": 0.1}\n'}, lambda folder: runs.read_log(folder / "log.jsonl")),
    "journal": Kind({"log.jsonl": b'{"step": 1}\n'}, lambda folder: Journal(folder / "log.jsonl", 1, 1).close()),
    "bad videos": Kind({"bad_videos.txt": b"a.mp4\twhy\n"}, bad_list.read),
    "sweep": Kind({"results.json": as_json(RESULT)}, sweep.scores),
    "predictions": Kind({"p.npz": predictions_file()}, lambda folder: predictions.read(folder / "p.npz")),
    "features": Kind(
        {"a.npz": npz(feats=np.ones((2, 3)), source=np.array("a.mp4"))},
        lambda folder: extracting._source_of(folder / "a.npz"),
    ),
    "features as tensors": Kind(
        {"a.safetensors": save({"feats": torch.ones(2)}, {"source": "a.mp4"})},
        lambda folder: extracting._source_of(folder / "a.safetensors"),
    ),
    "note of features": Kind({"features.json": as_json({})}, lambda folder: extracting.claim(folder, {})),
    "checkpoint": Kind({"best.safetensors": checkpoint_file()}, checkpoint.read_weights),
    "state": Kind({"last.pt": pt({"step": 3})}, lambda folder: checkpoint.load_last(folder / "last.pt")),
    "trunk": Kind({"a.pth": pt({"a": torch.ones(2)})}, lambda folder: read_tensors(folder / "a.pth")),
    "safe trunk": Kind(
        {"a.safetensors": save({"a": torch.ones(2)})}, lambda folder: read_tensors(folder / "a.safetensors")
    ),
    "onnx": Kind({"a.onnx": b""}, lambda folder: exported.read(folder / "a.onnx")),
    "pt2": Kind({"a.pt2": b""}, lambda folder: exported.read(folder / "a.pt2", trust=True)),
    "table": Kind({"a.csv": b"scale,score,seed,task\n1,2,3,x\n"}, lambda folder: tables.read(folder / "a.csv")),
    "pyav": pixels(PyAV()),
    "decord": pixels(Decord()),
    "torchcodec": pixels(TorchCodec()),
    "picture": Kind({"a.png": b""}, lambda folder: Frames()(folder, lambda n: [0]), BadVideo),
}  # fmt: skip


def _bytes(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""


@pytest.mark.parametrize("name", KINDS)
def test_whatever_a_file_holds_the_error_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    first, good = next(iter(kind.good.items()))
    for other, content in kind.good.items():
        (tmp_path / other).write_bytes(content)
    if good:
        kind.read(tmp_path)
    cut = {f"cut to {n}": good[:n] for n in (1, 8, len(good) // 2, len(good) - 1) if good}
    flipped = {"flipped": good[: len(good) // 2] + b"\xff" + good[len(good) // 2 + 1 :]} if good else {}
    lines = {"a line more": good + b'\n{"step": [], "epoch": {}}\n', "a number more": good + b"\n5\n"}
    for how, content in {**SPOILT, **cut, **flipped, **lines}.items():
        (tmp_path / first).write_bytes(content)
        refused_or_read(kind, tmp_path, f"{name}: {how}")
    (tmp_path / first).unlink()
    (tmp_path / first).mkdir()
    refused_or_read(kind, tmp_path, f"{name}: a folder")


def refused_or_read(kind: Kind, folder: Path, what: str) -> None:
    try:
        kind.read(folder)
    except kind.error as error:
        text = str(error)
        assert "\n" not in text, what
        named(text, folder.name)
    except Exception as error:
        raise AssertionError(what) from error


def test_what_a_file_lacks_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[1, 2]")
    with pytest.raises(UserError) as caught:
        results.read(tmp_path / "results.json")
    named(str(caught.value), str(tmp_path / "results.json"), "[1, 2]")
