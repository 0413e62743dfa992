"""From published weight files to plain tensors, without ever running what a file says.

Each converter reads one file and returns float32 tensors under the names the course uses. Pickles are the
danger: loading one freely runs any code its author wished. So PyTorch files are read with
``weights_only=True``, and the two other kinds by an unpickler that knows a handful of harmless constructors
and refuses everything else.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

from nstlib.assets.weights import RestrictedUnpickler, read_pickle

Tensors = dict[str, torch.Tensor]

VGG16 = [f"conv{block}_{i}" for block, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, depth + 1)]
VGG19 = [f"conv{block}_{i}" for block, depth in enumerate((2, 2, 4, 4, 4), 1) for i in range(1, depth + 1)]
ALEXNET = [f"conv{i}" for i in range(1, 6)]


class _Module:
    """Stands in for a TorchScript module: a bag of attributes without behavior."""


class _TorchScript(RestrictedUnpickler):
    """Reads the tensors of a TorchScript archive and leaves its code alone."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        data = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        allowed = {
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch.jit._pickle.build_intlist": list,
            "torch.FloatStorage": torch.float32,
            "collections.OrderedDict": dict,
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
        tensors = walk(_TorchScript(archive).load(), "")
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _fields(data: bytes) -> dict[int, list[Any]]:
    """A protocol buffer's message: field number -> its values, whole numbers and bytes, in their order."""
    found: dict[int, list[Any]] = {}
    for field in UnknownFieldSet(Empty.FromString(data)):  # a message without fields of its own
        found.setdefault(field.field_number, []).append(field.data)
    return found


_ONNX_PARTS = ("weight", "bias", "running_mean", "running_var")


def onnx(path: Path) -> Tensors:
    """The float32 tensors of an ONNX graph, each as NODE.PART: ``Conv_0.weight``, ``Conv_0.bias`` ...

    Read as data, without the package ``onnx``: the numbers below are the fields of onnx.proto3. The file
    names most tensors by a running number; the node that takes a tensor tells what it is.
    """
    graph = _fields(_fields(path.read_bytes())[7][0])
    values: dict[str, torch.Tensor] = {}
    for tensor in map(_fields, graph[5]):
        flat = torch.frombuffer(bytearray(tensor[9][0]), dtype=torch.float32)
        values[tensor[8][0].decode()] = flat.reshape(tensor[1])
    found: Tensors = {}
    for node in map(_fields, graph[1]):
        taken = [values[name.decode()] for name in node[1] if name.decode() in values]
        found |= {f"{node[3][0].decode()}.{part}": one for part, one in zip(_ONNX_PARTS, taken, strict=False)}
    return found


def openvino(path: Path) -> Tensors:
    """The float32 constants of an OpenVINO network by the names of their takers (``MatMul_8`` ...).

    Such a network is two files: ``path`` has the bytes of all constants, one after the other; the graph, an
    XML file beside it, has their places, shapes and takers.
    """
    root, data = ElementTree.parse(path.with_suffix(".xml")).getroot(), path.read_bytes()
    layers = {layer.get("id"): layer for layer in root.iter("layer")}
    found: Tensors = {}
    for edge in root.iter("edge"):
        layer, taker = layers[edge.get("from-layer")], layers[edge.get("to-layer")].attrib["name"]
        said = layer.find("data")
        if layer.get("type") != "Const" or said is None or said.get("element_type") != "f32":
            continue
        shape = [int(length) for length in said.attrib["shape"].split(",") if length]
        start, size = int(said.attrib["offset"]), int(said.attrib["size"])
        flat = torch.frombuffer(bytearray(data[start : start + size]), dtype=torch.float32)
        found[taker] = flat.reshape(shape)
    return found


def state_dict(path: Path) -> Tensors:
    """A published PyTorch state dict, its keys unchanged."""
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def sequential(path: Path, names: list[str], prefix: str = "") -> Tensors:
    """The convolutions of an ``nn.Sequential`` (keys ``PREFIX NUMBER.weight``) under ``names``, in order."""
    state = state_dict(path)
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.weight")
    numbers = sorted(int(match[1]) for match in map(pattern.fullmatch, state) if match)
    pairs = zip(names, numbers, strict=True)
    return {
        f"{name}.{part}": state[f"{prefix}{n}.{part}"] for name, n in pairs for part in ("weight", "bias")
    }


def _flax_conv(layer: Mapping[str, np.ndarray]) -> Tensors:
    """Flax keeps kernels as (height, width, in, out); PyTorch wants (out, in, height, width)."""
    tensors = {"weight": torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1))}
    return tensors | ({"bias": torch.from_numpy(layer["bias"])} if "bias" in layer else {})


def flax_convs(path: Path, network: str, names: list[str]) -> Tensors:
    """The convolutions of one network in a Flax checkpoint under ``names``, in order."""
    layers = read_pickle(path)[network]
    numbers = sorted(int(key.removeprefix("Conv_")) for key in layers)
    found = {name: _flax_conv(layers[f"Conv_{n}"]) for name, n in zip(names, numbers, strict=True)}
    return {f"{name}.{part}": tensor for name, parts in found.items() for part, tensor in parts.items()}


def lpips_heads(path: Path) -> Tensors:
    """The five linear heads of LPIPS, keyed as in the ``lpips`` package (``lin0.model.1.weight`` ...)."""
    layers = read_pickle(path)
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
    "onnx": onnx,
    "openvino": openvino,
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
