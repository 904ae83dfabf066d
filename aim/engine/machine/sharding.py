"""Spreads a frozen trunk over the ranks, block by block, where it doesn't fit beside its activations: torch's FSDP2."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from aim.data.loading.loader import Batch, Loader
from aim.engine.machine.distributed import World, share
from aim.ground.errors import UserError
from aim.models.classifier import VideoClassifier
from aim.models.memory import remembering

LEAST = 2_000_000_000  # frozen parameters of the blocks; docs/cluster.md does the arithmetic


def shard(model: VideoClassifier, world: World, *, parts: int, least: int = LEAST) -> None:
    """Leave each rank its share of every block's frozen parameters; a block is whole while it computes.

    Trained parameters stay whole on all ranks, and so do those outside of the blocks. A step has `parts` accumulated
    parts. Raises UserError if a replica of the trunk is better.
    """
    blocks = model.backbone.blocks
    of_blocks = {parameter for block in blocks for parameter in block.parameters()}
    frozen = {parameter for parameter in of_blocks if not parameter.requires_grad}
    number = sum(parameter.numel() for parameter in frozen)
    gigabytes = sum(parameter.numel() * parameter.element_size() for parameter in frozen) / 1e9
    if number < least:
        raise UserError(
            f"train.shard=true with {number / 1e6:.0f} M frozen parameters in the blocks: a whole copy takes "
            f"{gigabytes:.2f} GB of each rank, and spread out, {2 * gigabytes:.2f} GB would be gathered in each of the "
            f"{parts} parts of every step, forward and backward; leave it out below {least / 1e6:.0f} M"
        )
    if world.size == 1:
        raise UserError("train.shard=true on one rank, which has nobody to share with; leave it out, or use more GPUs")
    if any(name in model.saved_names() for name, parameter in model.named_parameters() if parameter in frozen):
        raise UserError(
            "train.shard=true with backbone.weights=random, which would be saved whole; give a trunk's file"
        )
    mesh = init_device_mesh(world.device.type, (world.size,))
    whole = {parameter for parameter in model.parameters() if parameter not in frozen}
    model.backbone.run = remembering  # a compiled block can't gather its parameters
    for view in model.backbone.views:
        view.plain = view.block in blocks  # then the block itself is called, which gathers it
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=whole)
    # The root holds nothing itself, and lets a block be gathered while the one before it computes.
    fully_shard(model, mesh=mesh, ignored_params=whole)


def is_sharded(model: nn.Module) -> bool:
    """Whether a forward pass is one of all ranks together."""
    return isinstance(model, FSDPModule)


def in_step(loader: Loader) -> Iterator[Batch]:
    """A test's batches, as many on each rank as on the first, which has most: those that are added hold nothing."""
    batches = share(loader.batches_per_epoch)
    yield from loader.epoch(0)
    for _ in range(loader.batches_per_epoch, batches):
        video = torch.zeros(1, *loader.dataset.shape, dtype=torch.uint8)
        yield Batch(video, torch.zeros(1, dtype=torch.int64), torch.full((1,), -1), torch.zeros(1))
