"""What only a GPU can show: `pytest -m gpu` on a machine that has one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from aim import config
from aim.engine.hardware import autocast
from aim.engine.settings import Run
from tests.conftest import ROOT
from tests.toy import TOY, run

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("toy_cache")]
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def need_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.fail("pytest -m gpu needs a CUDA device")


def test_a_run_on_the_gpu_gives_the_result_of_the_cpu(tmp_path: Path) -> None:
    ours, theirs = run(tmp_path / "gpu", "device=cuda", "gpus=1"), run(tmp_path / "cpu")
    assert ours["config_hash"] == theirs["config_hash"]
    names = torch.load(tmp_path / "cpu" / "last.pt", weights_only=True)["model"]
    for name, tensor in torch.load(tmp_path / "gpu" / "last.pt", weights_only=True)["model"].items():
        torch.testing.assert_close(tensor, names[name], rtol=1e-2, atol=1e-3)


def test_bf16_gradients_point_where_float32_ones_do() -> None:
    run_ = config.build(config.compose(["+experiment=k400", "backbone.weights=random"]), Run)
    model = run_.model(400).to(CUDA)
    video = torch.randint(256, (2, 8, 3, 224, 224), dtype=torch.uint8, device=CUDA)
    gradients = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model.zero_grad()
        with autocast(CUDA, precision):
            logits = model(model.preprocess(video))
        cross_entropy(logits.float(), torch.tensor([1, 2], device=CUDA)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


def test_more_gpus_than_visible_are_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aim.train", *TOY, "device=cuda", "gpus=99", f"run_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=250)
    assert done.returncode == 2
    assert "gpus=99, but" in done.stderr
