"""MobileStyleGAN: the released graph's arithmetic, a style for each layer, gradients, wrong weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nstlib import assets
from nstlib.assets import convert
from nstlib.errors import SettingError
from nstlib.nets.mobilestylegan import CHANNELS, SynthesisNetwork, from_official, inverse_haar

TINY = (8, 8, 12, 4)
Tensors = dict[str, Tensor]


def released(channels: Sequence[int] = TINY, seed: int = 0) -> tuple[Tensors, Tensors]:
    """Random tensors named as in the two released graphs: KIND_NUMBER, the numbers growing along the way."""
    generator = torch.Generator().manual_seed(seed)
    graphs: tuple[Tensors, Tensors] = ({}, {})
    number = 7

    def add(graph: int, kind: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> None:
        nonlocal number
        number += 3  # some get two digits, some three: their order is one of numbers, not of letters
        graphs[graph][f"{kind}_{number}"] = mean + scale * torch.randn(shape, generator=generator)

    for _ in range(8):
        add(0, "MatMul", 512, 512, scale=512**-0.5)
        add(0, "Reshape", 512, scale=0.1)
        add(0, "LeakyRelu", 1)

    def modulation(count: int, factor: bool = True) -> None:
        add(1, "MatMul", count, 512, scale=512**-0.5)
        add(1, "Add", 1, count, scale=0.1, mean=1)
        if factor:
            add(1, "Mul", 1, 1, 1, 1, scale=0.1, mean=0.7)

    def ending(count: int, side: int) -> None:
        add(1, "Add", 1, 1, side, side, scale=0.1)
        add(1, "Add", 1, count, 1, 1, scale=0.1)
        add(1, "LeakyRelu", 1)

    number = 7
    add(1, "Expand", 1, channels[0], 4, 4)
    modulation(channels[0])
    add(1, "Conv", channels[0], channels[0], 3, 3, scale=(9 * channels[0]) ** -0.5)
    ending(channels[0], 4)
    for level, (inputs, outputs) in enumerate(pairwise(channels)):
        modulation(inputs, factor=False)
        for _ in range(6):
            add(1, "ConvTranspose", inputs // 4, 1, 1, 2, 1)
        for count in (inputs // 4, outputs):
            modulation(count)
            add(1, "Conv", count, 1, 1, 3, 3, scale=0.5)
            add(1, "Conv", outputs, count, 1, 1, scale=count**-0.5)
            ending(outputs, 8 << level)
    modulation(channels[-1])
    add(1, "Conv", 12, channels[-1], 1, 1)
    add(1, "Add", 1, 12, 1, 1)
    return graphs


def wavelet(x: Tensor) -> Tensor:
    """As the graph has it: transposed convolutions with (√½, √½) and (√½, -√½), columns first."""
    count, root = x.shape[1] // 4, math.sqrt(0.5)
    low, high = x[:, :count], x[:, count:].reshape(len(x), count, 3, *x.shape[2:])

    def up(x: Tensor, sign: int, shape: tuple[int, int]) -> Tensor:
        kernel = torch.tensor([root, sign * root], dtype=x.dtype).reshape(1, 1, *shape).repeat(count, 1, 1, 1)
        return F.conv_transpose2d(x, kernel, stride=shape, groups=count)

    left = up(low, 1, (2, 1)) + up(high[:, :, 0], -1, (2, 1))
    right = up(high[:, :, 1], 1, (2, 1)) + up(high[:, :, 2], -1, (2, 1))
    return up(left, 1, (1, 2)) + up(right, -1, (1, 2))


def run_graph(tensors: Tensors, styles: Sequence[Tensor]) -> Tensor:
    """The released graph for one picture, operation by operation, from a style (1, 512) for each layer."""
    ordered = sorted(tensors.items(), key=lambda item: int(item[0].split("_")[1]))
    queue = [
        (key.split("_")[0], tensor) for key, tensor in ordered if not key.startswith(("Leaky", "ConvTr"))
    ]
    remaining = list(styles)

    def take(kind: str) -> Tensor:
        found, tensor = queue.pop(0)
        assert found == kind
        return tensor

    def modulated(x: Tensor) -> Tensor:
        s = remaining.pop(0) @ take("MatMul").T + take("Add")
        if queue[0][0] == "Mul":
            s = s * take("Mul").reshape(1, 1)
        return s[:, :, None, None] * x

    def convolved(x: Tensor, depthwise: bool = True) -> Tensor:
        x = modulated(x)
        if depthwise:
            x = F.conv2d(x, take("Conv")[:, 0], padding=1, groups=x.shape[1])
            x = F.conv2d(x, take("Conv"))
        else:
            x = F.conv2d(x, take("Conv"), padding=1)
        x = x + take("Add")
        return F.prelu(x + take("Add"), torch.tensor(0.2))

    x = convolved(take("Expand"), depthwise=False)
    while len(remaining) > 1:
        x = convolved(convolved(wavelet(modulated(x))))
    x = F.conv2d(modulated(x), take("Conv")) + take("Add")
    assert not queue
    return wavelet(x)


@pytest.fixture(scope="module")
def graphs() -> tuple[Tensors, Tensors]:
    return released()


@pytest.fixture(scope="module")
def net(graphs) -> SynthesisNetwork:
    return from_official(*graphs)[1]


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------------- the layout


def test_the_whole_network_has_the_released_sizes():
    net = SynthesisNetwork()
    assert (net.layers, net.size, len(net.levels)) == (23, 1024, 7)
    noise_maps = 16 + 2 * sum(4**i for i in range(3, 10))
    assert sum(p.numel() for name, p in net.named_parameters() if name.endswith("noise")) == noise_maps
    # The asset has besides: 8,868 numbers of the wavelets, 16 factors of modulations, 15 slopes.
    bytes_ = assets.info("mobilestylegan_synthesis").bytes
    assert sum(p.numel() for p in net.parameters()) == bytes_ / 4 - 8868 - 16 - 15


@pytest.mark.parametrize("graph", [0, 1], ids=["mapping", "synthesis"])
@pytest.mark.parametrize("change", ["missing", "left over", "shape"])
def test_other_weights_are_refused_in_a_sentence(graphs, graph, change):
    changed = [dict(one) for one in graphs]
    tensors = changed[graph]
    last = [key for key in tensors if key.startswith("MatMul")][-1]
    if change == "missing":
        del tensors[last]
    elif change == "left over":
        tensors |= {"MatMul_9999": torch.ones(5, 512), "Add_9999": torch.ones(1, 5), "Reshape_9999": noise(5)}
    else:
        tensors[last] = torch.ones(3, 512)
    name = ("mobilestylegan_mapping", "mobilestylegan_synthesis")[graph]
    with pytest.raises(SettingError, match=rf"not MobileStyleGAN's.*load_tensors\('{name}'\)\.$"):
        from_official(*changed)


# --------------------------------------------------------------------------------------------- the numbers


def test_pictures_are_those_of_the_released_graph(graphs, net):
    w = noise(1, 512)
    assert net(w).shape == (1, 3, 64, 64)
    torch.testing.assert_close(net(w), run_graph(graphs[1], [w] * 11), rtol=1e-4, atol=1e-4)
    w_plus = noise(1, 11, 512)
    expected = run_graph(graphs[1], list(w_plus.unbind(1)))
    torch.testing.assert_close(net(w_plus), expected, rtol=1e-4, atol=1e-4)


def test_styles_are_those_of_stylegans_mapping(graphs):
    z = noise(3, 512)
    x = z / (z**2).mean(1, keepdim=True).add(1e-8).sqrt()
    for kind in zip(
        (t for k, t in graphs[0].items() if k.startswith("MatMul")),
        (t for k, t in graphs[0].items() if k.startswith("Reshape")),
        strict=True,
    ):
        x = F.leaky_relu(x @ kind[0].T + kind[1], 0.2) * 2**0.5
    torch.testing.assert_close(from_official(*graphs)[0](z), x, rtol=1e-4, atol=1e-4)


@given(count=st.integers(1, 3), height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_wavelet_is_the_graphs_and_keeps_the_energy(count, height, width, seed):
    x = noise(2, 4 * count, height, width, seed=seed).double()
    y = inverse_haar(x)
    torch.testing.assert_close(y, wavelet(x))
    torch.testing.assert_close(y.square().sum(), x.square().sum())
    torch.testing.assert_close(F.avg_pool2d(y, 2), x[:, :count] / 2)


@pytest.mark.parametrize("shape", [(512,), (1, 10, 512)])
def test_a_style_of_another_shape_is_refused(net, shape):
    with pytest.raises(SettingError, match=r"or \(N, 11, 512\), not"):
        net(torch.zeros(shape))


# ------------------------------------------------------------------------------------------ the converter

GRAPH = """<?xml version="1.0" ?><net name="tiny" version="10"><layers>
<layer id="0" name="a" type="Const"><data element_type="f32" offset="8" size="24" shape="2,3"/></layer>
<layer id="1" name="b" type="Const"><data element_type="i64" offset="0" size="8" shape="1"/></layer>
<layer id="2" name="c" type="Const"><data element_type="f32" offset="32" size="4" shape=""/></layer>
<layer id="3" name="x" type="Parameter"><data element_type="f32" shape="1,3"/></layer>
<layer id="4" name="MatMul_1" type="MatMul"/><layer id="5" name="Mul_2" type="Multiply"/>
<layer id="6" name="Reshape_3" type="Reshape"/></layers><edges>
<edge from-layer="3" to-layer="4"/><edge from-layer="0" to-layer="4"/><edge from-layer="4" to-layer="5"/>
<edge from-layer="2" to-layer="5"/><edge from-layer="5" to-layer="6"/><edge from-layer="1" to-layer="6"/>
</edges></net>"""


def test_constants_are_read_under_the_name_of_their_taker(tmp_path: Path):
    (tmp_path / "net.xml").write_text(GRAPH)
    data = torch.tensor([7]).numpy().tobytes() + torch.arange(7.0).numpy().tobytes()
    (tmp_path / "net.bin").write_bytes(data)
    found = convert.openvino(tmp_path / "net.bin")
    assert list(found) == ["MatMul_1", "Mul_2"]
    assert torch.equal(found["MatMul_1"], torch.arange(6.0).reshape(2, 3))
    assert found["Mul_2"].shape == ()
    assert found["Mul_2"] == 6


# --------------------------------------------------------------------------------------- the real network


W_RECORDED = [-0.06795, -0.02987, -0.22872, 0.10707]
PLACES = ((0, 0), (300, 700), (511, 512), (640, 500), (1023, 100))
RECORDED = [
    [0.12619, -0.01377, -0.05487], [-0.62332, -0.79571, -0.774], [0.43558, -0.10137, -0.26894],
    [0.37337, -0.14304, -0.2577], [0.13511, 0.09276, 0.11981],
]  # fmt: skip


@pytest.mark.weights
def test_the_real_network_draws_what_openvino_draws():
    """Recorded from OpenVINO 2026.4 with the released files; z is (sin 1, sin 2, ... sin 512) · √2."""
    mapping, synthesis = from_official(
        *(assets.load_tensors(f"mobilestylegan_{part}") for part in ("mapping", "synthesis"))
    )
    assert list(CHANNELS) == [512, *(level.conv2.conv[1].out_channels for level in synthesis.levels)]
    w = mapping(torch.arange(1, 513.0).sin()[None] * 2**0.5)
    torch.testing.assert_close(w[0, :4], torch.tensor(W_RECORDED), rtol=0, atol=1e-4)
    picture = synthesis(w)
    found = [picture[0, :, y, x].tolist() for y, x in PLACES]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(RECORDED), rtol=0, atol=1e-3)
