"""Fake tensors are counted as real ones are allocated."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aim.engine.loop.training import train_step
from aim.engine.run import step
from aim.engine.run.settings import Run
from aim.ground import config
from aim.models.classifier import VideoClassifier, plainly
from aim.models.flops import gmacs_per_view
from tests.toy import TOY

CPU = torch.device("cpu")
SWIN = [
    "backbone=swin_t", "backbone.weights=random", "clip.size=64",
    "+backbone.options={img_size: 64, patch_size: 4, embed_dim: 16, depths: [2, 2], num_heads: [2, 2], window_size: 4}",
]  # fmt: skip
MOMENTS = 8  # bytes of AdamW for a tuned parameter


def toy(*overrides: str) -> Run:
    trunk = "backbone=swin_t" in overrides
    settings = [item for item in TOY if not (trunk and item.startswith(("backbone.", "clip.size")))]
    return config.build(config.compose([*settings, *overrides]), Run)


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (["adapter=aim", "precision=fp32"], 0.0),
        (["adapter=aim", "precision=bf16"], 0.0),
        (["adapter=aim", "precision=fp8"], 0.0),
        (["adapter=side", "precision=fp32"], 0.0),
        ([*SWIN, "precision=fp32"], 0.0),
        # Of tokens in bf16, a norm on a CPU keeps mean and deviation in float32, on fake tensors in bf16.
        ([*SWIN, "precision=bf16"], 0.015),
    ],
    ids=["aim-fp32", "aim-bf16", "aim-fp8", "side-fp32", "swin-fp32", "swin-bf16"],
)
def test_fake_tensors_are_counted_as_real_ones_are_allocated(overrides: list[str], missing: float) -> None:
    run = toy(*overrides)
    with step.pretended(run, 5) as model:
        kept, peak, flops = count(run, model)
    real_kept, real_peak, real_flops = count(run, replace(run, device="cuda").model(5).train())
    assert 1 - missing <= kept / real_kept <= 1
    assert 1 - missing <= peak / real_peak <= 1
    assert flops == real_flops


def count(run: Run, model: VideoClassifier) -> tuple[int, int, int]:
    """Of two clips."""
    return step.kept_bytes(run, model, CPU, 2), step.peak_bytes(run, model, 2), step.flops(run, model, 2)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", 1313.475), ("bf16", 745.561)])
def test_a_clip_of_the_paper_keeps_what_was_measured_on_real_tensors(precision: str, expected: float) -> None:
    run = config.build(config.compose(["+experiment=k400", f"precision={precision}"]), Run)
    with step.pretended(run, 400) as model, plainly(model):
        kept = step.kept_bytes(run, model, CPU, 2) - step.kept_bytes(run, model, CPU, 1)
    assert kept / 2**20 == pytest.approx(expected, abs=0.001)


def test_a_linear_probe_goes_backward_through_its_head_alone() -> None:
    run = toy("adapter=none")
    model = run.model(5)
    cost = step.cost_of_step(run, 5, 4)
    head = 2 * 4 * model.head.in_features * model.head.out_features  # the gradient of its weight
    with plainly(model):  # every token, as papers count
        assert step.flops(run, model, 4) == 4 * 2e9 * gmacs_per_view(model) + head
    assert step.flops(run, model, 4) == cost.flops > 8e9 * 0.5 * gmacs_per_view(model)
    full = toy("adapter=full")
    with plainly(trained := full.model(5)):
        assert 3 * 0.9 < step.flops(full, trained, 4) / (4 * 2e9 * gmacs_per_view(model)) <= 3


def test_the_operations_in_fp8_are_those_of_the_frozen_layers() -> None:
    costs = [step.cost_of_step(toy("adapter=none", f"precision={precision}"), 5, 4) for precision in ("bf16", "fp8")]
    assert costs[0].flops == costs[1].flops
    assert costs[0].fp8_flops == 0
    # 4 clips x 4 frames of 17 tokens through qkv, proj, fc1 and fc2; in the second block one token but for k and v.
    rows, each = 4 * 4, 2 * 32 * 32
    assert costs[1].fp8_flops == rows * each * (17 * 12 + 17 * 2 + 10)
    matrices = 2 * 12 * 32 * 32  # stored twice more, a byte a number; a scale a row, and a column
    scales = 4 * 2 * ((96 + 32 + 128 + 32) + (32 + 32 + 32 + 128))
    assert costs[1].weight_bytes - costs[0].weight_bytes == 2 * matrices + scales


def test_a_step_needs_its_weights_gradients_and_moments_and_what_each_clip_adds() -> None:
    run = toy()
    cost = step.cost_of_step(run, 5, 4)
    model = run.model(5)
    tuned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert (cost.params_tuned, cost.gradient_bytes, cost.optimizer_bytes) == (tuned, 4 * tuned, MOMENTS * tuned)
    assert cost.peak_bytes > cost.weight_bytes + cost.optimizer_bytes + 4 * cost.kept_bytes
    assert step.peak_of_step(run, 5, 4) == cost.peak_bytes
    assert step.peak_of_step(run, 5, 12) == pytest.approx(cost.peak_bytes + 8 * cost.clip_bytes, rel=0.01)


def test_the_step_that_is_counted_is_that_of_the_training_loop() -> None:
    run = toy("precision=fp32")
    model = run.model(5).train()
    counted, batch = step.peak_bytes(run, model, 8), step.make_batch(model, 8, CPU)
    # The temporary tensors of AdamW on a CPU, unlike a GPU's, would be larger than this step.
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.0)
    with step.Allocated() as allocated:
        train_step(model, optimizer, [batch, batch], run.train, run.precision, CPU, task=run.task, stop=False)
    tuned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    looped = allocated.peak + step.weight_bytes(model) + MOMENTS * tuned
    assert looped == pytest.approx(counted, rel=0.005)


def test_what_is_freed_counts_at_the_peak_alone() -> None:
    with step.Allocated() as allocated:
        x = torch.ones(1000)
        y = (x * 2).sum()
    assert (allocated.now, allocated.peak) == (4 * 1000 + y.nbytes, 2 * 4 * 1000 + y.nbytes)


def test_a_view_of_an_older_tensor_is_no_new_memory() -> None:
    older = torch.ones(1000)
    with step.Allocated() as allocated:
        view = older[:10].mul_(2)
    assert view.nbytes
    assert allocated.peak == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_kept_for_the_backward_pass_is_counted_once(precision: str) -> None:
    """Two layers, a known answer: nothing of the frozen one, the trained one's input."""
    run = toy(f"precision={precision}")
    found = [step.kept_bytes(run, Two(), CPU, clips) for clips in (1, 2)]  # type: ignore[arg-type]
    size = 4 if precision == "fp32" else 2
    assert found[1] - found[0] == 1000 * size


def test_a_block_that_is_run_again_keeps_its_input() -> None:
    run, model = toy("adapter=full", "precision=fp32"), Two()
    model.frozen.requires_grad_(True)
    kept = step.kept_bytes(run, model, CPU, 2) - step.kept_bytes(run, model, CPU, 1)  # type: ignore[arg-type]
    model.again = True
    again = step.kept_bytes(run, model, CPU, 2) - step.kept_bytes(run, model, CPU, 1)  # type: ignore[arg-type]
    assert kept - again == 4 * 1000


class Two(torch.nn.Module):
    """A frozen layer under a trained one."""

    num_frames, size = 2, 4
    again = False  # True: the layers are run again on the way back

    def __init__(self) -> None:
        super().__init__()
        self.frozen = torch.nn.Linear(3 * 2 * 4 * 4, 1000).requires_grad_(False)
        self.trained = torch.nn.Linear(1000, 1)

    def preprocess(self, video: Tensor) -> Tensor:
        return video.float().flatten(1)

    def forward(self, video: Tensor) -> Tensor:
        if self.again:
            return checkpoint(lambda x: self.trained(self.frozen(x)), video, use_reentrant=False)  # type: ignore[no-any-return]
        trained: Tensor = self.trained(self.frozen(video))
        return trained
