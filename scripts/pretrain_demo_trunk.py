"""Trains a trunk of the demo: a small ViT that sees still images of moving shapes, one at a time, and never a motion.

Run: python scripts/pretrain_demo_trunk.py demo_xs aim/weights/demo_xs_trunk.safetensors
Sizes: those of configs/backbone/demo*.yaml; the file of `demo` is demo_trunk.safetensors.

Targets from the class token after each block: the shape (6), its colour (7), its place, size, and the offset of its eye
from its middle; from each patch token: the parts of the patch that the shape and its eye cover.
Training: 3600 steps of 64 images, the same ones for every size. Quality, on 2000 fresh images:
    untrained demo: shape 16.4 %, colour 10.2 %; mean errors: place 15.78 px, radius 34.0 %, eye 4.7 px, of 64
    demo_xs: shape 18.1 %, colour 36.2 %; place 12.77 px, radius 12.9 %, eye 4.06 px
    demo_s: shape 36.4 %, colour 94.8 %; place 2.21 px, radius 8.1 %, eye 2.20 px
    demo: shape 76.2 %, colour 98.8 %; place 1.31 px, radius 5.5 %, eye 1.16 px
        (11 minutes on 2 busy threads of a Xeon at 2.8 GHz, no GPU)

The embeddings are stored 20 times smaller than trained. The norm before the blocks undoes that: the image model is the
same (but for the norm's epsilon, which moves class tokens by 1 to 3 % of their deviation). A temporal embedding, which
starts from zero, then counts 20 times more: order is learnt in fewer steps.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
import torch.nn.functional as F
import yaml
from einops import rearrange, reduce
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from aim.data.demo.shape_drawing import COLOURS, EYE, SHAPES, Poses, cover, draw_scene, render

SIZE, PATCH = 64, 16
CELLS = 4  # the coverage of a patch is predicted in 4 x 4 parts
SHRINK = 20
STEPS = 3600
BACKBONES = Path(__file__).parents[1] / "configs" / "backbone"
HALF = 2_000_000  # a trunk of more parameters is stored in float16, which loading undoes


class Stills(NamedTuple):
    """Images with their targets."""

    image: Tensor  # uint8 "b h w c"
    shape: Tensor  # int64 "b"
    colour: Tensor  # int64 "b"
    pose: Tensor  # float32 "b 5": x, y, log radius, and the eye's x and y from the middle, all of about unit size
    mask: Tensor  # float32 "b 2 h w": the body and the eye


def settings(name: str) -> dict[str, Any]:
    """The settings of configs/backbone/NAME.yaml."""
    return yaml.safe_load((BACKBONES / f"{name}.yaml").read_text(encoding="utf-8"))


def draw_stills(rng: np.random.Generator, count: int) -> Stills:
    """Draw `count` poses of one scene."""
    scene = draw_scene(rng, SIZE)
    x, y = rng.uniform(0.1, 0.9, (2, count))
    radius = 0.1 * 3.5 ** rng.uniform(size=count)
    angle = rng.uniform(0, 2 * math.pi, count)
    poses = Poses(*(value.astype(np.float32) for value in (x, y, radius, angle)))
    body = np.maximum.reduce([cover(polygon, poses, SIZE) for polygon in SHAPES[scene.shape]])
    eye_x, eye_y = 0.5 * radius * np.cos(angle), 0.5 * radius * np.sin(angle)
    pose = np.stack([4 * (x - 0.5), 4 * (y - 0.5), 2 * np.log(radius / 0.19), 16 * eye_x, 16 * eye_y], axis=1)
    return Stills(
        torch.from_numpy(render(scene, poses)),
        torch.full((count,), list(SHAPES).index(scene.shape)),
        torch.full((count,), list(COLOURS).index(scene.colour)),
        torch.from_numpy(pose.astype(np.float32)),
        torch.from_numpy(np.stack([body, cover(EYE, poses, SIZE)], axis=1)),
    )


class StillBatches(IterableDataset[Stills]):
    """Endless batches of 4 poses a scene."""

    def __init__(self, seed: int, batch_size: int) -> None:
        self.seed, self.batch_size = seed, batch_size

    def __iter__(self) -> Iterator[Stills]:
        rng = np.random.default_rng(self.seed)
        while True:
            parts = [draw_stills(rng, 4) for _ in range(self.batch_size // 4)]
            yield Stills(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def build_trunk(name: str) -> VisionTransformer:
    """The ViT of configs/backbone/NAME.yaml; its position embedding starts as waves over the grid."""
    config = settings(name)
    trunk = timm.create_model(config["name"], num_classes=0, **config["options"])
    side = SIZE // PATCH
    at = (torch.arange(side) + 0.5) / side
    waves = at[:, None] * torch.pi * 2 ** torch.linspace(-1, math.log2(side), trunk.embed_dim // 4)
    waves = torch.cat([waves.sin(), waves.cos()], dim=1)
    rows, columns = waves[:, None].expand(side, side, -1), waves[None].expand(side, side, -1)
    with torch.no_grad():
        trunk.pos_embed[0, 1:] = 0.3 * rearrange(torch.cat([rows, columns], dim=2), "h w d -> (h w) d")
    return trunk


class Heads(nn.Module):
    """Predictions from the tokens after one block; the last block's class token passes the trunk's own norm."""

    def __init__(self, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.norm, self.patch_norm = norm, nn.LayerNorm(width)
        self.shape, self.colour = nn.Linear(width, len(SHAPES)), nn.Linear(width, len(COLOURS))
        self.pose, self.mask = nn.Linear(width, 5), nn.Linear(width, 2 * CELLS**2)


def tokens(trunk: VisionTransformer, image: Tensor) -> list[tuple[Tensor, Tensor]]:
    """uint8 "b h w c" -> per block, patch tokens "b n d" and class token "b 1 d"."""
    pixels = rearrange(image, "b h w c -> b c h w").float() / 127.5 - 1
    return trunk.forward_intermediates(
        pixels, return_prefix_tokens=True, norm=False, output_fmt="NLC", intermediates_only=True
    )


def loss_of(trunk: VisionTransformer, heads: nn.ModuleList, stills: Stills) -> Tensor:
    cell = PATCH // CELLS
    parts = reduce(stills.mask, "b m (h i) (w j) -> b m h w", "mean", i=cell, j=cell)
    parts = rearrange(parts, "b m (h i) (w j) -> b (h w) (m i j)", i=CELLS, j=CELLS)
    total = torch.zeros(())
    for (patches, prefix), head in zip(tokens(trunk, stills.image), heads, strict=True):
        x = head.norm(prefix[:, 0])
        of_class = (
            F.cross_entropy(head.shape(x), stills.shape)
            + 0.3 * F.cross_entropy(head.colour(x), stills.colour)
            + 4 * F.smooth_l1_loss(head.pose(x), stills.pose, beta=0.1)
        )
        of_patches = F.binary_cross_entropy_with_logits(head.mask(head.patch_norm(patches)), parts)
        total = total + (1.0 if head is heads[-1] else 0.5) * of_class + 5 * of_patches
    return total


@torch.no_grad()
def measure(trunk: VisionTransformer, heads: nn.ModuleList, stills: Stills) -> str:
    """The accuracy of the last block's heads."""
    head = heads[-1]
    x = head.norm(tokens(trunk, stills.image)[-1][1][:, 0])
    shape = (head.shape(x).argmax(1) == stills.shape).float().mean().item()
    colour = (head.colour(x).argmax(1) == stills.colour).float().mean().item()
    error = (head.pose(x) - stills.pose).abs().mean(0) * torch.tensor([16, 16, 50, 4, 4])
    place, size, eye = error[:2].mean().item(), error[2].item(), error[3:].mean().item()
    errors = f"mean errors: place {place:.2f} px, radius {size:.1f} %, eye {eye:.2f} px"
    return f"shape {shape:.1%}, colour {colour:.1%}; {errors}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=[path.stem for path in sorted(BACKBONES.glob("demo*.yaml"))])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    # The other thread draws; two that compute and one that draws would wait for each other.
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    trunk = build_trunk(args.size)
    width, depth = trunk.embed_dim, len(trunk.blocks)
    heads = nn.ModuleList(Heads(nn.LayerNorm(width) if i < depth - 1 else trunk.norm, width) for i in range(depth))
    parameters = list({id(p): p for p in (*trunk.parameters(), *heads.parameters())}.values())
    lr = 2e-3
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05, betas=(0.9, 0.98))
    batches = DataLoader(StillBatches(args.seed, 64), batch_size=None, num_workers=1, prefetch_factor=8)
    start = time.perf_counter()
    for step, stills in zip(range(args.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / args.steps)) / 2
        loss = loss_of(trunk, heads, stills)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0 or step == args.steps - 1:
            print(f"step {step}, {time.perf_counter() - start:.0f} s: loss {loss.item():.3f}", flush=True)
    print(measure(trunk, heads, next(iter(StillBatches(args.seed + 1, 2000)))))

    with torch.no_grad():
        for tensor in (trunk.patch_embed.proj.weight, trunk.patch_embed.proj.bias, trunk.pos_embed, trunk.cls_token):
            if tensor is not None:  # timm leaves the bias out where a norm follows
                tensor /= SHRINK
    dtype = torch.float16 if sum(p.numel() for p in trunk.parameters()) > HALF else torch.float32
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in trunk.state_dict().items()}, args.out)
    args.out.chmod(0o644)  # safetensors leaves it to the owner alone


if __name__ == "__main__":
    main()
