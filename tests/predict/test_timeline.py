import json
import subprocess
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from aim.data.readers.interface import BadVideo
from aim.data.readers.pyav import PyAV
from aim.data.windows import Span, Windows
from aim.engine.scores.tasks import MultiLabel
from aim.engine.trained.answer import Asking, as_json
from aim.engine.trained.recogniser import load
from aim.engine.trained.timeline import Segment, Timeline, timeline
from aim.pages.drawing import Box, Words
from aim.predict.picture import draw, palette_of
from tests.conftest import ROOT
from tests.messages import refused
from tests.programs import command
from tests.toy import evaluate, videos


def test_a_window_that_is_a_validation_clip_gives_the_number_of_the_validation(
    unbroken: Path, tmp_path: Path, toy_cache: Path
) -> None:
    evaluate(unbroken, tmp_path)
    with np.load(tmp_path / "predictions.npz") as file:
        expected = dict(zip(file["path"].tolist(), file["probability"], strict=True))
    recogniser = load(unbroken / "best.safetensors", calibrated=False)
    for name, probability in list(expected.items())[:4]:
        path = next(video for video in videos(toy_cache) if str(video).endswith(name))
        found = timeline(recogniser, path, Windows(60, 1), precision="fp32", batch_size=4)
        assert found.probability[0].numpy() == pytest.approx(probability, abs=1e-6)
        assert torch.equal(found.probability[0], recogniser.predict_file(path, PyAV()))  # to the bit
        assert len(found.spans) == 1
    path = videos(toy_cache)[0]
    parts = timeline(recogniser, path, Windows(0.2, 0.1), precision="fp32", batch_size=4)
    one_by_one = timeline(recogniser, path, Windows(0.2, 0.1), precision="fp32", batch_size=1)
    assert len(parts.spans) > 4
    assert parts.spans == one_by_one.spans
    torch.testing.assert_close(parts.probability, one_by_one.probability, rtol=0, atol=1e-6)
    assert not torch.allclose(parts.probability[0], parts.probability[-1])


def test_a_file_whose_packets_lie_is_decoded_for_its_times(
    unbroken: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser = load(unbroken / "best.safetensors")
    path = videos(toy_cache)[0]
    expected = timeline(recogniser, path, Windows(0.2, 0.1), precision="fp32", batch_size=4)
    monkeypatch.setattr("aim.data.windows._listed", lambda path: np.arange(99.0))
    found = timeline(recogniser, path, Windows(0.2, 0.1), precision="fp32", batch_size=4)
    assert found.spans == expected.spans
    assert torch.equal(found.probability, expected.probability)


def test_a_file_whose_frames_are_all_at_once_has_no_windows(unbroken: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "zero.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        packets = [packet for frame in (*[picture] * 8, None) for packet in stream.encode(frame)]
        for packet in packets:
            packet.pts = packet.dts = 0
            container.mux(packet)
    recogniser = load(unbroken / "best.safetensors")
    with refused("zero.mp4", "windows", "time", error=BadVideo):
        timeline(recogniser, tmp_path / "zero.mp4", Windows(0.2, 0.1), precision="fp32", batch_size=4)


SPANS = [Span(i, i + 2) for i in range(5)]
LINE = Timeline(Path("a.mp4"), 6.0, SPANS, torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]]))


def test_segments_change_halfway_between_middles() -> None:
    assert [x[:3] for x in LINE.segments(None)] == [(0, 2.5, 0), (2.5, 3.5, 1), (3.5, 4.5, 0), (4.5, 6, 1)]
    assert LINE.segments(None)[0].probability == pytest.approx(0.75)
    unsure = LINE.segments(0.7)
    assert [x[:3] for x in unsure] == [(0, 1.5, 0), (1.5, 2.5, None), (2.5, 3.5, 1), (3.5, 4.5, None), (4.5, 6, 1)]
    assert [LINE.at(time) for time in (0, 1.4, 1.6, 4.6, 5.9, 9)] == [0, 0, 1, 4, 4, 4]
    alone = Timeline(Path("a.mp4"), 1.5, SPANS[:1], LINE.probability[:1])
    assert alone.segments(None) == [Segment(0, 1.5, 0, pytest.approx(0.9))]
    assert alone.at(1.0) == 0


def test_smoothing_is_the_mean_of_near_windows() -> None:
    assert LINE.smoothed(0) is LINE
    assert torch.equal(LINE.smoothed(1.9).probability, LINE.probability)
    expected = [[0.75, 0.25], [1.7 / 3, 1.3 / 3], [1.4 / 3, 1.6 / 3], [0.3, 0.7], [0.35, 0.65]]
    assert LINE.smoothed(2).probability.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert LINE.smoothed(100).probability.numpy() == pytest.approx(np.array([[0.48, 0.52]] * 5), abs=1e-6)


def test_a_pause_is_in_no_segment_and_has_no_label(unbroken: Path, shared: Path) -> None:
    rows = torch.tensor([[0.9, 0.1], [torch.nan, torch.nan], [torch.nan, torch.nan], [0.8, 0.2], [0.1, 0.9]])
    line = Timeline(Path("a.mp4"), 6.0, SPANS, rows)
    assert [x[:3] for x in line.segments(None)] == [(0, 1.5, 0), (3.5, 4.5, 0), (4.5, 6, 1)]
    smooth = line.smoothed(2).probability
    assert smooth[[0, 3, 4], 0].tolist() == pytest.approx([0.9, 0.45, 0.45])
    assert smooth[1:3].isnan().all()
    path = shared / "cases/inputs/gap.mp4"
    recogniser = load(unbroken / "best.safetensors")
    found = timeline(recogniser, path, Windows(1, 1), precision="fp32", batch_size=4)
    assert {x.start for x in found.segments(None)} <= {0, 1, 62, 63}
    said = [json.loads(as_json(x)) for x in Asking(recogniser.classes, 1, None).answers("a", found)]
    assert [x["start"] for x in said] == list(range(64))
    assert [x["start"] for x in said if "label" in x] == [0, 1, 62, 63]
    assert all("pause" in x["error"] for x in said[2:62])
    draw("a", found, Asking(recogniser.classes, 1, None), "", palette_of([found], None))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(unbroken: Path, tmp_path: Path) -> None:
    sizes = {"short.mp4": 20, "long.mp4": 300}
    for name, seconds in sizes.items():
        source = f"testsrc2=size=640x480:rate=25:duration={seconds}"
        made = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-preset", "ultrafast", str(tmp_path / name)]
        subprocess.run(made, check=True)
    paths = [str(tmp_path / name) for name in sizes]
    program = command("long_videos", unbroken / "best.safetensors", *paths)
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    (few, before), (many, after) = ([int(x) for x in line.split()] for line in done.stdout.splitlines())
    assert (few, many) == (19, 299)
    # All frames of the long one are 6.9 GB; a list of their times and packets is a few MB.
    assert after - before < 50, f"{before} MB for 20 s, {after} MB for 300 s"


MANY = replace(
    LINE, probability=torch.tensor([[0.9, 0.6], [0.6, 0.7], [0.2, 0.8], [0.1, 0.1], [0.1, 0.9]]), task=MultiLabel(1.0)
)


def test_labels_of_several_overlap_and_a_window_may_have_none() -> None:
    found = MANY.segments(None)
    assert [x[:3] for x in found] == [(0, 2.5, 0), (0, 3.5, 1), (3.5, 4.5, None), (4.5, 6, 1)]
    assert [x.probability for x in found] == pytest.approx([0.75, 0.7, 0.1, 0.9])
    assert [x[:3] for x in MANY.segments(torch.tensor([0.15, 0.75]))] == [
        (0, 3.5, 0),
        (2.5, 3.5, 1),
        (3.5, 4.5, None),
        (4.5, 6, 1),
    ]
    paused = replace(MANY, probability=MANY.probability.clone().index_fill(0, torch.tensor([1]), torch.nan))
    assert [x[:3] for x in paused.segments(None)][:3] == [(0, 1.5, 0), (0, 1.5, 1), (2.5, 3.5, 1)]


def test_a_class_out_of_reach_is_none_of_these() -> None:
    background = torch.tensor([0.0, torch.inf])
    assert [x[:3] for x in LINE.segments(background)] == [(0, 2.5, 0), (2.5, 3.5, None), (3.5, 4.5, 0), (4.5, 6, None)]


def test_overlapping_labels_have_a_row_each_with_their_segments_below() -> None:
    drawing = draw("a.mp4", MANY, Asking(["x", "y"], 1, None), "", palette_of([MANY], None))
    given = [x for x in drawing.shapes if isinstance(x, Box) and " from " in x.hint]
    assert [x.hint.split(",")[0] for x in given] == [
        "y from 0:00:00.0 to 0:00:03.5", "y from 0:00:04.5 to 0:00:06.0", "x from 0:00:00.0 to 0:00:02.5",
    ]  # fmt: skip
    assert given[0].y == given[1].y != given[2].y
    assert not any(text.text == "label" for text in drawing.shapes if isinstance(text, Words))
