"""Cards and shared checkpoints, against the numbers of results.json, the hub's own parser and a hub on this machine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard

from aim.card import verb as card
from aim.data.readers.pyav import PyAV
from aim.engine.run.card import scores
from aim.engine.trained import checkpoint, recogniser
from aim.ground import config
from aim.share import verb as share
from aim.weights import hub
from tests.messages import named, refused, unnamed
from tests.share.hub import Hub, served
from tests.toy import videos


def write_card(run: Path, out: Path, *more: str) -> ModelCard:
    card.main(config.compose([f"checkpoint={run}", f"out={out}", *more], "card"))
    return ModelCard(out.read_text(encoding="utf-8"))


def publish(run: Path, repo: str, *more: str) -> None:
    share.main(config.compose([f"checkpoint={run}", f"repo={repo}", *more], "share"))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with served(monkeypatch, str(tmp_path / "cache")) as found:
        yield found


def test_the_cards_numbers_are_those_of_the_result(unbroken: Path, tmp_path: Path) -> None:
    found = json.loads((unbroken / "results.json").read_text())
    made = write_card(unbroken, tmp_path / "card.md", "licence=mit", "title=toy")
    data = made.data.to_dict()
    assert (data["license"], data["pipeline_tag"]) == ("mit", "video-classification")
    assert made.data.eval_results is None  # the result is of other weights than the file's
    (tmp_path / "best.json").write_text(json.dumps(found | {"weights": "best", "selection": {}}))
    of_best = write_card(unbroken, tmp_path / "best.md", f"results={tmp_path / 'best.json'}", "title=toy")
    assert of_best.data.eval_results[0].metric_value == found["top1"]
    row = re.search(r"\| top-1 \| ([\d.]+) % \| ([\d.]+) % \(largest class\) \|", made.text)
    assert row is not None
    assert [float(row[1]), float(row[2])] == pytest.approx([found["top1"], found["baseline"]["top1"]], abs=0.005)
    named(made.text, str(found["num_videos"]), found["data_hash"][:12], "`python -m aim.eval checkpoint=FILE`")
    for label, one in found["per_class"].items():
        assert f"| {label} | {one['videos']} | {one['right']} |" in made.text
    unnamed(made.text, str(unbroken))


def test_a_card_of_several_labels_a_video_says_each_labels_scores() -> None:
    per_class = {"hug": {"videos": 3, "average_precision": 0.5, "f1": 0.25}, "none|": {"videos": 0}}
    found = {"num_videos": 3, "num_missing": 0, "data_hash": "f" * 64, "views": "8x1x1", "precision": "fp32"}
    found |= {"headline": [{"name": "map"}], "map": 50.0, "baseline": {"map": 30.0}, "per_class": per_class}
    text = "\n".join(scores(SimpleNamespace(chosen_by=None), found | {"checkpoint": "", "weights": "best"}))
    named(text, "`ffffffffffff`")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| mAP | 50.00 % | 30.00 % (mean class share) |",
        "| class | videos | average precision | F1 |",
        "| --- | --- | --- | --- |",
        "| hug | 3 | 50.00 % | 25.00 % |",
        "| none\\| | 0 |  |  |",
    ]


def test_a_card_says_what_the_videos_chose(unbroken: Path, tmp_path: Path) -> None:
    found = json.loads((unbroken / "results.json").read_text())
    theirs = found | {"weights": "best", "chose": ["weights (test=best)"]}
    other = tmp_path / "results.json"
    other.write_text(json.dumps(theirs))
    assert (
        "**The same videos chose weights (test=best)"
        in write_card(unbroken, tmp_path / "a.md", f"results={other}").text
    )
    other.write_text(json.dumps(theirs | {"chose": []}))
    assert "chose nothing" in write_card(unbroken, tmp_path / "b.md", f"results={tmp_path}").text
    other.write_text(json.dumps(theirs | {"identity": {"checkpoint": "another"}}))
    with refused(str(other), "results=FILE"):
        write_card(unbroken, tmp_path / "c.md", f"results={other}")
    with refused("nowhere.json", "results=FILE", "aim.eval"):
        write_card(unbroken, tmp_path / "c.md", "results=nowhere.json")
    assert not (tmp_path / "c.md").exists()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own upload
def test_what_is_pushed_loads_by_its_address_and_gives_the_same(
    fake: Hub, unbroken: Path, toy_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>a report")
    publish(unbroken, "user/toy", f"report={page}", "private=true", "backbone.weights=random")
    named(capsys.readouterr().err, "best.safetensors", "results.json")
    assert sorted(fake.repos["user/toy"]) == ["README.md", "best.safetensors", "report.html", "results.json"]
    assert (fake.private["user/toy"], fake.commits) == (True, 1)
    pushed = b"".join(fake.repos["user/toy"].values())
    assert str(unbroken).encode() not in pushed
    named(fake.repos["user/toy"]["README.md"].decode(), "checkpoint=hf://user/toy")
    path = videos(toy_cache)[0]
    ours, theirs = recogniser.load(unbroken), recogniser.load("hf://user/toy")
    assert torch.equal(theirs.predict_file(path, PyAV()), ours.predict_file(path, PyAV()))
    saved = checkpoint.read_weights("hf://user/toy")
    assert (saved.run, saved.fingerprint) == ("user--toy", checkpoint.read_weights(unbroken).fingerprint)
    with refused("hf://user/absent"):
        checkpoint.read_weights("hf://user/absent")
    for wrong in ("hf://toy", "hf:///toy"):
        with refused(f"checkpoint={wrong}", "hf://OWNER/NAME/FILE"):
            checkpoint.read_weights(wrong)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own upload
def test_a_hub_that_refuses_is_one_line_and_the_same_push_goes_on(fake: Hub, unbroken: Path) -> None:
    fake.refuses = 401
    with refused("hf://user/toy", "HF_TOKEN", "repo=./DIR") as caught:
        publish(unbroken, "hf://user/toy", "backbone.weights=random")
    assert len(str(caught.value).splitlines()) == 1
    fake.refuses = None
    for _ in range(2):
        publish(unbroken, "hf://user/toy", "backbone.weights=random")
    assert "README.md" in fake.repos["user/toy"]


def test_a_folder_has_the_same_files_whole_or_not_at_all(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(unbroken, f"{tmp_path}/out", "backbone.weights=random")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "best.safetensors",
        "results.json",
    ]
    assert checkpoint.read_weights(tmp_path / "out").config["run_dir"] is None
    with refused("repo=", "exists"):
        publish(unbroken, f"{tmp_path}/out")
    with refused("repo=", "parent"):
        publish(unbroken, f"{tmp_path}/no/out")
    with refused("report=nowhere.html", "aim.report"):
        publish(unbroken, f"{tmp_path}/new", "report=nowhere.html")
    with refused("backbone.weights=", "hf://OWNER/NAME"):
        publish(unbroken, f"{tmp_path}/new", f"backbone.weights={unbroken / 'best.safetensors'}")
    monkeypatch.setattr(share.files, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with refused("new", "disk"):
        publish(unbroken, f"{tmp_path}/new", "backbone.weights=random")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_name_that_may_be_a_folder_is_not_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert [share.repo_of(text) for text in ("user/toy", "hf://user/toy")] == ["user/toy"] * 2
    assert [share.repo_of(text) for text in ("./user/toy", "/a/b", "out", "a/b/c", "~/b")] == [None] * 5
    with refused("repo=runs/toy", "./runs/toy", "hf://runs/toy"):
        share.repo_of("runs/toy")
    with refused("repo=hf://toy", "hf://USER/NAME"):
        share.repo_of("hf://toy")
    with refused("repo=hf://../..", "hf://USER/NAME"):
        share.repo_of("hf://../..")


def test_the_trunk_of_others_is_had_by_the_same_way(fake: Hub) -> None:
    fake.repos["owner/trunk"] = {"model.safetensors": b"abc"}
    assert hub.file_here("hf://owner/trunk", "backbone.weights", "model.safetensors", "").read_bytes() == b"abc"
