"""The videos to label next, against a plain search and random choice."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aim.data.labels import Labels
from aim.data.readers.pyav import PyAV
from aim.data.rows import read_rows, videos_of
from aim.engine.scores.tasks import SINGLE_LABEL, MultiLabel
from aim.engine.trained.recogniser import load
from aim.ground import config
from aim.predict import verb as predict
from aim.predict.teaching import FILE, most_teaching
from tests.messages import named, refused
from tests.toy import exits, videos


def plainly(residual: Tensor, features: Tensor, count: int) -> list[int]:
    """The same by full gradients, "k d" of each video."""
    gradients = torch.einsum("nk,nd->nkd", residual.double(), features.double()).flatten(1)
    draw, chosen = torch.Generator().manual_seed(0), [int(gradients.norm(dim=1).argmax())]
    while len(chosen) < count:
        apart = torch.cdist(gradients, gradients[chosen], compute_mode="donot_use_mm_for_euclid_dist").min(1).values
        chosen.append(int(apart.square().multinomial(1, generator=draw)))
    return chosen


def test_videos_are_chosen_by_the_gradients_that_their_labels_would_give() -> None:
    torch.manual_seed(0)
    probability, features = torch.randn(40, 3).softmax(1), torch.randn(40, 5)
    residual = probability - SINGLE_LABEL.given(probability, None).float()
    head = torch.nn.Linear(5, 3, bias=False)
    loss = torch.nn.functional.cross_entropy(head(features[7:8]), probability[7:8].argmax(1))
    with torch.no_grad():
        own = head(features[7:8]).softmax(1) - torch.nn.functional.one_hot(probability[7:8].argmax(1), 3)
    (gradient,) = torch.autograd.grad(loss, [head.weight])
    assert torch.einsum("nk,nd->kd", own, features[7:8]).allclose(gradient, atol=1e-6)  # the outer product is one
    found = most_teaching(residual, features, 12)
    assert found == plainly(residual, features, 12)
    assert len({*found}) == 12
    assert found != most_teaching(residual, features + torch.randn(40, 5), 12)


def test_each_video_is_chosen_once_even_where_all_are_alike_or_sure() -> None:
    assert most_teaching(torch.zeros(4, 2), torch.ones(4, 2), 9) == [0, 1, 2, 3]
    assert most_teaching(torch.zeros(0, 2), torch.zeros(0, 2), 3) == []
    twins = torch.tensor([[0.0], [5.0], [5.0]])
    assert most_teaching(torch.tensor([[0.5], [0.4], [0.4]]), twins + 1, 2) == [1, 0]


def test_uncertainty_is_entropy_from_0_to_1() -> None:
    third = torch.full((3,), 1 / 3)
    assert SINGLE_LABEL.uncertainty(torch.stack([third, torch.eye(3)[0]])).tolist() == pytest.approx([1, 0], abs=1e-6)
    half = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.5, 1.0]])
    assert MultiLabel(1.0).uncertainty(half).tolist() == pytest.approx([1, 0, 0.5])


def test_unsure_videos_of_all_kinds_are_found_sooner_than_by_chance() -> None:
    """Of 100 videos 4 are of a kind of their own; of half the model is sure, so they are useless."""
    torch.manual_seed(0)
    features, p = torch.randn(100, 4), torch.rand(100) / 2 + 0.5
    rare = [7, 31, 55, 90]
    features[rare] += 6
    p[1::2] = 1.0
    p[rare] = 0.6
    found = most_teaching(torch.stack([p - 1, 1 - p], 1), features, 10)
    assert {*found} & {*rare}  # by chance one time in three
    assert sum(float(p[i]) == 1 for i in found) <= 1  # they are all alike


def test_next_csv_names_them_and_is_read_as_a_list_once_labels_are_filled_in(
    unbroken: Path, toy_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(videos(toy_cache))[:5]
    (tmp_path / "broken.mp4").write_bytes(b"")
    words = [f"checkpoint={unbroken}", f"input=[{','.join(map(str, [*paths, tmp_path / 'broken.mp4']))}]"]
    answers = tmp_path / "out" / "answers.csv"
    with exits(1):
        predict.main(config.compose(["reader=pyav", "workers=0", *words, "next=3", f"out={answers}"], "predict"))
    table = answers.with_name(FILE)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    recogniser = load(unbroken)
    k = len(recogniser.classes)
    with recogniser.reading(PyAV(), videos=5, workers=0, precision="fp32", look=recogniser.see) as read:
        seen = torch.stack([found for _, found in read(paths) if isinstance(found, Tensor)])
    assert seen[:, :k].allclose(torch.stack([recogniser.predict_file(path, PyAV()) for path in paths]), atol=1e-6)
    uncertainty = recogniser.task.uncertainty(seen[:, :k])
    expected = plainly(seen[:, :k] - torch.eye(k)[seen[:, :k].argmax(1)], seen[:, k:], 3)
    assert [row["video"] for row in rows] == [str(paths[i]) for i in expected]
    assert [float(row["uncertainty"]) for row in rows] == pytest.approx(uncertainty[expected].tolist(), abs=1e-4)
    assert [row["proposed"] for row in rows] == [recogniser.classes[int(seen[i, :k].argmax())] for i in expected]
    assert {row["label"] for row in rows} == {""}
    with answers.open(encoding="utf-8", newline="") as file:
        told = list(csv.DictReader(file))
    assert [row["label"] == "" for row in told] == [False] * 5 + [True]
    assert {key for key in told[0] if key.startswith("probability:")} == {
        f"probability:{c}" for c in recogniser.classes
    }
    named(capsys.readouterr().err, str(table), "3", "5")

    head, *lines = table.read_text(encoding="utf-8").splitlines()
    filled = [line.replace(",,", f",{recogniser.classes[1]},", 1) for line in lines]
    table.write_text("\n".join([head, *filled]) + "\n", encoding="utf-8")
    read_back = videos_of(read_rows(table, Labels(recogniser.classes))[0], Labels(recogniser.classes))
    assert [(video.path, video.labels) for video in read_back] == [(row["video"], (1,)) for row in rows]


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        (["next=0"], ["next=0", "1"]),
        (["next=3", "window=2"], ["next=3", "window=2"]),
        (["next=3", "shard=0/2", "out=a.csv"], ["next", "shard"]),
        (["next=3", "checkpoint=a.onnx"], ["next=3", "a.onnx"]),
    ],
)
def test_what_next_cannot_go_with_is_one_line(words: list[str], pieces: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with refused(*pieces):
        predict.main(config.compose(["checkpoint=none", f"input={tmp_path}/a.mp4", *words], "predict"))
