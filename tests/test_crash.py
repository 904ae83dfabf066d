"""scripts/crash_test.py, which kills runs and compares; and it can fail."""

import random
import runpy
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT
from tests.toy import killed_at, run

SCRIPT: Any = runpy.run_path(str(ROOT / "scripts" / "crash_test.py"))


def test_a_few_kills_cover_every_scenario_and_moment() -> None:
    rng = random.Random(0)
    kills = [SCRIPT["plan"](i, rng) for i in range(20)]
    assert {kill.scenario for kill in kills} == set(SCRIPT["SCENARIOS"])
    for scenario in ("one rank", "two ranks"):
        assert {kill.moment for kill in kills if kill.scenario == scenario} == set(SCRIPT["MOMENTS"])
    assert {kill.victim for kill in kills} >= {"all", "the launcher", "a rank", "a worker"}


@pytest.mark.slow
def test_it_sees_what_is_lost_damaged_and_different(tmp_path: Path, toy_cache: Path, unbroken: Path) -> None:
    compare, unreadable = SCRIPT["compare"], SCRIPT["unreadable"]
    broken = tmp_path / unbroken.name
    killed_at(2, broken)
    assert SCRIPT["lost_steps"](broken) == 0
    with (broken / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    assert SCRIPT["lost_steps"](broken) == 2
    assert list(unreadable(broken)) == []
    last = (broken / "last.pt").read_bytes()
    for name in ("last.pt", "previous.pt", "best.safetensors"):
        (broken / name).write_bytes(b"half")
    assert len(list(unreadable(broken))) == 2
    (broken / "best.safetensors").unlink()
    (broken / "last.pt").write_bytes(last)
    run(broken)
    assert compare([unbroken], [broken]) == (0.0, [])
    weights = load_file(broken / "best.safetensors")
    save_file(weights | {"head.bias": weights["head.bias"] + 0.25}, broken / "best.safetensors")
    (broken / "log.jsonl").write_text(
        "".join(f"{line}\n" for line in (broken / "log.jsonl").read_text().split("\n")[:-2])
    )
    largest, problems = compare([unbroken], [broken])
    assert largest == pytest.approx(0.25, rel=1e-6)
    assert len(problems) == 2


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("scenario", "victims"),
    [
        ("one rank", {"all": "while saving", "a worker": "at a step"}),
        ("two ranks", {"all": "while validating", "the launcher": "at a step", "a rank": "at a step"}),
        ("a sweep", {"the launcher": "between jobs"}),
    ],
)
def test_whatever_is_killed_the_run_goes_on_and_nothing_stays_behind(
    tmp_path: Path, scenario: str, victims: dict[str, str]
) -> None:
    kills = [SCRIPT["Kill"](scenario, moment, victim) for victim, moment in victims.items()]
    assert SCRIPT["survive"](scenario, kills, tmp_path, random.Random(0)) == 0.0
    assert [kill.problems for kill in kills] == [[] for _ in kills]
