"""pSp's encoder and IR-SE50: the published layouts, the numbers of a plain recomputation, wrong pictures."""

from __future__ import annotations

import math

import parity
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nstlib.errors import SettingError
from nstlib.nets.psp import (
    CHANNELS,
    IrSe50,
    PspEncoder,
    ir_se50_from_official,
    psp_from_official,
)

TINY = (16, 16, 32, 48)
CODES = 9
Layout = dict[str, tuple[int, ...]]


def backbone_layout(channels: tuple[int, ...]) -> Layout:
    """Name -> shape of the published backbone; written down a second time, on purpose."""
    layout: Layout = {}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            layout[f"{name}.{part}"] = (width,)
        layout[f"{name}.num_batches_tracked"] = ()

    layout["input_layer.0.weight"] = (channels[0], 3, 3, 3)
    norm("input_layer.1", channels[0])
    layout["input_layer.2.weight"] = (channels[0],)
    into, index = channels[0], 0
    for out, units in zip(channels, (3, 4, 14, 3), strict=True):
        for _ in range(units):
            name = f"body.{index}"
            if into != out:
                layout[f"{name}.shortcut_layer.0.weight"] = (out, into, 1, 1)
                norm(f"{name}.shortcut_layer.1", out)
            norm(f"{name}.res_layer.0", into)
            layout[f"{name}.res_layer.1.weight"] = (out, into, 3, 3)
            layout[f"{name}.res_layer.2.weight"] = (out,)
            layout[f"{name}.res_layer.3.weight"] = (out, out, 3, 3)
            norm(f"{name}.res_layer.4", out)
            layout[f"{name}.res_layer.5.fc1.weight"] = (out // 16, out, 1, 1)
            layout[f"{name}.res_layer.5.fc2.weight"] = (out, out // 16, 1, 1)
            into, index = out, index + 1
    return layout


def ir_se50_layout(channels: tuple[int, ...] = CHANNELS) -> Layout:
    layout, last = backbone_layout(channels), channels[-1]
    for index in (0, 4):
        for part in ("weight", "bias", "running_mean", "running_var"):
            layout[f"output_layer.{index}.{part}"] = (last,)
        layout[f"output_layer.{index}.num_batches_tracked"] = ()
    return layout | {"output_layer.3.weight": (last, 49 * last), "output_layer.3.bias": (last,)}


def psp_layout(codes: int = 18, channels: tuple[int, ...] = CHANNELS) -> Layout:
    layout, width = backbone_layout(channels), channels[-1]
    for code in range(codes):
        halvings = 4 if code < 3 else 5 if code < 7 else 6
        for index in range(0, 2 * halvings, 2):
            layout[f"styles.{code}.convs.{index}.weight"] = (width, width, 3, 3)
            layout[f"styles.{code}.convs.{index}.bias"] = (width,)
        layout[f"styles.{code}.linear.weight"] = (width, width)
        layout[f"styles.{code}.linear.bias"] = (width,)
    for number, into in ((1, channels[2]), (2, channels[1])):
        layout[f"latlayer{number}.weight"] = (width, into, 1, 1)
        layout[f"latlayer{number}.bias"] = (width,)
    return layout


def formula_weights(layout: Layout) -> dict[str, Tensor]:
    """Weights out of whole-number arithmetic: the same on every machine."""
    tensors = {}
    for number, (name, shape) in enumerate(layout.items()):
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
            continue
        values = ((torch.arange(math.prod(shape)) + number) * 2654435761 % 2**32).double() / 2**31 - 1
        if len(shape) > 1:
            values = values * math.sqrt(4 / math.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = 1 + 0.3 * values
        else:
            values = 0.6 + 0.3 * values if name.endswith("weight") else 0.2 * values
        tensors[name] = values.reshape(shape)
    return tensors


def normalized(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Batch normalization from the statistics that are stored."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    weight, bias, mean, variance = (
        state[f"{name}.{part}"].reshape(shape) for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def backbone(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """What each of the 24 units gives."""

    def slope(name: str, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * state[name][:, None, None])

    x = F.conv2d(x, state["input_layer.0.weight"], padding=1)
    x = slope("input_layer.2.weight", normalized(state, "input_layer.1", x))
    found = []
    for index in range(24):
        name, stride = f"body.{index}", 2 if index in (0, 3, 7, 21) else 1
        y = F.conv2d(
            normalized(state, f"{name}.res_layer.0", x), state[f"{name}.res_layer.1.weight"], padding=1
        )
        y = slope(f"{name}.res_layer.2.weight", y)
        y = F.conv2d(y, state[f"{name}.res_layer.3.weight"], stride=stride, padding=1)
        y = normalized(state, f"{name}.res_layer.4", y)
        squeeze = y.mean((2, 3)) @ state[f"{name}.res_layer.5.fc1.weight"][:, :, 0, 0].T
        excite = squeeze.clamp(min=0) @ state[f"{name}.res_layer.5.fc2.weight"][:, :, 0, 0].T
        y = y * excite.sigmoid()[:, :, None, None]
        x = x[:, :, ::stride, ::stride]
        if f"{name}.shortcut_layer.0.weight" in state:
            x = F.conv2d(x, state[f"{name}.shortcut_layer.0.weight"])
            x = normalized(state, f"{name}.shortcut_layer.1", x)
        x = x + y
        found.append(x)
    return found


def waves(side: int, number: int = 1) -> Tensor:
    y, x = torch.arange(side).double()[:, None], torch.arange(side).double()[None]
    one = [torch.sin(0.11 * y + 0.05 * x), torch.cos(0.07 * x - 0.02 * y), torch.sin(0.003 * x * y)]
    return torch.stack([torch.stack(one).roll(17 * index, -1) for index in range(number)])


@pytest.fixture(scope="module")
def psp() -> tuple[PspEncoder, dict[str, Tensor]]:
    state = formula_weights(psp_layout(CODES, TINY))
    net = psp_from_official(state).double()
    net.load_state_dict(state)
    return net, state


# -------------------------------------------------------------------------------------------- the layouts


@pytest.mark.parametrize("codes", [10, 14, 18])
def test_the_encoders_layout_is_taken(codes):
    layout = psp_layout(codes)
    net = psp_from_official(parity.empty(layout))
    assert parity.shapes(net.state_dict()) == layout
    assert len(net.styles) == codes
    assert not net.training
    assert not any(one.requires_grad for one in net.parameters())


def test_the_recognizers_layout_is_taken():
    net = ir_se50_from_official(parity.empty(ir_se50_layout()))
    assert parity.shapes(net.state_dict()) == ir_se50_layout()
    assert not net.training


@parity.needed
@pytest.mark.parametrize(
    ("name", "layout"), [("psp_encoder_keys", psp_layout()), ("ir_se50_keys", ir_se50_layout())]
)
def test_the_layouts_are_those_of_the_published_files(name, layout):
    assert parity.layout(name) == layout


@pytest.mark.parametrize(
    "key", ["styles.8.linear.bias", "latlayer2.bias", "body.21.shortcut_layer.1.running_var"]
)
def test_other_weights_are_refused_in_a_sentence(key):
    state = parity.empty(psp_layout(CODES, TINY))
    with pytest.raises(SettingError, match=f"not those of pSp's encoder: they lack '{key}' .1 such"):
        psp_from_official({name: one for name, one in state.items() if name != key})
    with pytest.raises(SettingError, match=f"another shape of '{key}'"):
        psp_from_official(state | {key: torch.empty(5, device="meta")})


def test_one_is_not_the_other():
    with pytest.raises(SettingError, match="not those of pSp's encoder: they lack"):
        psp_from_official(parity.empty(ir_se50_layout()))
    with pytest.raises(SettingError, match="not those of IR-SE50: they lack"):
        ir_se50_from_official(parity.empty(psp_layout()))


@pytest.mark.parametrize("function", [psp_from_official, ir_se50_from_official])
def test_nothing_is_refused_in_a_sentence(function):
    with pytest.raises(SettingError, match=r"they lack 'input_layer\.0\.weight'"):
        function({})


# ------------------------------------------------------------------------------------------------ numbers


def test_codes_are_those_of_a_plain_recomputation(psp):
    net, state = psp
    images = waves(256, 2)
    units = backbone(state, images)

    def enlarged(x: Tensor, side: int) -> Tensor:
        return F.interpolate(x, (side, side), mode="bilinear", align_corners=True)

    coarse = units[23]
    middle = F.conv2d(units[20], state["latlayer1.weight"], state["latlayer1.bias"]) + enlarged(coarse, 32)
    fine = F.conv2d(units[6], state["latlayer2.weight"], state["latlayer2.bias"]) + enlarged(middle, 64)
    expected = []
    for code in range(CODES):
        x, index = (coarse if code < 3 else middle if code < 7 else fine), 0
        while f"styles.{code}.convs.{index}.weight" in state:
            name = f"styles.{code}.convs.{index}"
            x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)
            x, index = F.leaky_relu(x, 0.01), index + 2
        assert x.shape[2:] == (1, 1)
        weight = state[f"styles.{code}.linear.weight"] / math.sqrt(x.shape[1])
        expected.append(x[:, :, 0, 0] @ weight.T + state[f"styles.{code}.linear.bias"])
    found = net(images)
    assert found.shape == (2, CODES, TINY[-1])
    torch.testing.assert_close(found, torch.stack(expected, 1))
    assert found.std(0).min().item() > 1e-6, "the codes do not look at the picture"
    torch.testing.assert_close(net(images[1:]), found[1:])


def test_embeddings_are_those_of_a_plain_recomputation():
    state = formula_weights(ir_se50_layout(TINY))
    net = ir_se50_from_official(state).double()
    net.load_state_dict(state)
    faces = waves(112, 3)
    x = normalized(state, "output_layer.0", backbone(state, faces)[-1]).reshape(3, -1)
    x = normalized(
        state, "output_layer.4", x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"]
    )
    found = net(faces)
    torch.testing.assert_close(found, x / x.norm(dim=1, keepdim=True))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_pictures_get_gradients_through_frozen_nets(psp):
    images = waves(256).requires_grad_()
    (slope,) = torch.autograd.grad(psp[0](images).square().sum(), images)
    assert bool(slope.any())


@pytest.mark.parametrize("shape", [(3, 256, 256), (1, 3, 128, 128), (1, 1, 256, 256), (1, 3, 256, 255)])
def test_pictures_of_another_shape_are_told(psp, shape):
    with pytest.raises(
        SettingError, match=r"pSp's encoder takes pictures \(N, 3, 256, 256\), not .*cut the faces"
    ):
        psp[0](torch.zeros(shape))


def test_faces_of_another_shape_are_told():
    with torch.device("meta"):
        net = IrSe50(TINY)
    with pytest.raises(
        SettingError, match=r"IR-SE50 takes pictures \(N, 3, 112, 112\), not \(1, 3, 256, 256\)"
    ):
        net(torch.zeros(1, 3, 256, 256))
