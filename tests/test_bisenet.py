"""The face parser's network: the published layout, the published network's numbers, any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nstlib.errors import SettingError
from nstlib.nets.bisenet import LABELS, BiSeNet, from_official

PARITY = Path(__file__).resolve().parents[2] / "shared/parity/bisenet_faceparse19_keys.txt"


def published_layout() -> dict[str, tuple[int, ...]]:
    """Name -> shape of the published state dict, in its order; written down a second time, on purpose."""
    layout: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            layout[f"{name}.{part}"] = (channels,)
        layout[f"{name}.num_batches_tracked"] = ()

    def block(name: str, into: int, out: int, kernel: int = 3) -> None:
        layout[f"{name}.conv.weight"] = (out, into, kernel, kernel)
        norm(f"{name}.bn", out)

    layout["cp.resnet.conv1.weight"] = (64, 3, 7, 7)
    norm("cp.resnet.bn1", 64)
    into = 64
    for stage, out in enumerate((64, 128, 256, 512), 1):
        for index in (0, 1):
            name = f"cp.resnet.layer{stage}.{index}"
            layout[f"{name}.conv1.weight"] = (out, into if index == 0 else out, 3, 3)
            norm(f"{name}.bn1", out)
            layout[f"{name}.conv2.weight"] = (out, out, 3, 3)
            norm(f"{name}.bn2", out)
            if index == 0 and into != out:
                layout[f"{name}.downsample.0.weight"] = (out, into, 1, 1)
                norm(f"{name}.downsample.1", out)
        into = out
    for size, channels in ((16, 256), (32, 512)):
        block(f"cp.arm{size}.conv", channels, 128)
        layout[f"cp.arm{size}.conv_atten.weight"] = (128, 128, 1, 1)
        norm(f"cp.arm{size}.bn_atten", 128)
    block("cp.conv_head32", 128, 128)
    block("cp.conv_head16", 128, 128)
    block("cp.conv_avg", 512, 128, 1)
    block("ffm.convblk", 256, 256, 1)
    layout["ffm.conv1.weight"] = (64, 256, 1, 1)
    layout["ffm.conv2.weight"] = (256, 64, 1, 1)
    for name, into, middle in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        block(f"{name}.conv", into, middle)
        layout[f"{name}.conv_out.weight"] = (19, middle, 1, 1)
    return layout


def formula_weights() -> dict[str, Tensor]:
    """Weights out of whole-number arithmetic: the same on every machine."""
    tensors = {}
    for number, (name, shape) in enumerate(published_layout().items()):
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
            continue
        values = ((torch.arange(math.prod(shape)) + number) * 2654435761 % 2**32).double() / 2**31 - 1
        if len(shape) == 4:
            values = values * math.sqrt(4 / math.prod(shape[1:]))
        elif name.endswith((".weight", "running_var")):
            values = 1 + 0.3 * values
        else:
            values = 0.2 * values
        tensors[name] = values.reshape(shape).float()
    return tensors


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return formula_weights()


@pytest.fixture(scope="module")
def net(weights) -> BiSeNet:
    return from_official(weights)


def waves() -> Tensor:
    y, x = torch.arange(64.0)[:, None], torch.arange(96.0)[None]
    return torch.stack(
        [torch.sin(0.11 * y + 0.05 * x), torch.cos(0.07 * x - 0.02 * y), torch.sin(0.003 * x * y)]
    )[None]


# --------------------------------------------------------------------------------------------- the layout


def test_the_state_dict_has_the_published_names_and_shapes():
    state = BiSeNet().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == published_layout()
    assert len(state) == 191
    assert sum(tensor.numel() for tensor in state.values()) == 13_313_119


@pytest.mark.skipif(not PARITY.exists(), reason="the published layout is not in ../shared")
def test_the_layout_is_that_of_the_published_file():
    lines = [line.split("\t") for line in PARITY.read_text().splitlines() if not line.startswith("#")]
    assert {name: shape for name, shape, _ in lines} == {
        name: str(shape) for name, shape in published_layout().items()
    }


def test_published_weights_are_taken_as_they_are(net, weights):
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in weights.items())
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_another_number_of_classes_is_read_from_the_weights(weights):
    heads = {name: t[:11] for name, t in weights.items() if name.endswith("conv_out.weight")}
    assert from_official(weights | heads)(waves())[0].shape == (1, 11, 64, 96)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("cp.arm16.bn_atten.bias"), "they lack 'cp.arm16.bn_atten.bias' .1 such, of 191"),
        (lambda w: w.pop("conv_out.conv_out.weight"), "they lack 'conv_out.conv_out.weight'"),
        (lambda w: w.update({"sp.conv1.weight": torch.ones(1)}), "beyond.*'sp.conv1.weight'"),
        (
            lambda w: w.update({"ffm.conv1.weight": torch.ones(64, 256)}),
            "another shape of 'ffm.conv1.weight'",
        ),
        (lambda w: w.clear(), "they lack 'cp.resnet.conv1.weight' .191 such, of 191"),
    ],
    ids=["missing", "head missing", "left over", "shape", "empty"],
)
def test_other_weights_are_refused_in_a_sentence(weights, change, message):
    changed = dict(weights)
    change(changed)
    with pytest.raises(SettingError, match=message):
        from_official(changed)


# --------------------------------------------------------------------------------------------- the numbers


def test_the_scores_are_those_of_the_published_network(net):
    """Recorded from the published code with the same weights; classes 0, 7 and 18 at three pixels."""
    recorded = (
        [[-0.64496, 1.18288, -0.03783], [-0.79485, 1.21353, -0.13974], [-0.64152, 1.13061, -0.03705]],
        [[-0.2853, -0.00221, -0.22114], [-0.48934, 0.04854, -0.31116], [-0.42678, -0.00213, -0.31663]],
        [[-0.69639, -0.01654, -0.54278], [-0.4254, 0.29649, 0.00223], [-0.21976, 0.05679, 0.08185]],
    )
    for scores, expected in zip(net(waves()), recorded, strict=True):
        found = [scores[0, [0, 7, 18], y, x].tolist() for y, x in ((0, 0), (20, 70), (63, 95))]
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 40)])
def test_any_size_gives_scores_of_its_own_size(net, size):
    scores = net(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert [tuple(s.shape) for s in scores] == [(2, len(LABELS), *size)] * 3
    assert all(bool(s.isfinite().all()) for s in scores)


def test_pictures_of_a_batch_do_not_mix(net):
    batch = torch.cat([waves(), waves().flip(-1)])
    torch.testing.assert_close(net(batch)[0][1:], net(batch[1:])[0], rtol=1e-4, atol=1e-4)


def test_the_picture_gets_a_gradient(net):
    picture = waves().requires_grad_()
    net(picture)[0][:, 1].sum().backward()
    assert picture.grad is not None
    assert float(picture.grad.abs().max()) > 0


# --------------------------------------------------------------------------------------------- labels


class Given(torch.nn.Module):
    """Stands in for a head: whatever it sees, it gives these scores."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, _: Tensor) -> Tensor:
        return self.scores


@pytest.fixture
def given(weights) -> Callable[[Tensor], BiSeNet]:
    """``given(scores)``: a net whose head gives these scores at an eighth of the size."""

    def make(scores: Tensor) -> BiSeNet:
        net = from_official(weights)
        net.conv_out = Given(scores)
        return net

    return make


@pytest.mark.parametrize("size", [(64, 96), (1, 1), (37, 200)])
def test_labels_are_the_best_of_the_enlarged_scores(given, size):
    net = given(torch.randn(1, 19, 8, 12, generator=torch.Generator().manual_seed(0)))
    labels = net.labels(waves(), size)
    assert labels.dtype == torch.int64
    expected = F.interpolate(net.conv_out.scores, size, mode="bilinear", align_corners=True).argmax(1)
    assert torch.equal(labels, expected)
    if size == (64, 96):
        assert len(labels.unique()) > 10
        assert torch.equal(labels, net(waves())[0].argmax(1))


def test_borders_of_labels_are_smooth_however_large(given):
    """A slanted border, enlarged 16 times, steps by single pixels and not by blocks of 16."""
    ramp = torch.arange(8.0)[:, None] + torch.arange(8.0)[None] / 3 - 4.1
    labels = given(torch.stack([-ramp, ramp])[None]).labels(torch.zeros(1, 3, 64, 64), (128, 128))[0]
    heights = (labels == 0).sum(0)
    assert int((heights[1:] - heights[:-1]).abs().max()) <= 1
    assert int(heights[0] - heights[-1]) > 20
