"""docs/cluster.md on Kubernetes and elastic jobs."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from aim.engine.run.settings import Run
from aim.engine.trained import checkpoint
from aim.features import verb as features
from aim.ground import config, lease
from aim.ground.portion import Portion
from aim.ground.shared_work import INCOMPLETE
from aim.ground.signals import INTERRUPTED
from tests.conftest import ROOT
from tests.toy import TOY, journal, killed_at

TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
JOB, GRID, SWEEP, SHARDS, SKY = (
    node for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) for node in yaml.safe_load_all(block)
)


def test_the_training_job_runs_the_verb_with_settings_that_there_are() -> None:
    spec = JOB["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "pytorch"  # Kubeflow's only name
    module, verb, *overrides = container["args"]
    assert (module, verb) == ("-m", "aim.train")
    assert config.build(config.compose(overrides), Run).run_dir == "/runs/k400"
    (patience,) = (int(word.partition("=")[2]) for word in container["command"] if "shutdown-timeout" in word)
    assert spec["terminationGracePeriodSeconds"] > patience
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_a_pod_of_the_sweep_trains_its_line_and_gets_the_signals(tmp_path: Path) -> None:
    (tmp_path / "python").write_text(
        f"#!{sys.executable}\nimport os, sys\nprint(os.getpid(), *sys.argv[1:], sep='\\n')\n"
    )
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "grid").write_text(GRID["data"]["grid"] + "'data.root=a folder' seed=1\n")
    (container,) = SWEEP["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    lines = GRID["data"]["grid"].splitlines()
    assert SWEEP["spec"]["completions"] == len(lines)
    for index, expected in ((1, lines[1].split()), (len(lines), ["data.root=a folder", "seed=1"])):
        pod: Any = subprocess.Popen(
            [*container["command"], script.replace("/grid/grid", str(tmp_path / "grid"))],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.PIPE,
            text=True,
        )
        process, *words = pod.communicate(timeout=60)[0].splitlines()
        assert words == ["-m", "aim.train", *expected]
        assert int(process) == pod.pid
    (tmp_path / "grid").write_text("'seed=1 data.root=a\n")
    pod = subprocess.run(
        [*container["command"], script.replace("/grid/grid", str(tmp_path / "grid"))],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": "0"},
        capture_output=True,
        text=True,
    )
    assert (pod.returncode, pod.stdout) == (2, "")
    for line in lines:
        config.build(config.compose(line.split()), Run)


def test_a_pod_of_shards_does_its_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = SHARDS["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "aim.features"]
    words = [word if "=" in word else f"input={word}" for word in container["args"]]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "63")
    settings = config.build(config.compose(words, "features"), features.Settings)
    assert settings.portion == Portion(63, SHARDS["spec"]["completions"])
    refused, _ = SHARDS["spec"]["podFailurePolicy"]["rules"]
    assert set(refused["onExitCodes"]["values"]).isdisjoint({0, INCOMPLETE, INTERRUPTED})
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in SHARDS["spec"]["template"]["spec"]["volumes"]
    }


def test_a_job_of_skypilot_does_its_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    python, dash, verb, *words = SKY["run"].split()
    assert (python, dash, verb) == ("python", "-m", "aim.features")
    monkeypatch.setenv("SKYPILOT_JOB_RANK", "3")
    monkeypatch.setenv("SKYPILOT_NUM_JOBS", "16")
    words = [word if "=" in word else f"input={word}" for word in words]
    assert config.build(config.compose(words, "features"), features.Settings).portion == Portion(3, 16)


def test_the_text_has_the_numbers_of_the_code() -> None:
    assert f"after {lease.DEAD_SECONDS:g} seconds without a touch" in TEXT
    assert f"restarts={config.compose([]).restarts}" in TEXT


@pytest.mark.slow
def test_an_elastic_job_goes_on_with_the_nodes_it_gets(tmp_path: Path, toy_cache: Path) -> None:
    """One node; then another one comes; then it is lost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    long = [*TOY, "train.epochs=1000", "train.eval_every=0", f"run_dir={tmp_path / 'run'}"]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=10",
        "--rdzv-id=toy", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1",
        "--rdzv-conf=last_call_timeout=1", "--shutdown-timeout=100", "-m", "aim.train", *long,
    ]  # fmt: skip
    said = tmp_path / "said.txt"

    def node() -> "subprocess.Popen[bytes]":
        with said.open("ab") as file:
            environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # as the text says
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)

    def wait_for(text: str, times: int) -> None:
        until = time.monotonic() + 250
        while said.read_text().count(text) < times:
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.05)

    one, two = "of 8 clips\n", "of 8 clips (2 ranks x 1 parts x 4)\n"  # as the start says it
    nodes = [node()]
    try:
        wait_for(one, 1)
        while not (tmp_path / "run" / "last.pt").exists():
            time.sleep(0.05)
        nodes.append(node())
        wait_for(two, 1)
        step = checkpoint.load_last(tmp_path / "run" / "last.pt")["step"]
        while checkpoint.load_last(tmp_path / "run" / "last.pt")["step"] < step + 3:
            time.sleep(0.05)
        nodes[1].kill()
        wait_for(one, 2)
        step = checkpoint.load_last(tmp_path / "run" / "last.pt")["step"]
        while checkpoint.load_last(tmp_path / "run" / "last.pt")["step"] < step + 3:
            time.sleep(0.05)
    finally:
        for each in nodes:
            each.terminate()
            each.wait(120)
    killed_at(30, tmp_path / "alone", *long[len(TOY) : -1])
    for now, before in zip(journal(tmp_path / "run")[:30], journal(tmp_path / "alone"), strict=True):
        assert now == pytest.approx(before, rel=1e-4)
