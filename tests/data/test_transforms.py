import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors import safe_open

from aim.data.transforms import Augment, Views
from tests.messages import refused

OFF = Augment(
    area=(0.08, 1.0),
    ratio=(3 / 4, 4 / 3),
    flip=0.0,
    lighting=0.0,
    color_jitter=0.0,
    rand_augment=0,
    rand_augment_magnitude=7,
    erasing=0.0,
)
WHOLE = replace(OFF, area=(1.0, 1.0), ratio=(1.0, 1.0))
STEPS = {
    "flip": replace(WHOLE, flip=1.0),
    "lighting": replace(WHOLE, lighting=0.5),
    "color_jitter": replace(WHOLE, color_jitter=0.4),
    "rand_augment": replace(WHOLE, rand_augment=4),
    "erasing": replace(WHOLE, erasing=1.0),
}


def picture(frames: int = 3, height: int = 64, width: int = 64) -> torch.Tensor:
    """One noisy image as all frames of a clip."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (1, 3, height, width), generator=generator, dtype=torch.uint8).repeat(frames, 1, 1, 1)


def golden(shared: Path) -> list[Path]:
    folders = [shared / "golden", *([Path(os.environ["AIM_GOLDEN"])] if os.environ.get("AIM_GOLDEN") else [])]
    return sorted(file for folder in folders for file in folder.glob("preprocess_*.safetensors"))


def error(file: Path, shift: int = 0) -> float:
    """Mean difference, in grey levels, between our views of a recorded clip and the recorded ones."""
    with safe_open(file, "pt") as recorded:
        config = json.loads(recorded.metadata()["config"])
        frames = rearrange(recorded.get_tensor("frames"), "t h w c -> t c h w")
        views = rearrange(recorded.get_tensor("views"), "v c t h w -> v t c h w")
    mean, std = (rearrange(torch.tensor(config[name]), "c -> c 1 1") for name in ("mean", "std"))
    protocol = Views(1, {"center": 1, "three": 3}[config["crops"]], config["resize_short_side"])
    ours = protocol(frames.roll(shift, -1), config["crop_size"])
    assert ours.dtype == torch.uint8
    assert ours.shape == views.shape
    return float((ours - (views * std + mean)).abs().mean())


def test_views_are_those_of_the_public_implementation(shared: Path) -> None:
    files = golden(shared)
    assert len(files) >= 2
    for file in files:
        assert error(file) < 0.5, file
        assert error(file, shift=1) > 1, file


def test_crops_of_a_portrait_video_go_top_bottom_middle() -> None:
    rows = torch.arange(100, dtype=torch.uint8).reshape(1, 1, 100, 1).expand(2, 3, 100, 40)
    views = Views(1, 3, 40)(rows, 40)
    assert views.shape == (3, 2, 3, 40, 40)
    assert views[:, 0, 0, 0, 0].tolist() == [0, 60, 30]


def test_a_frame_smaller_than_the_view_is_enlarged() -> None:
    assert Views(1, 3, 72)(picture(height=32, width=32), 64).shape == (3, 3, 3, 64, 64)


@pytest.mark.parametrize("name", STEPS)
def test_a_draw_holds_for_all_frames_and_depends_on_the_seed_alone(name: str) -> None:
    video = picture()
    state = torch.random.get_rng_state()
    clips = [STEPS[name](video, 64, np.random.default_rng(i)) for i in range(8)]
    assert (torch.random.get_rng_state() == state).all()
    for i, clip in enumerate(clips):
        assert clip.dtype == torch.uint8
        assert clip.shape == (3, 3, 64, 64)
        assert (clip == clip[:1]).all()
        torch.manual_seed(i)
        assert (STEPS[name](video, 64, np.random.default_rng(i)) == clip).all()
    assert any((clip != video).any() for clip in clips)
    if name != "flip":
        assert len({clip.numpy().tobytes() for clip in clips}) > 2


def test_nothing_changes_where_all_is_off() -> None:
    assert (WHOLE(picture(), 64, np.random.default_rng(0)) == picture()).all()


def test_a_flip_is_one() -> None:
    assert (STEPS["flip"](picture(), 64, np.random.default_rng(0)) == picture().flip(-1)).all()


def test_lighting_shifts_all_pixels_by_one_colour() -> None:
    grey = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    shift = STEPS["lighting"](grey, 8, np.random.default_rng(0)).int() - 128
    assert (shift == shift[:1, :, :1, :1]).all()
    # The first component, 30 times stronger than the last, moves red, green and blue the same way.
    assert len(set(np.sign(shift[0, :, 0, 0].tolist()))) == 1


def test_a_crop_covers_the_area_and_ratio_asked_for() -> None:
    # Each pixel holds its place, so the crop's corners tell its box.
    y, x = torch.meshgrid(torch.arange(200), torch.arange(250), indexing="ij")
    video = torch.stack([y, x, 0 * x])[None].to(torch.uint8)
    augment = replace(OFF, area=(0.2, 0.5))
    for seed in range(50):
        clip = augment(video, 224, np.random.default_rng(seed)).float()
        height, width = (float(clip[0, i].max() - clip[0, i].min()) for i in (0, 1))
        assert 0.19 < height * width / (200 * 250) < 0.51
        assert 0.73 < width / height < 1.37


def test_boxes_are_erased_to_the_mean_colour() -> None:
    clip = STEPS["erasing"](torch.zeros(2, 3, 64, 64, dtype=torch.uint8), 64, np.random.default_rng(0))
    assert {tuple(colour) for colour in rearrange(clip, "t c h w -> (t h w) c").tolist()} == {
        (0, 0, 0),
        (123, 117, 104),
    }


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"area": (0.5, 0.1)}, "area"),
        ({"ratio": (0, 1)}, "ratio"),
        ({"flip": 2.0}, "flip"),
        ({"lighting": -1.0}, "lighting"),
        ({"rand_augment_magnitude": 31}, "rand_augment_magnitude"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, object], name: str) -> None:
    with refused(f"augment.{name}={change[name]}"):
        replace(OFF, **change)


def test_a_wrong_protocol_is_named() -> None:
    with refused("views.spatial=2"):
        Views(1, 2, 224)
    with refused("views.resize=100", "clip.size=224"):
        Views(1, 1, 100)(picture(), 224)
