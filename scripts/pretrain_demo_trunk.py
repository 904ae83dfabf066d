import argparse, os
import json, math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from aim.data.moving_shapes import COLOURS, EYE, SHAPES, Poses, cover, draw_scene, render

SIZE = 64


def make(width, depth, heads, patch):
    return timm.create_model(f"vit_tiny_patch16_224", patch_size=patch, img_size=SIZE, embed_dim=width, depth=depth, num_heads=heads, num_classes=0)


def draw_stills(rng, size, count=4):
    scene = draw_scene(rng, size)
    x, y = rng.uniform(0.1, 0.9, (2, count))
    radius = 0.1 * 3.5 ** rng.uniform(size=count)
    angle = rng.uniform(0, 2 * np.pi, count)
    poses = Poses(*(v.astype(np.float32) for v in (x, y, radius, angle)))
    images = render(scene, poses)
    body = np.maximum.reduce([cover(polygon, poses, size) for polygon in SHAPES[scene.shape]])
    mask = np.stack([body, cover(EYE, poses, size)], 1)
    numbers = np.stack([4 * (x - 0.5), 4 * (y - 0.5), 2 * np.log(radius / 0.19), 8 * radius * np.cos(angle), 8 * radius * np.sin(angle)], 1)
    return images, [list(SHAPES).index(scene.shape)] * count, [list(COLOURS).index(scene.colour)] * count, numbers.astype(np.float32), mask


class Stills(IterableDataset):
    def __init__(self, seed, batch): self.seed, self.batch = seed, batch
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        while True:
            images, shape, colour, numbers, mask = (np.concatenate(v) for v in zip(*(draw_stills(rng, SIZE) for _ in range(self.batch // 4)), strict=True))
            yield tuple(torch.from_numpy(v) for v in (images, shape, colour, numbers, mask))


def pre(images):
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


class Heads(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.mnorm, self.mask = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Linear(dim, 32)
        self.shape, self.colour, self.numbers = nn.Linear(dim, len(SHAPES)), nn.Linear(dim, len(COLOURS)), nn.Linear(dim, 5)
    def forward(self, x):
        x = self.norm(x)
        return self.shape(x), self.colour(x), self.numbers(x)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", default="/tmp/demo/trunk.safetensors")
    p.add_argument("--seconds", type=float, default=300)
    p.add_argument("--width", type=int, default=128)
    p.add_argument("--depth", type=int, default=4)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--patch", type=int, default=16)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--dense", type=float, default=5)
    p.add_argument("--sincos", type=float, default=0.3)
    p.add_argument("--b2", type=float, default=0.98)
    p.add_argument("--name", default="vit_tiny_patch16_224")
    a = p.parse_args()
    torch.manual_seed(0)
    trunk = make(a.width, a.depth, a.heads, a.patch)
    if a.sincos:
        with torch.no_grad():
            n = SIZE // a.patch; k = a.width // 4
            grid = (torch.arange(n) + 0.5) / n
            freq = torch.pi * 2 ** torch.linspace(-1, math.log2(n) , k)
            f = torch.cat([torch.sin(grid[:, None] * freq), torch.cos(grid[:, None] * freq)], 1)
            pos = torch.cat([f[:, None].expand(n, n, -1), f[None].expand(n, n, -1)], 2).reshape(1, n * n, -1)
            trunk.pos_embed[:, 1:] = a.sincos * pos
    heads = nn.ModuleList(Heads(a.width) for _ in range(a.depth))
    params = list(trunk.parameters()) + list(heads.parameters())
    opt = torch.optim.AdamW(params, lr=a.lr, weight_decay=0.05, betas=(0.9, a.b2))
    data = iter(DataLoader(Stills(0, a.batch), batch_size=None, num_workers=1, prefetch_factor=8))
    start = time.time(); step = 0; seen = 0
    def feats(x):
        outs = trunk.forward_intermediates(x, return_prefix_tokens=True, norm=False, output_fmt="NLC", intermediates_only=True)
        return [(o[1][:, 0], o[0]) for o in outs]
    def losses(images, shape, colour, numbers, mask):
        xs = feats(pre(images))
        loss = 0
        q = a.patch // 4
        mk = mask.reshape(len(mask), 2, SIZE//a.patch, 4, q, SIZE//a.patch, 4, q).mean((4, 7)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        for i, ((x, tok), h) in enumerate(zip(xs, heads)):
            if i == len(xs) - 1: h.norm = trunk.norm
            s, c, n = h(x)
            w = 1.0 if i == len(xs) - 1 else 0.5
            loss = loss + a.dense * F.binary_cross_entropy_with_logits(h.mask(h.mnorm(tok)), mk)
            loss = loss + w * (F.cross_entropy(s, shape) + 0.3 * F.cross_entropy(c, colour) + 4 * F.smooth_l1_loss(n, numbers, beta=0.1))
        return loss, s, c, n
    while (share := (time.time() - start) / a.seconds) < 1:
        for g in opt.param_groups: g["lr"] = a.lr * min(1, (step + 1) / 100) * max(0.01, 0.5 * (1 + np.cos(np.pi * share)))
        batch = next(data)
        loss, s, c, n = losses(*batch)
        opt.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(params, 1.0); opt.step()
        step += 1; seen += a.batch
        if step % 100 == 0:
            err = (n - batch[3]).abs().mean(0).tolist()
            print(f"{step} {time.time()-start:.0f}s loss {loss.item():.3f} shape {(s.argmax(1)==batch[1]).float().mean():.3f} colour {(c.argmax(1)==batch[2]).float().mean():.3f} err {[round(e,3) for e in err]} {seen/(time.time()-start):.0f}/s", flush=True)
    save_file({k: v.contiguous() for k, v in trunk.state_dict().items()}, a.out)
    trunk.eval()
    with torch.no_grad():
        for i, x in enumerate([0]):
            b = next(iter(DataLoader(Stills(99, 1024), batch_size=None)))
            xs = feats(pre(b[0]))
            for (x, _), h in zip(xs, heads):
                s, c, n = h(x); print(f"shape {(s.argmax(1)==b[1]).float().mean():.3f} colour {(c.argmax(1)==b[2]).float().mean():.3f} err {(n-b[3]).abs().mean(0)}")

main()
