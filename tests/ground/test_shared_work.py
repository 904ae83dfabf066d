"""The outputs of jobs that share work, and their assembly."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from aim.ground import files
from aim.ground.errors import UserError
from aim.ground.portion import Portion
from aim.ground.shared_work import FOLDER, MANIFEST, NOTES, Spreading, Work, claim, claimed, home, merged, working
from tests.messages import named, refused, unnamed
from tests.toy import exits

NAMES = [f"{i}.mp4" for i in range(20)]


def work(folder: Path, index: int, until: int = 99) -> None:
    portion = Portion(index, 3)
    mine = [name for name in NAMES if portion.has(name)]
    with working(folder, portion, {}, mine) as job:
        for name in mine[:until]:
            job.note(name, f"made of {name}", "no video" if name == "4.mp4" else None)


def test_the_work_of_all_jobs_is_put_together_in_the_order_of_the_items(tmp_path: Path) -> None:
    for index in range(3):
        work(tmp_path, index)
    found = merged(tmp_path, 3, NAMES)
    assert list(found.done) == [name for name in NAMES if name != "4.mp4"]
    assert found.done["7.mp4"] == "made of 7.mp4"
    assert found.failed == {"4.mp4": "no video"}
    assert (found.missing, found.code) == ([], 1)


def test_what_is_missing_is_named_with_the_jobs_that_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work(tmp_path, 0)
    work(tmp_path, 2, until=1)
    found = merged(tmp_path, 3, NAMES)
    assert found.code == 3
    assert len(found.done) + len(found.failed) + len(found.missing) == len(NAMES)
    found.tell()
    named(err := capsys.readouterr().err, str(len(found.missing)), found.missing[0], "1/3", "2/3", "merge=true")
    unnamed(err, "0/3")
    left = json.loads((home(tmp_path, Portion(2, 3)) / MANIFEST).read_text())["missing"]
    assert set(left) < set(found.missing)


def test_a_job_that_is_killed_has_left_what_it_did_and_what_it_had_to_do(tmp_path: Path) -> None:
    place = home(tmp_path, Portion(0, 1))
    with working(tmp_path, Portion(0, 1), {"a": "a.npz"}, ["b", "c", "d"]) as job:
        job.note("b", "b.npz", None)
        job.note("c", "", "no video")
        with (place / NOTES).open("a") as file:
            file.write('["d", "d.np')  # killed as it wrote: no note of the end is needed
        found = merged(tmp_path, 1, ["a", "b", "c", "d"])
    assert found[:3] == ({"a": "a.npz", "b": "b.npz"}, {"c": "no video"}, ["d"])
    assert not (place / NOTES).exists()
    with working(tmp_path, Portion(0, 1), found.done, ["c", "d"]) as job:
        assert merged(tmp_path, 1, ["a", "b", "c", "d"]).missing == ["c", "d"]
        job.note("c", "", "no video")
        job.note("c", "c.npz", None)
        assert merged(tmp_path, 1, ["a", "b", "c", "d"])[:3] == ({**found.done, "c": "c.npz"}, {}, ["d"])
    (place / NOTES).write_text("{}\n")
    with refused(str(place / NOTES)):
        merged(tmp_path, 1, ["a"])


def test_what_is_stale_is_missing(tmp_path: Path) -> None:
    with working(tmp_path / FOLDER, Portion(0, 1), {"a": "a.npz", "b": "b.npz"}, []):
        pass
    assert merged(tmp_path / FOLDER, 1, ["a", "b"], {"b"}).missing == ["b"]


def test_one_job_at_a_time_has_a_portion(tmp_path: Path) -> None:
    def job(index: int) -> AbstractContextManager[Work]:
        return working(tmp_path, Portion(index, 2), {}, [])

    with job(0), job(1), refused("00000-of-00002"), job(0):
        pass


def test_one_of_many_claims_at_once_stands(tmp_path: Path) -> None:
    def attempt(i: int) -> bool:
        try:
            claim(tmp_path, 4, {"checkpoint": f"model {i % 2}"})
        except UserError as error:
            named(str(error), str(tmp_path / "claim.json"), "checkpoint")
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(attempt, range(40)))
    assert sum(won) == 20
    assert len(set(won[::2])) == len(set(won[1::2])) == 1


def test_a_claim_is_written_where_the_file_system_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    file = tmp_path / "claim.json"
    assert files.write_first(file, {"shards": 4})
    assert not files.write_first(file, {"shards": 5})
    assert json.loads(file.read_text()) == {"shards": 4}
    assert list(tmp_path.iterdir()) == [file]


def test_another_number_of_shards_and_other_work_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    with refused("merge=true", "shard=0/N"):
        claimed(folder, {})
    claim(folder, 4, {"top": 5})
    claim(folder, 4, {"top": 5})
    assert claimed(folder, {"top": 5}) == 4
    with refused("4", "5", "shard=I/4"):
        claim(folder, 5, {"top": 5})
    with refused("claim.json", "top"):
        claimed(folder, {"top": 2})
    (folder / "claim.json").write_text("[]")
    with refused("claim.json"):
        claimed(folder, {})


def test_a_machines_gpus_get_a_portion_of_the_jobs_portion_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3f")
    note = "import os, sys; from pathlib import Path; " \
        "Path(sys.argv[1], os.environ['CUDA_VISIBLE_DEVICES']).write_text(' '.join(sys.argv[2:]))"  # fmt: skip
    with exits(0):
        Spreading("1/3", merge=False, gpus=2).spread([sys.executable, "-c", note, str(tmp_path)])
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"5": "gpus=null shard=2/6", "GPU-3f": "gpus=null shard=3/6"}


def test_settings_that_contradict_are_refused() -> None:
    with refused("merge=true", "shard"):
        Spreading("0/2", merge=True, gpus=None)
    with refused("merge=true", "gpus"):
        Spreading(None, merge=True, gpus=2)
    with refused("gpus=0"):
        Spreading(None, merge=False, gpus=0)
