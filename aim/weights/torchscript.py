"""The tensors of a TorchScript archive, read without running code: OpenAI's format for CLIP."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Fields:
    """Stands for any object of the archive: its fields, and no behaviour."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Reader(pickle.Unpickler):
    """Unpickles tensors and fields; any other name in the file is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (Fields,), {})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch.jit._pickle":  # typed lists and the like: (value, type) -> value
            return lambda value, *_: value
        raise pickle.UnpicklingError(f"it names {module}.{name}, which isn't run")

    def persistent_load(self, pid: Any) -> Tensor:
        _, kind, key, _, size = pid
        name = kind.removesuffix("Storage").lower()
        dtype = getattr(torch, {"byte": "uint8", "char": "int8"}.get(name, name))
        data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        return torch.frombuffer(data, dtype=dtype, count=size) if size else torch.empty(0, dtype=dtype)


def rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def is_torchscript(path: Path) -> bool:
    """Whether the file is a zip archive with code, as torch.jit.save writes it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Names and tensors of all parameters and buffers, like the module's own `state_dict`."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/", 1)[0]
        return dict(tensors(Reader(archive, root).load(), ""))


def tensors(fields: Fields, prefix: str) -> list[tuple[str, Tensor]]:
    found = []
    for name, value in vars(fields).items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        elif isinstance(value, Fields):
            found += tensors(value, f"{prefix}{name}.")
    return found
