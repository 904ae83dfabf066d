"""A run small enough for tests: two dozen moving shapes, a random trunk of two blocks, a few steps."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aim import config, train

TOY = [
    "+experiment=demo",
    "reader=pyav",
    "precision=fp32",
    "data.lists.num_train=24",
    "data.lists.num_val=16",
    "data.lists.size=32",
    "data.lists.num_frames=9",
    "data.workers=0",
    "clip.num_frames=4",
    "clip.stride_frames=1",
    "clip.size=32",
    "backbone.weights=random",
    "backbone.name=vit_tiny_patch16_224",
    "backbone.options={img_size: 32, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}",
    "train.epochs=2",
    "train.batch_size=8",
    "train.eval_every=1",
    "train.log_every=1",
    "train.save_minutes=0",
]


def run(run_dir: Path, *overrides: str) -> dict[str, Any]:
    """Train the toy in this process; what it leaves in results.json."""
    train.main(config.compose([*TOY, f"run_dir={run_dir}", *overrides]))
    found: dict[str, Any] = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    return found


def journal(run_dir: Path) -> list[dict[str, float]]:
    """The lines of log.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in ("clips_per_second", "waiting")} for line in lines]


@contextmanager
def exits(code: int) -> Iterator[None]:
    """The block leaves the process with this exit code."""
    with pytest.raises(SystemExit) as caught:
        yield
    assert caught.value.code == code
