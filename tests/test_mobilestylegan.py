"""MobileStyleGAN: the released network's pictures, its wavelet, wrong weights, the released graph's file."""

from __future__ import annotations

import math
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

# --------------------------------------------------------------------------------------- the real network

NAMES = ("mobilestylegan_mapping", "mobilestylegan_synthesis")
W_RECORDED = [-0.06795, -0.02987, -0.22872, 0.10707]
PLACES = ((0, 0), (300, 700), (511, 512), (640, 500), (1023, 100))
RECORDED = [
    [0.12619, -0.01377, -0.05487], [-0.62332, -0.79571, -0.774], [0.43558, -0.10137, -0.26894],
    [0.37337, -0.14304, -0.2577], [0.13511, 0.09276, 0.11981],
]  # fmt: skip
# At places 1 and 2, with styles that grow from half of w to one and a half: ours, when it still was held,
# operation by operation, to a graph of this form.
GROWING = [[0.3523, -0.09713, -0.23119], [0.34408, -0.14942, -0.27267]]


@pytest.fixture(scope="module")
def graphs() -> list[dict[str, Tensor]]:
    return [assets.load_tensors(name) for name in NAMES]


@pytest.mark.weights
@torch.no_grad()
def test_the_real_network_draws_what_openvino_draws(graphs):
    """Recorded from OpenVINO 2026.4 with the released files; z is (sin 1, sin 2, ... sin 512) · √2."""
    mapping, synthesis = from_official(*graphs)
    assert (synthesis.channels, synthesis.layers, synthesis.size) == (CHANNELS, 23, 1024)
    w = mapping(torch.arange(1, 513.0).sin()[None] * 2**0.5)
    torch.testing.assert_close(w[0, :4], torch.tensor(W_RECORDED), rtol=0, atol=1e-4)
    w_plus = w[:, None] * torch.linspace(0.5, 1.5, 23)[:, None]
    for styles, places, recorded in ((w, PLACES, RECORDED), (w_plus, PLACES[1:3], GROWING)):
        picture = synthesis(styles)
        found = [picture[0, :, y, x].tolist() for y, x in places]
        torch.testing.assert_close(torch.tensor(found), torch.tensor(recorded), rtol=0, atol=1e-3)


@pytest.mark.weights
@pytest.mark.parametrize("graph", [0, 1], ids=["mapping", "synthesis"])
@pytest.mark.parametrize("change", ["missing", "left over"])
def test_other_weights_are_refused_in_a_sentence(graphs, graph, change):
    changed = [dict(one) for one in graphs]
    tensors = changed[graph]
    last = [key for key in tensors if key.startswith("MatMul")][-1]
    if change == "missing":
        del tensors[last]
    else:
        more = {"MatMul": (5, 512), "Add": (1, 5), "Reshape": (5,)}
        tensors |= {f"{kind}_9999": torch.ones(shape) for kind, shape in more.items()}
    with pytest.raises(SettingError, match=rf"not MobileStyleGAN's.*load_tensors\('{NAMES[graph]}'\)\.$"):
        from_official(*changed)


@pytest.mark.parametrize("shape", [(512,), (1, 10, 512)])
def test_a_style_of_another_shape_is_refused(shape):
    with pytest.raises(SettingError, match=r"or \(N, 11, 512\), not"):
        SynthesisNetwork((8, 8, 12, 4))(torch.zeros(shape))


# -------------------------------------------------------------------------------------------- the wavelet


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


@given(count=st.integers(1, 3), height=st.integers(1, 6), width=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_wavelet_is_the_graphs_and_keeps_the_energy(count, height, width, seed):
    x = torch.randn(2, 4 * count, height, width, generator=torch.Generator().manual_seed(seed)).double()
    y = inverse_haar(x)
    torch.testing.assert_close(y, wavelet(x))
    torch.testing.assert_close(y.square().sum(), x.square().sum())
    torch.testing.assert_close(F.avg_pool2d(y, 2), x[:, :count] / 2)


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
