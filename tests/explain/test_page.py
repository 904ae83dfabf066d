"""The content of pictures, read back."""

from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from aim.explain import films
from aim.explain import page as pictures
from aim.explain.explanation import Explanation
from aim.explain.heat import colours, overlaid, smooth
from aim.explain.occlusion import grid
from aim.explain.order import ORDERS
from aim.explain.scores import Faithfulness


def explanation(num_frames: int, name: str = "a class") -> Explanation:
    """The second cell of time counts, or the only one, in the upper left corner."""
    on = grid((num_frames, 16, 16), (num_frames, 4, 4), 4)
    relevance = torch.zeros(on.shape)
    relevance[:2, 0, 0][-1] = 5
    return Explanation(
        clip=(100 + 9 * torch.arange(num_frames, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 3, 16, 16),
        classes=[name, "[another]"],
        label=0,
        probability=torch.tensor([0.75, 0.25]),
        grid=on,
        relevance=relevance,
        frames=torch.linspace(1, -0.5, on.shape[0]),
        steps=on.borders[0],
        faithfulness=Faithfulness(torch.linspace(1, 0, 5), torch.linspace(0, 1, 5)),
        chance=(0.5, 0.5),
        similarity={"head": 0.1, "head and adapters": -0.1},
        orders=torch.full((len(ORDERS), 2), 0.5),
    )


def test_heat_is_brightest_where_the_map_is_and_grey_elsewhere():
    found = explanation(4)
    pixels = found.grid.spread(found.relevance)
    heat = smooth(pixels, 4)
    assert heat.max() == 1
    assert heat[1, :4, :4].mean() > 0.3 > heat[1, 8:, 8:].max()
    assert heat[0].max() == 0
    shown = overlaid(found.clip, heat)
    assert shown.shape == (4, 3, 16, 16)
    assert (shown[0].amax(0) - shown[0].amin(0)).max() < 1e-6  # a grey frame stays so
    assert (shown[1, 0] - shown[1, 2])[:3, :3].min() > 0.1  # red over blue
    assert smooth(torch.full((2, 8, 8), -1.0), 4).max() == 0  # evidence against the class has no heat


def test_the_colours_of_heat_rise_in_brightness():
    brightness = colours(torch.linspace(0, 1, 50)) @ torch.tensor([0.299, 0.587, 0.114])
    assert (brightness.diff() > 0).all()


@pytest.mark.parametrize("num_frames", [1, 2, 8, 11])
def test_a_page_has_a_row_for_every_eight_frames(num_frames):
    one, found = pictures.page(explanation(8), "x"), pictures.page(explanation(num_frames), "a.mp4, view 1 of 1")
    rows = -(-num_frames // 8)
    assert found.width == one.width
    assert found.height == one.height + (rows - 1) * pictures.ROW


def test_a_long_name_is_cut_and_any_name_is_drawn():
    size = pictures.page(explanation(2), "x").size
    for name in ("a class " * 9, "", "\u4e2d\u6587 [b] \U0001f600"):
        assert pictures.page(explanation(2, name), name).size == size


def test_films_have_a_picture_for_every_frame(tmp_path: Path):
    for suffix in films.SUFFIXES:
        films.save(explanation(5), "a.mp4", tmp_path / f"out{suffix}", suffix)
    with Image.open(tmp_path / "out.gif") as gif:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0  # for ever
        size = gif.size
    with av.open(str(tmp_path / "out.mp4")) as file:
        frames = list(file.decode(video=0))
        assert len(frames) == 5
        assert (frames[0].width, frames[0].height) == size
        assert float(file.duration / av.time_base) == pytest.approx(films.SECONDS, rel=0.25)
    with Image.open(tmp_path / "out.png") as png:
        assert png.format == "PNG"
