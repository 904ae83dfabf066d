"""This job's portion of the work; all jobs together do everything once."""

import pytest

from aim.ground.portion import Portion, portion_of
from tests.messages import refused

NAMES = [f"folder {i % 7}/video-{i}.mp4" for i in range(1000)]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_each_item_is_of_one_job_and_jobs_have_about_as_much(count: int) -> None:
    owned = [[name for name in NAMES if Portion(i, count).has(name)] for i in range(count)]
    assert sorted(name for names in owned for name in names) == sorted(NAMES)
    mean = len(NAMES) / count
    assert all(abs(len(names) - mean) <= 4 * mean**0.5 for names in owned)  # of a Poisson distribution


SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_STEP": "2"}


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("2/4", {}, Portion(2, 4)),
        ("auto", SLURM | {"SLURM_ARRAY_TASK_COUNT": "3"}, Portion(2, 3)),  # 3, 5, 7
        ("auto", {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, Portion(1, 4)),
        ("auto/64", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2"}, Portion(7, 64)),  # some again
        ("auto/10", {"JOB_COMPLETION_INDEX": "9"}, Portion(9, 10)),
        ("auto", {"SKYPILOT_JOB_RANK": "1", "SKYPILOT_NUM_JOBS": "5"}, Portion(1, 5)),
        ("auto", {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "2"}, Portion(0, 2)),
        ("auto", {"RANK": "3", "WORLD_SIZE": "4"}, Portion(3, 4)),
    ],
)
def test_schedulers_tell_the_place(text: str, environment: dict[str, str], expected: Portion) -> None:
    assert portion_of(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "pieces"),
    [
        ("4/4", {}, ["shard=4/4", "N=4"]),
        ("0/0", {}, ["shard=0/0", "I/N"]),
        ("-1/4", {}, ["shard=-1/4", "I/N"]),
        ("half", {}, ["shard=half", "I/N"]),
        ("auto", {}, ["shard=auto", "shard=I/N"]),
        ("auto", {"JOB_COMPLETION_INDEX": "9"}, ["shard=auto", "shard=auto/N"]),
        ("auto/8", {"JOB_COMPLETION_INDEX": "9"}, ["shard=9/8"]),
        ("auto", {"SKYPILOT_JOB_RANK": "5", "SKYPILOT_NUM_JOBS": "2"}, ["shard=5/2", "shard=auto/N"]),
        ("auto", {"RANK": "x", "WORLD_SIZE": "4"}, ["shard=auto", "shard=I/N"]),
    ],
)
def test_what_is_no_place_is_refused(text: str, environment: dict[str, str], pieces: list[str]) -> None:
    with refused(*pieces):
        portion_of(text, environment)
