"""From published weight files to plain tensors, without ever running what a file says.

Each converter reads one file and returns float32 tensors under the names the course uses. Pickles are the
danger: loading one freely runs any code its author wished. So PyTorch files are read with
``weights_only=True``, and the two other kinds by an unpickler that knows a handful of harmless constructors
and refuses everything else.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]

VGG16 = [f"conv{block}_{i}" for block, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, depth + 1)]
VGG19 = [f"conv{block}_{i}" for block, depth in enumerate((2, 2, 4, 4, 4), 1) for i in range(1, depth + 1)]
ALEXNET = [f"conv{i}" for i in range(1, 6)]


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the given names only."""

    def __init__(self, file: IO[bytes], allowed: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(
                f"the file asks for {module}.{name}, which no file of weights needs, and was refused"
            )
        return self._allowed[module, name]


# numpy 2 moved the constructor from numpy.core to numpy._core; an array's own recipe names the right one.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_NUMPY = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def read_numpy_pickle(path: Path) -> Any:
    """Nested dictionaries of numpy arrays from a pickle, and from nothing else.

    Raises:
        pickle.UnpicklingError: the pickle asks for anything but numpy's array constructors.
    """
    with path.open("rb") as file:
        return _Unpickler(file, _NUMPY).load()


class _Module:
    """Stands in for a TorchScript module: a bag of attributes without behavior."""


class _TorchScriptUnpickler(_Unpickler):
    """Reads the tensors of a TorchScript archive and leaves its code alone."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        data = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        allowed = {
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch", "FloatStorage"): torch.float32,
            ("collections", "OrderedDict"): dict,
        }
        super().__init__(archive.open(data), allowed)
        self._archive, self._folder = archive, data.removesuffix("data.pkl")

    def find_class(self, module: str, name: str) -> Any:
        return _Module if module.startswith("__torch__.") else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, dtype, key, _, _ = pid
        return torch.frombuffer(bytearray(self._archive.read(f"{self._folder}data/{key}")), dtype=dtype)

    @staticmethod
    def _tensor(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
        return storage.as_strided(tuple(size), tuple(stride), offset).clone()


def torchscript(path: Path, prefix: str = "") -> Tensors:
    """The tensors of a TorchScript archive whose names start with ``prefix``, which is cut off.

    ``torch.jit.load`` is deprecated since torch 2.15 and would run the archive's code; this reads data only.
    """

    def walk(module: _Module, name: str) -> Tensors:
        found: Tensors = {}
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                found[name + key] = value
            elif isinstance(value, _Module):
                found |= walk(value, f"{name}{key}.")
        return found

    with zipfile.ZipFile(path) as archive:
        tensors = walk(_TorchScriptUnpickler(archive).load(), "")
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def state_dict(path: Path) -> Tensors:
    """A published PyTorch state dict, its keys unchanged."""
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def sequential(path: Path, names: list[str], prefix: str = "") -> Tensors:
    """The convolutions of an ``nn.Sequential`` (keys ``PREFIX NUMBER.weight``) under ``names``, in order."""
    state = state_dict(path)
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.weight")
    numbers = sorted(int(match[1]) for match in map(pattern.fullmatch, state) if match)
    parts = ("weight", "bias")
    return {
        f"{name}.{part}": state[f"{prefix}{number}.{part}"]
        for name, number in zip(names, numbers, strict=True)
        for part in parts
    }


def _flax_conv(layer: Mapping[str, np.ndarray]) -> Tensors:
    """Flax keeps kernels as (height, width, in, out); PyTorch wants (out, in, height, width)."""
    tensors = {"weight": torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1))}
    return tensors | ({"bias": torch.from_numpy(layer["bias"])} if "bias" in layer else {})


def flax_convs(path: Path, network: str, names: list[str]) -> Tensors:
    """The convolutions of one network in a Flax checkpoint under ``names``, in order."""
    layers = read_numpy_pickle(path)[network]
    numbers = sorted(int(key.removeprefix("Conv_")) for key in layers)
    return {
        f"{name}.{part}": tensor
        for name, number in zip(names, numbers, strict=True)
        for part, tensor in _flax_conv(layers[f"Conv_{number}"]).items()
    }


def lpips_heads(path: Path) -> Tensors:
    """The five linear heads of LPIPS, keyed as in the ``lpips`` package (``lin0.model.1.weight`` ...)."""
    layers = read_numpy_pickle(path)
    return {
        f"lin{i}.model.1.weight": _flax_conv(layers[f"NetLinLayer_{i}"]["Conv_0"])["weight"] for i in range(5)
    }


CONVERTERS: dict[str, Callable[[Path], Tensors]] = {
    "flax_vgg16": partial(flax_convs, network="VGG16_0", names=VGG16),
    "flax_alexnet": partial(flax_convs, network="AlexNet_0", names=ALEXNET),
    "lpips_heads": lpips_heads,
    "sequential_vgg19": partial(sequential, names=["conv0", *VGG19]),
    "torchvision_vgg16": partial(sequential, names=VGG16, prefix="features."),
    "torchvision_vgg19": partial(sequential, names=VGG19, prefix="features."),
    "torchvision_alexnet": partial(sequential, names=ALEXNET, prefix="features."),
    "state_dict": state_dict,
    "torchscript_fid": partial(torchscript, prefix="net.layers."),
}


def convert(how: str, path: Path) -> Tensors:
    """Read ``path`` by the converter ``how``; tensors come out contiguous, all but integers float32."""
    return {
        key: (tensor.float() if tensor.is_floating_point() else tensor).detach().contiguous()
        for key, tensor in CONVERTERS[how](path).items()
    }


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """One digest for a set of tensors, whatever file they came from: names, dtypes, shapes, bytes."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        array = tensors[key].numpy()
        digest.update(f"{key}|{array.dtype.name}|{'x'.join(map(str, array.shape))}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
