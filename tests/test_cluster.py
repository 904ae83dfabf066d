"""What docs/cluster.md tells Kubernetes."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from aim import config
from aim.engine import lease
from aim.engine.settings import Run
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
JOB, GRID, SWEEP = (
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
    for line in lines:
        config.build(config.compose(line.split()), Run)


def test_the_text_has_the_numbers_of_the_code() -> None:
    assert f"after {lease.DEAD_SECONDS:g} seconds without a touch" in TEXT
    assert f"restarts={config.compose([]).restarts}" in TEXT
