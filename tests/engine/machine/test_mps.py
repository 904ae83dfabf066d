"""Apple's GPUs, without one: decisions by their name, and a step's operations in torch's table.

Not run on one: docs/running.md.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchgen
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from aim.data.loading.loader import Batch
from aim.engine.machine import distributed, feeding, hardware
from aim.engine.trained import exported
from tests.messages import refused
from tests.models.checks import toy_model
from tests.models.toys import FRAMES, SIZE


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose torch says that it has one, of macOS 14."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: (major, minor) <= (14, 0))


def test_it_is_asked_for_by_name_and_is_one_rank(mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "DRIVER", Path("/nowhere"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.resolve_device("auto") == "cpu"
    assert hardware.resolve_device("mps") == "mps"
    assert distributed.num_ranks("mps", None) == distributed.num_ranks("mps", 1) == 1
    with refused("device=mps", "gpus=1", "device=cpu"):
        distributed.num_ranks("mps", 2)
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    monkeypatch.setitem(os.environ, "RANK", "0")
    with refused("device=mps", "gpus=1", "device=cpu"):
        distributed.num_ranks("mps", None)


def test_without_one_the_way_out_is_said() -> None:
    with refused("device=mps", "device=auto"):
        distributed.num_ranks("mps", None)
    with refused("device=mps", "a.onnx", "best.safetensors"):
        exported.settled("a.onnx", "mps", "auto")


def test_it_computes_in_float32_unless_asked(mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.resolve_precision("auto", "mps") == "fp32"
    assert hardware.resolve_precision("bf16", "mps") == "bf16"
    with hardware.autocast(torch.device("mps"), "bf16"):
        assert torch.get_autocast_dtype("mps") == torch.bfloat16
        assert torch.is_autocast_enabled("mps")
    with hardware.autocast(torch.device("mps"), "fp32"):
        assert not torch.is_autocast_enabled("mps")
    with refused("precision=fp8", "precision=auto"):
        hardware.check_fp8("mps")
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: False)
    with refused("precision=bf16", "device=mps", "precision=fp32"):
        hardware.resolve_precision("bf16", "mps")


@cache
def known_there() -> dict[str, str]:
    """torch's own table of its operations, which each build has: the lines of each by its name."""
    text = (Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml").read_text(encoding="utf-8")
    return {block.partition("(")[0]: block for block in re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]}


def has_kernel(name: str, table: dict[str, str]) -> bool:
    """Whether an operation has code for MPS, or is made of others."""
    block = table[name]
    if found := re.search(r"structured_delegate: (\S+)", block):
        return has_kernel(found[1], table)
    return "dispatch:" not in block or bool(re.search(r"\b(MPS|Composite\w+)\b", block))


class Seen(TorchDispatchMode):
    """Notes the operations, and those with a result in float64, which it hasn't."""

    def __init__(self) -> None:
        super().__init__()
        self.names, self.double = set[str](), set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **kwargs or {})
        if func.namespace != "aten":  # the profiler's marks
            return found
        name = f"{func._schema.name.removeprefix('aten::')}.{func._overloadname}".removesuffix(".default")
        self.names.add(name)
        each = found if isinstance(found, tuple | list) else [found]
        if any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in each):
            self.double.add(name)
        return found


@pytest.mark.parametrize("trunk", ["clip_vit_b16", "dinov3_vit_s16", "swin_t", "vjepa21_b"])
def test_a_training_step_uses_only_operations_that_torch_has_there(trunk: str) -> None:
    model = toy_model("lora" if trunk in ("swin_t", "vjepa21_b") else "aim", trunk)
    hardware.suit(model, "fp32", "mps")
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(own)
    video = torch.zeros(2, FRAMES, 3, SIZE, SIZE, dtype=torch.uint8)
    with Seen() as seen:
        torch.nn.functional.cross_entropy(model(model.preprocess(video)), torch.tensor([0, 1])).backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimiser.step()
    table = known_there()
    assert len(seen.names) > 40
    assert not [name for name in sorted(seen.names) if not has_kernel(name, table)]
    assert not seen.double
    assert not [name for name in seen.names if "scaled_dot_product" in name]
    assert not has_kernel("_scaled_dot_product_flash_attention", table), "the check tells"


def test_a_batch_and_results_go_there_and_back() -> None:
    batch = Batch(torch.zeros(1, 1, 2, 3, 4, 4), torch.zeros(1), torch.zeros(1), torch.ones(1))
    (sent,) = feeding.on_device(iter([batch]), torch.device("meta"))  # as any device that is neither
    assert {each.device.type for each in vars(sent).values()} == {"meta"}
    with FakeTensorMode():
        (found,) = feeding.to_host(torch.ones(2, device="mps"))()
    assert found.device.type == "cpu"
