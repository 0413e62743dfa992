"""The registry the course ships, and the converters: names, digests, and what is refused."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Malicious

from nstlib.assets import convert, registry
from nstlib.assets.weights import read_pickle

ALL = registry.assets()


# --- the registry


@pytest.mark.parametrize("asset", ALL.values(), ids=list(ALL))
def test_every_entry_is_complete(asset):
    assert all((asset.title, asset.purpose, asset.licence, asset.bytes, asset.sources))
    for source in asset.sources:
        assert bool(source.convert) == asset.converted
        assert not source.convert or source.convert in convert.CONVERTERS
        assert source.bytes > 0
        assert bool(source.member) == (source.artifact is not None)
        assert bool(source.url) == (source.artifact is None)
        assert re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", source.sha256)  # torchvision states 8 digits
        assert re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", (source.artifact or source).sha256)
    if asset.converted and asset.name != "vgg19_torchvision":  # its file can be had from torchvision alone
        assert re.fullmatch("[0-9a-f]{64}", asset.tensors_sha256)
    assert "non-commercial" not in asset.licence.lower() or asset.non_commercial


def test_cache_names_do_not_collide():
    files = [(asset.file, asset.tensors_sha256 or asset.sha256) for asset in ALL.values()]
    assert len(set(files)) == len(files)


def test_torchvisions_addresses_are_its_own():
    from torchvision.models import AlexNet_Weights, VGG16_Weights, VGG19_Weights

    sources = {source.url: source.sha256 for asset in ALL.values() for source in asset.sources}
    for weights in (VGG16_Weights, VGG19_Weights, AlexNet_Weights):
        url = weights.IMAGENET1K_V1.url
        assert sources[url].startswith(url.removesuffix(".pth").rpartition("-")[2])


# --- pickles


@pytest.mark.parametrize("how", ["flax_vgg16", "lpips_heads", "state_dict", "torchscript_fid"])
@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"VGG16_0": {"Conv_0": Malicious()}}),
        b"cos\nsystem\n(S'true'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
    ],
    ids=["nested", "os.system", "numpy.load"],
)
def test_a_malicious_pickle_is_refused(tmp_path, monkeypatch, how, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil"
    if how == "state_dict":
        torch.save({"0.weight": Malicious()}, path)
    elif how == "torchscript_fid":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/data.pkl", content)
    else:
        path.write_bytes(content)
    with pytest.raises(pickle.UnpicklingError):
        convert.convert(how, path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_of_numpy_1_and_2_are_read(tmp_path, module):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = pickle.dumps({"a": array}, protocol=3)
    written = array.__reduce__()[0].__module__.encode()
    path = tmp_path / "array.ckpt"
    path.write_bytes(data.replace(b"c" + written + b"\n", b"c" + module.encode() + b"\n"))
    assert module.encode() in path.read_bytes()
    np.testing.assert_array_equal(read_pickle(path)["a"], array)


# --- converters


def flax_checkpoint(path: Path, network: str, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kernels = {f"Conv_{i}": rng.normal(size=(3, 3, 2, 4)).astype("float32") for i in range(count)}
    convs = {name: {"kernel": kernel, "bias": np.zeros(4, "float32")} for name, kernel in kernels.items()}
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.full((1, 1, 8, 1), i, "float32")}} for i in range(5)
    }
    path.write_bytes(pickle.dumps({network: convs} | heads, protocol=3))
    return kernels


def test_flax_kernels_are_turned_and_named(tmp_path):
    kernels = flax_checkpoint(tmp_path / "vgg16.ckpt", "VGG16_0", 13)
    tensors = convert.convert("flax_vgg16", tmp_path / "vgg16.ckpt")
    assert list(tensors)[:3] == ["conv1_1.weight", "conv1_1.bias", "conv1_2.weight"]
    assert len(tensors) == 26
    # Conv_10 is the eleventh convolution, not the third: the numbers are sorted as numbers.
    np.testing.assert_array_equal(tensors["conv5_1.weight"].numpy(), kernels["Conv_10"].transpose(3, 2, 0, 1))
    heads = convert.convert("lpips_heads", tmp_path / "vgg16.ckpt")
    assert {key: tuple(head.shape) for key, head in heads.items()} == {
        f"lin{i}.model.1.weight": (1, 8, 1, 1) for i in range(5)
    }


@pytest.mark.parametrize(
    ("how", "prefix", "first", "count"),
    [
        ("sequential_vgg19", "", "conv0", 17),
        ("torchvision_vgg19", "features.", "conv1_1", 16),
        ("torchvision_vgg16", "features.", "conv1_1", 13),
        ("torchvision_alexnet", "features.", "conv1", 5),
    ],
)
def test_convolutions_of_a_sequential_are_named_in_order(tmp_path, how, prefix, first, count):
    state = {}
    for i in range(count):
        state[f"{prefix}{3 * i}.weight"] = torch.full((2, 2, 3, 3), float(i))
        state[f"{prefix}{3 * i}.bias"] = torch.full((2,), float(i))
    if prefix:
        state["classifier.0.weight"] = torch.zeros(2)  # torchvision's classifier is left out
    torch.save(state, tmp_path / "net.pth")
    tensors = convert.convert(how, tmp_path / "net.pth")
    assert next(iter(tensors)) == f"{first}.weight"
    assert [tensor[0].flatten()[0].item() for tensor in tensors.values()] == [
        i // 2 for i in range(2 * count)
    ]


# --- the real networks
