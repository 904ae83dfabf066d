import base64
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2.functional import resize

from aim.data.readers.pyav import PyAV
from aim.data.stored import shards
from aim.engine.scores import predictions
from aim.report import strips


def pixels(uri: str) -> NDArray[np.float64]:
    """The frames of a strip, "f h w c"."""
    head, _, text = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), np.float64)
    width = (image.shape[1] + strips.GAP) // strips.FRAMES
    return np.stack([image[:, i * width : (i + 1) * width - strips.GAP] for i in range(strips.FRAMES)])


def test_strips_show_the_frames_that_the_views_saw(unbroken: Path) -> None:
    found = predictions.read(unbroken / "predictions.npz")
    root = Path(found.about["root"])
    seconds = found.seconds.copy()
    seconds[1] = 0.25  # one frame, the fifth of 16 a second
    whole, one = strips.examples(replace(found, seconds=seconds), [0, 1], root)
    assert (whole.path, one.when) == (str(found.path[0]), "0.2 to 0.2 s")
    (seen,) = resize(PyAV()(root / str(found.path[1]), lambda n: [4]), [strips.PIXELS], antialias=True)
    frames = seen.numpy().transpose(1, 2, 0)
    assert np.abs(pixels(one.image) - frames).mean() < 4  # of a JPEG
    assert np.ptp(pixels(whole.image), axis=0).mean() > 1.5 * np.ptp(pixels(one.image), axis=0).mean() + 1


def test_wide_and_tall_videos_have_strips_of_one_height() -> None:
    for height, width, tile in ((84, 300, 112), (84, 112, 112), (168, 84, 42), (28_000, 84, 1), (1, 3, 112)):
        image = pixels(strips.encoded(np.zeros((6, 3, height, width), np.uint8)))
        assert image.shape[1:3] == (84, tile)


def test_what_cannot_be_read_has_no_strip(unbroken: Path, tmp_path: Path) -> None:
    found = predictions.read(unbroken / "predictions.npz")
    file = tmp_path / str(found.path[0])
    file.parent.mkdir(parents=True)
    file.write_bytes(b"garbage")
    assert [each.image for each in strips.examples(found, [0, 1], tmp_path)] == ["", ""]


@pytest.mark.parametrize("error", [ValueError("no size"), MemoryError(), OSError("torn"), RuntimeError("no memory")])
def test_one_bad_picture_ends_no_report(unbroken: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: object) -> str:
        raise error

    monkeypatch.setattr(strips, "encoded", fail)
    found = predictions.read(unbroken / "predictions.npz")
    assert [each.image for each in strips.examples(found, [0], Path(found.about["root"]))] == [""]


def test_videos_in_shards_have_strips(unbroken: Path, tmp_path: Path) -> None:
    found = predictions.read(unbroken / "predictions.npz")
    root, name = Path(found.about["root"]), str(found.path[0])
    with tarfile.open(tmp_path / "val-000000.tar", "w") as tar:
        tar.add(root / name, shards.member_name(name))
    (inside,), (alone,) = (strips.examples(found, [0], folder) for folder in (tmp_path, root))
    assert inside.image == alone.image != ""
