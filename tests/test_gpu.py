"""Tests that need a GPU: `pytest -m gpu` on a machine that has one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from aim.data.loading.loader import Batch
from aim.engine.loop.ema import Average
from aim.engine.loop.evaluation import score
from aim.engine.loop.faults import explained
from aim.engine.loop.optim import adamw
from aim.engine.loop.training import train_step
from aim.engine.machine import distributed, peers, sharding
from aim.engine.machine.distributed import World
from aim.engine.machine.feeding import on_device, registered, to_host
from aim.engine.machine.hardware import FP8_SINCE, Precision, autocast, check_fp8
from aim.engine.run.settings import Run
from aim.engine.run.step import make_batch, peak_of_step
from aim.engine.telling.watching import ENOUGH, Pace
from aim.ground import config
from aim.models.attention import attend
from aim.models.classifier import VideoClassifier
from aim.models.compiling import compile_blocks
from aim.models.float8 import Float8Linear
from aim.models.memory import remembering
from tests.conftest import ROOT
from tests.messages import named, refused
from tests.models.checks import toy_model
from tests.models.toys import FRAMES, SIZE
from tests.toy import TOY, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("toy_cache"),
    pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION"),  # Triton's own, of its first kernel
]
CUDA = torch.device("cuda")
PAPER = ["+experiment=k400", "backbone.weights=random"]
FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= FP8_SINCE


@pytest.fixture(autouse=True)
def need_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.fail("pytest -m gpu needs a CUDA device")


@pytest.mark.parametrize("compiled", ["false", "gpu"])
def test_a_run_on_the_gpu_gives_the_result_of_the_cpu(tmp_path: Path, compiled: str) -> None:
    """Compiled, too, with a test whose last batch is filled up."""
    ours = run(tmp_path / "gpu", "device=cuda", "gpus=1", f"train.compile={compiled}")
    theirs = run(tmp_path / "cpu")
    assert ours["config_hash"] == theirs["config_hash"]
    names = torch.load(tmp_path / "cpu" / "last.pt", weights_only=True)["model"]
    for name, tensor in torch.load(tmp_path / "gpu" / "last.pt", weights_only=True)["model"].items():
        torch.testing.assert_close(tensor, names[name], rtol=1e-2, atol=1e-3)


def paper(precision: str, *more: str) -> Run:
    """AIM as the paper has it, on the GPU; uncompiled, for each compilation takes the better part of a minute."""
    asked = ["device=cuda", "train.compile=false", f"precision={precision}"]
    return config.build(config.compose([*PAPER, *asked, *more]), Run)


def flat_gradients(model: VideoClassifier) -> Tensor:
    named = model.named_parameters()
    return torch.cat([p.grad.flatten() for name, p in named if p.grad is not None and not name.startswith("head.")])


def gradients_of(model: VideoClassifier, video: Tensor, precision: Precision) -> Tensor:
    """Of the adapters, one after the other; the head's are larger, and no block's backward pass has a part in them."""
    torch.manual_seed(0)
    model.zero_grad()
    with autocast(CUDA, precision):
        logits = model(video)
    cross_entropy(logits.float(), torch.arange(len(video), device=CUDA)).backward()
    return flat_gradients(model)


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.cosine_similarity(a.double(), b.double(), dim=0).item()


def gradients_of_noise(run_: Run) -> Tensor:
    """Of two clips."""
    model = run_.model(400).to(CUDA).eval()
    torch.manual_seed(0)
    return gradients_of(model, model.preprocess(make_batch(model, 2, CUDA).video[:, 0]), run_.precision)


def test_bf16_gradients_point_where_float32_ones_do() -> None:
    gradients = [gradients_of_noise(paper(precision)) for precision in ("fp32", "bf16")]
    assert cosine(*gradients) > 0.98


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch's own, of the mode below
def test_a_step_and_a_test_wait_for_nothing_but_results() -> None:
    """CUDA itself refuses every wait, except for the reading of an earlier copy."""
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


@pytest.mark.parametrize("pinned", [True, False])
def test_a_batch_on_the_device_outlives_the_loader_s(*, pinned: bool) -> None:
    block = torch.empty(64, 1, 8, 3, 112, 112, dtype=torch.uint8).share_memory_()
    release = registered([block] if pinned else [])
    assert block.is_pinned() == pinned

    def batches() -> Iterator[Batch]:
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
    release()
    assert not block.is_pinned()


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
    expected = gradients_of_noise(paper("bf16"))
    for more in ("train.compile=gpu", "train.compile=false", "train.memory=lean"):
        found = gradients_of_noise(paper("fp8", more))
        assert cosine(found, expected) > 0.95, more


@pytest.mark.parametrize("precision", ["fp32", "bf16", *(["fp8"] if FP8 else [])])
def test_a_step_needs_the_memory_that_was_planned(precision: Precision) -> None:
    run_ = paper(precision)
    before = torch.cuda.memory_allocated()
    model = run_.model(400).to(CUDA).train()
    optimizer = adamw(model, run_.optim)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):  # the moments are there from the second step on
        batch = make_batch(model, 16, CUDA)
        train_step(model, optimizer, [batch], run_.train, precision, CUDA, task=run_.task, stop=False)
    peak = torch.cuda.max_memory_allocated() - before
    assert peak_of_step(run_, 400, 16) == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_blocks_and_each_memory_give_the_gradients_of_plain_ones(precision: Precision) -> None:
    settings = config.build(config.compose([*TOY, "device=cuda", f"precision={precision}"]), Run)
    model = settings.model(8).to(CUDA).eval()
    video = torch.rand(2, 3, 4, 32, 32, device=CUDA)
    plain = gradients_of(model, video, precision)
    assert plain.norm() > 0
    for memory in ("lean", "smallest", "fast"):
        model.backbone.memory = memory
        if memory == "fast":
            compile_blocks(model)
        assert cosine(gradients_of(model, video, precision), plain) > 0.999
    assert model.backbone.run.run is not remembering  # type: ignore[attr-defined]  # the compiler didn't fail


@pytest.mark.parametrize("logit", [0.0, -128.0])
@pytest.mark.parametrize(
    ("shape", "queries"),
    [((16, 12, 197, 64), 1), ((16, 12, 128, 64), 1), ((16, 12, 197, 64), 197), ((2, 12 * 197, 8, 64), 8)],
    ids=["class token", "class token of 128", "space", "time"],
)
def test_attention_is_that_of_float64(shape: tuple[int, ...], queries: int, logit: float) -> None:
    """Also of logits far below zero, by which cuDNN's gradients of one query became NaN."""
    torch.manual_seed(0)
    module = SimpleNamespace(training=False, fused_attn=True, attn_drop=SimpleNamespace(p=0.0))
    q, k, v = (torch.randn(shape, device=CUDA) / 4 for _ in range(3))
    q = q[:, :, :queries]
    if logit:
        q[..., 0], k[..., 0] = 8.0, logit
    asked = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    exact = [x.detach().double().requires_grad_() for x in asked]
    gradient = torch.randn(*shape[:2], queries, 64, device=CUDA)
    found = attend(module, *asked)
    expected = (exact[0] @ exact[1].mT / 8).softmax(-1) @ exact[2]
    pairs = zip(
        (found, *torch.autograd.grad(found, asked, gradient.bfloat16())),
        (expected, *torch.autograd.grad(expected, exact, gradient.double())),
        strict=True,
    )
    for number, (ours, theirs) in enumerate(pairs):
        assert ours.isfinite().all()
        if number == 0 or not logit:  # gradients of such logits are differences of large numbers
            assert (ours.double() - theirs).norm() < 0.02 * theirs.norm() + 1e-3 * theirs.numel() ** 0.5


def test_windows_beyond_the_limit_of_a_launch_are_those_of_few() -> None:
    """A Swin's windows are separate batches; a GPU's kernel takes 65,535 at once."""
    model = toy_model("aim", "swin_t").to(CUDA).eval()
    clips = torch.rand(66_000 // (FRAMES * 4), 3, FRAMES, SIZE, SIZE, device=CUDA)  # of 4 windows a frame
    with torch.inference_mode():
        whole, parts = model(clips), torch.cat([model(some) for some in clips.split(1000)])
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-4)


def test_ranks_talk_by_nccl_and_a_failing_one_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of one: NCCL's start, sums, copies, buckets, sharded blocks, and the end of a failing rank."""
    dist = distributed.dist
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        tensors = [torch.ones(3, device=CUDA), torch.arange(4.0, device=CUDA)]
        distributed.sum_(tensors)
        distributed.broadcast_(tensors)
        distributed.meet()
        assert [t.tolist() for t in tensors] == [[1, 1, 1], [0, 1, 2, 3]]
        assert distributed.gather({"a": 1}) == [{"a": 1}]
        settings = config.build(config.compose([*TOY, "device=cuda"]), Run)
        video = torch.rand(2, 3, 4, 32, 32, device=CUDA)
        model = settings.model(8).to(CUDA).eval()
        plain = gradients_of(model, video, "fp32")
        monkeypatch.setattr(distributed, "MANY", 0)
        summing = distributed.summing(model)
        assert summing is not None
        model.zero_grad()
        cross_entropy(summing(video), torch.arange(2, device=CUDA)).backward()
        torch.testing.assert_close(flat_gradients(model), plain)
        mesh = sharding.init_device_mesh
        monkeypatch.setattr(sharding, "init_device_mesh", lambda kind, _: mesh(kind, (1,)))
        model = settings.model(8).to(CUDA).eval()
        monkeypatch.setattr(model, "saved_names", list)  # its trunk is random
        sharding.shard(model, World(0, 2, CUDA), parts=1, least=0)
        torch.testing.assert_close(gradients_of(model, video, "fp32"), plain)
    finally:
        peers.tear(failing=True)
    assert not dist.is_initialized()


def test_memory_that_runs_out_is_one_line() -> None:
    training = config.build(config.compose(TOY), Run).train
    with (
        refused("5", "GiB", "train.accumulate=2", "train.memory=lean"),
        explained(lambda: "step 5 of 9", training, World(0, 1, CUDA)),
    ):
        torch.empty(2**45, device=CUDA)


def test_a_run_begun_on_a_cpu_goes_on_with_a_gpu_s_kernels(tmp_path: Path) -> None:
    run(tmp_path / "cpu", "train.epochs=1")
    run(tmp_path / "cpu", "train.epochs=2", "device=cuda", "gpus=1")
    run(tmp_path / "gpu", "train.epochs=1", "device=cuda", "gpus=1")
    run(tmp_path / "gpu", "train.epochs=2", "device=cuda", "gpus=1")
    ours, theirs = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("cpu", "gpu"))
    assert all(group["fused"] for group in ours["optimizer"]["param_groups"])
    for name, tensor in ours["model"].items():
        torch.testing.assert_close(tensor, theirs["model"][name], rtol=1e-2, atol=1e-3)


def test_more_gpus_than_visible_are_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aim.train", *TOY, "device=cuda", "gpus=99", f"run_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=250)
    assert done.returncode == 2
    named(done.stderr, "gpus=99", f"gpus={torch.cuda.device_count()}")
