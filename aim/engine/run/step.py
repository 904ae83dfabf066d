"""Memory and operations of a training step, counted on fake tensors, without computing it."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from aim.data.loading.loader import Batch
from aim.engine.machine.hardware import autocast
from aim.engine.run.settings import Run
from aim.models.classifier import VideoClassifier

CPU = torch.device("cpu")
MOMENTS = 2 * 4  # bytes of AdamW for a tuned parameter: two moments in float32


@dataclass(frozen=True)
class Cost:
    """Of one forward and backward pass over `clips` clips on one GPU."""

    clips: int
    params_total: int
    params_tuned: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    kept_bytes: int  # for the backward pass, a clip more
    clip_bytes: int  # at the peak, a clip more
    peak_bytes: int  # with weights, gradients and moments
    flops: int
    fp8_flops: int = 0  # of them


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operations in this block allocate, as long as they live.

    Hooks on saved tensors would miss the tensors of a checkpointed block, and temporary ones.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}  # by the address of the storage object; fake ones have no memory of their own

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._note((args, kwargs), ours=False)
        result = op(*args, **(kwargs or {}))
        self._note(result, ours=True)
        return result

    def _note(self, tensors: Any, *, ours: bool) -> None:
        for tensor in tree_leaves(tensors):
            if (
                isinstance(tensor, Tensor)
                and (address := (storage := tensor.untyped_storage())._cdata) not in self.sizes
            ):
                self.sizes[address] = storage.nbytes() if ours else 0
                self.now += self.sizes[address]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._forget, address).atexit = False

    def _forget(self, address: int) -> None:
        self.now -= self.sizes.pop(address)


@contextmanager
def pretended(run: Run, num_classes: int) -> Iterator[VideoClassifier]:
    """The run's model of fake tensors, in a block where every tensor is fake: shapes and types, no memory, no time."""
    train, backbone = replace(run.train, compile=False), replace(run.backbone, weights="random")
    run = replace(run, device="cuda", train=train, backbone=backbone)
    with torch.device("meta"):
        model = run.model(num_classes)
    # As on a CPU, so that no GPU is queried; attention that keeps no matrix of weights is the same there.
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield model.to_empty(device=CPU).train()


def cost_of_step(run: Run, num_classes: int, clips: int) -> Cost:
    """Count a step of `clips` clips, and of twice as many for the cost of one more clip."""
    with pretended(run, num_classes) as model:
        tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        peak, peak_of_twice = (peak_bytes(run, model, n) for n in (clips, 2 * clips))
        kept, kept_of_twice = (kept_bytes(run, model, CPU, n) for n in (clips, 2 * clips))
        counted = flops_by_kind(run, model, clips)
        num_tuned = sum(parameter.numel() for parameter in tuned)
        return Cost(
            clips=clips,
            params_total=sum(parameter.numel() for parameter in model.parameters()),
            params_tuned=num_tuned,
            weight_bytes=weight_bytes(model),
            gradient_bytes=sum(parameter.nbytes for parameter in tuned),
            optimizer_bytes=MOMENTS * num_tuned,
            kept_bytes=(kept_of_twice - kept) // clips,
            clip_bytes=(peak_of_twice - peak) // clips,
            peak_bytes=peak,
            flops=sum(counted.values()),
            fp8_flops=counted.get(torch.ops.aten._scaled_mm, 0),
        )


def peak_of_step(run: Run, num_classes: int, clips: int) -> int:
    """The bytes of a step's largest moment, with weights, gradients and moments."""
    with pretended(run, num_classes) as model:
        return peak_bytes(run, model, clips)


def peak_bytes(run: Run, model: VideoClassifier, clips: int) -> int:
    """The same on fake or real tensors. AdamW's moments are added."""
    with Allocated() as allocated:
        there_and_back(run, model, clips)
    model.zero_grad()
    tuned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    peak: int = weight_bytes(model) + MOMENTS * tuned + allocated.peak
    return peak


def flops(run: Run, model: VideoClassifier, clips: int) -> int:
    """Floating-point operations of a step, repeated ones included."""
    return sum(flops_by_kind(run, model, clips).values())


def flops_by_kind(run: Run, model: VideoClassifier, clips: int) -> dict[Any, int]:
    """The same for each of torch's operations; counting keeps tensors, so peaks are apart."""
    with FlopCounterMode(display=False) as counter:
        there_and_back(run, model, clips)
    model.zero_grad()
    counts: dict[Any, int] = counter.get_flop_counts()["Global"]
    return counts


def there_and_back(run: Run, model: VideoClassifier, clips: int) -> None:
    """Forward and backward as `train_step` goes, of a part that isn't its batch's first, so that there are gradients.

    Mixing, which asks for values, and the ranks' sum, for which fake tensors would wait, are left out.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    batch = make_batch(model, clips, CPU, several=run.task.several)
    video, label = model.preprocess(batch.video[:, 0]), batch.label
    del batch  # as the loop gives it back
    with autocast(CPU, run.precision):
        logits = model(video)
    target = run.task.target(label, model.head.out_features, mixed=False)
    loss = run.task.loss(logits.float(), target, 0.0).mean()
    loss.backward()  # type: ignore[no-untyped-call]


def kept_bytes(run: Run, model: VideoClassifier, device: torch.device, clips: int) -> int:
    """The bytes that a forward pass over `clips` clips keeps for the backward pass, on fake or real tensors."""
    video = model.preprocess(make_batch(model, clips, device).video[:, 0])
    with autocast(device, run.precision):
        return kept_by(lambda: model(video))


def kept_by(forward: Callable[[], Tensor]) -> int:
    """The bytes that `forward()` allocates and that live for as long as its result, which isn't counted."""
    with Allocated() as allocated:
        result = forward()
        kept: int = allocated.now - result.untyped_storage().nbytes()
        return kept


def make_batch(model: VideoClassifier, clips: int, device: torch.device, *, several: bool = False) -> Batch:
    """Noise on the device, in the loader's form: of one label a video, or of several, of which it has none."""
    frames = (clips, 1, model.num_frames, 3, model.size, model.size)
    video = torch.randint(256, frames, dtype=torch.uint8, device=device)
    shape = (clips, model.head.out_features) if several else (clips,)
    label, index = torch.zeros(shape, dtype=torch.int64, device=device), torch.arange(clips)
    return Batch(video, label, index, torch.ones(clips, device=device))


def weight_bytes(model: VideoClassifier) -> int:
    """Of parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
