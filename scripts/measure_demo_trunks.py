"""Measures the quality of the demo's trunks: the error of a linear probe for the shape, on unseen stills.

Run: python scripts/measure_demo_trunks.py aim/weights/demo_trunks.json

The probe is multinomial logistic regression on the frozen class token after the trunk's last norm, 6 classes, fitted on
4000 stills and tested on 2000, each of its own scene; guessing is wrong in 83.3 %. The interval is Wilson's, 95 %, over
the test stills. Two minutes on one core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from pretrain_demo_trunk import BACKBONES, SIZE, STEPS, draw_stills, settings
from scipy.stats import binomtest
from torch import Tensor, nn

from aim.models.families import FAMILIES
from aim.models.trunk import load_trunk

TRAIN, TEST = (4000, 1), (2000, 2)  # stills and their seed; the trunks were trained on those of seed 0
DECAY = 1e-3  # of the probe's weights, beside the mean cross-entropy
TRUNKS = sorted(path.stem for path in BACKBONES.glob("demo*.yaml"))


def fresh(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Stills uint8 "b h w c", each of its own scene, and their shapes "b"."""
    rng = np.random.default_rng(seed)
    parts = [draw_stills(rng, 1) for _ in range(count)]
    return torch.cat([part.image for part in parts]), torch.cat([part.shape for part in parts])


@torch.no_grad()
def class_tokens(trunk: nn.Module, images: Tensor) -> Tensor:
    """uint8 "b h w c" -> float64 "b d"."""
    pixels = rearrange(images, "b h w c -> b c h w").float() / 127.5 - 1
    return torch.cat([trunk(part) for part in pixels.split(250)]).double()


def fit_probe(x: Tensor, y: Tensor) -> nn.Linear:
    """Logistic regression of the classes "b" on the features "b d", from zero to its one minimum."""
    probe = nn.Linear(x.shape[1], int(y.max()) + 1, dtype=x.dtype)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(x), y) + DECAY * probe.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return probe


def probe_error(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> tuple[float, float, float]:
    """The share of the test stills misclassified by a probe on features "b d", and its interval."""
    mean, scale = train[0].mean(0), train[0].std(0).clamp(min=1e-6)
    probe = fit_probe((train[0] - mean) / scale, train[1])
    wrong = (probe((test[0] - mean) / scale).argmax(1) != test[1]).sum().item()
    interval = binomtest(int(wrong), len(test[1])).proportion_ci(method="wilson")
    return wrong / len(test[1]), float(interval.low), float(interval.high)


def measure(name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """A trunk's entry, from stills and their shapes."""
    config = settings(name)
    trunk = load_trunk(config["name"], config["weights"], SIZE, config["options"], FAMILIES).module.eval()
    error, low, high = probe_error(*((class_tokens(trunk, images), shapes) for images, shapes in (train, test)))
    file = config["weights"].replace("aim:", "aim/")
    return {
        "parameters": sum(parameter.numel() for parameter in trunk.parameters()),
        "steps": STEPS,
        "probe_error": round(error, 4),
        "interval": [round(low, 4), round(high, 4)],
        "trained": f"python scripts/pretrain_demo_trunk.py {name} {file}",
        "measured": "python scripts/measure_demo_trunks.py aim/weights/demo_trunks.json",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    train, test = fresh(*TRAIN), fresh(*TEST)
    entries = {name: measure(name, train, test) for name in TRUNKS}
    entries = dict(sorted(entries.items(), key=lambda entry: entry[1]["parameters"]))
    args.out.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    for name, entry in entries.items():
        (low, high), error = entry["interval"], entry["probe_error"]
        print(f"{name}: {entry['parameters']:,} parameters, wrong in {error:.1%} ({low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
