"""What only a GPU can show: `pytest -m gpu` on a machine that has one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from aim.data.loading.loader import Batch
from aim.engine.loop.ema import Average
from aim.engine.loop.evaluation import score
from aim.engine.loop.optim import adamw
from aim.engine.loop.training import train_step
from aim.engine.machine.distributed import World
from aim.engine.machine.feeding import on_device, to_host
from aim.engine.machine.hardware import FP8_SINCE, Precision, autocast, check_fp8
from aim.engine.run.settings import Run
from aim.engine.run.step import make_batch, peak_of_step
from aim.engine.telling.watching import ENOUGH, Pace
from aim.ground import config
from aim.models.float8 import Float8Linear
from tests.conftest import ROOT
from tests.messages import named, refused
from tests.toy import TOY, run

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("toy_cache")]
CUDA = torch.device("cuda")
FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= FP8_SINCE


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


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch's own, of the mode below
def test_a_step_and_a_test_wait_for_nothing_but_results() -> None:
    """CUDA itself refuses whatever would wait for it, everything but the reading of a copy that was sent before."""
    settings = config.build(
        config.compose([*TOY, "device=cuda", "train.mixup=0.8", "train.cutmix=1.0", "train.clip_grad=1"]), Run
    )
    lists = settings.load_lists()
    world = World(0, 1, CUDA)
    model = settings.model(8).to(CUDA).train()
    optimizer, average, pace = adamw(model, settings.optim), Average(model, 0.9), Pace(CUDA)

    def steps(epoch: int) -> None:
        for batch in on_device(loader.epoch(epoch), CUDA):
            torch.manual_seed(epoch)
            pace.begins(loader.waited)
            train_step(
                model,
                optimizer,
                [batch],
                settings.train,
                "bf16",
                CUDA,
                task=settings.task,
                stop=False,
                meets=pace.meets,
            )
            average.update(epoch)
        for _ in score(
            model.eval(), on_device(loader.epoch(epoch), CUDA), task=settings.task, device=CUDA, precision="bf16"
        ):
            pass
        model.train()

    with closing(settings.train_loader(settings.train_dataset(lists), world)) as loader:
        steps(0)  # the first ones make memory and libraries ready
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps(1)
            with pytest.raises(RuntimeError):
                torch.ones(1, device=CUDA).item()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for _ in range(ENOUGH):
        pace.begins(0.0)
        pace.meets()
    torch.cuda.synchronize()
    assert 0 <= pace.seconds < 1


def test_a_batch_on_the_device_outlives_the_loader_s() -> None:
    def batches() -> Iterator[Batch]:
        block = torch.empty(64, 1, 8, 3, 112, 112, dtype=torch.uint8).share_memory_()
        for i in range(20):
            block.fill_(i)
            yield Batch(block, torch.full((64,), i), torch.full((64,), i), torch.full((64,), float(i)))
        block.fill_(99)

    busy = torch.randn(4096, 4096, device=CUDA)
    kept = []
    for batch in on_device(batches(), CUDA):
        busy = (busy @ busy).clamp(-1, 1)  # so that the process is ahead of the GPU
        kept.append(to_host(batch.video.amin(), batch.video.amax(), batch.label.sum(), batch.weight.sum()))
    for i, read in enumerate(kept):
        assert [float(value) for value in read()] == [i, i, 64 * i, 64 * i]


def test_results_are_read_while_later_work_goes_on() -> None:
    sent = to_host(torch.arange(5, device=CUDA))
    torch.cuda._sleep(2_000_000_000)
    end = torch.cuda.current_stream().record_event()
    assert sent()[0].tolist() == [0, 1, 2, 3, 4]
    assert not end.query()
    torch.cuda.synchronize()


def test_a_profile_on_the_gpu_tells_of_its_kernels(tmp_path: Path) -> None:
    run(tmp_path, "device=cuda", "gpus=1", "train.profile=true")
    text = (tmp_path / "profile" / "profile.txt").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("(the GPU computes)"))
    assert 0 < float(row.split()[-1].rstrip("%")) <= 100
    assert "copying to the device" in text


def test_fp8_computes_what_bf16_does_on_gpus_that_have_it() -> None:
    if not FP8:
        with refused("precision=fp8", "8.9", "precision=auto"):
            check_fp8("cuda")
        return
    layer = torch.nn.Linear(768, 3072).requires_grad_(False).to(CUDA)
    x = torch.randn(8 * 197, 768, device=CUDA, requires_grad=True)
    y = Float8Linear(layer, 3)(x)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    exact = layer.double()(x.double()), gradient.double() @ layer.weight.double()
    assert all((ours - e).norm() < 0.045 * e.norm() for ours, e in zip((y, x.grad), exact, strict=True))
    gradients = []
    for precision, *more in (["bf16"], ["fp8"], ["fp8", "train.compile=false"], ["fp8", "train.memory=lean"]):
        asked = ["+experiment=k400", "backbone.weights=random", f"precision={precision}", *more]
        run_ = config.build(config.compose(asked), Run)
        model = run_.placed().model(400).to(CUDA).eval()  # as its seed draws it, and what follows
        video = torch.randint(256, (2, 8, 3, 224, 224), dtype=torch.uint8, device=CUDA)
        with autocast(CUDA, run_.precision):
            logits = model(model.preprocess(video))
        cross_entropy(logits.float(), torch.tensor([1, 2], device=CUDA)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    for found in gradients[1:]:
        assert torch.cosine_similarity(found, gradients[0], dim=0) > 0.95


@pytest.mark.parametrize("precision", ["fp32", "bf16", *(["fp8"] if FP8 else [])])
def test_a_step_needs_the_memory_that_was_planned(precision: Precision) -> None:
    settings = ["+experiment=k400", "backbone.weights=random", f"precision={precision}"]
    run_ = config.build(config.compose(settings), Run)
    before = torch.cuda.memory_allocated()
    model = run_.model(400).to(CUDA).train()
    optimizer = adamw(model, run_.optim)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):  # the moments are there from the second step on
        batch = make_batch(model, 16, CUDA)
        train_step(model, optimizer, [batch], run_.train, precision, CUDA, task=run_.task, stop=False)
    peak = torch.cuda.max_memory_allocated() - before
    assert peak_of_step(run_, 400, 16) == pytest.approx(peak, rel=0.1)


def test_more_gpus_than_visible_are_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aim.train", *TOY, "device=cuda", "gpus=99", f"run_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=250)
    assert done.returncode == 2
    named(done.stderr, "gpus=99", f"gpus={torch.cuda.device_count()}")
