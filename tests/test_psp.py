"""The encoder of pSp and IR-SE50: numbers of a plain recomputation, sizes from weights, wrong pictures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import waves
from torch import Tensor

from nstlib.errors import SettingError
from nstlib.nets.psp import IrSe50, PspEncoder, ir_se50_from_official, psp_from_official

TINY = (16, 16, 32, 48)
CODES = 9


def stirred(net: torch.nn.Module) -> dict[str, Tensor]:
    """Weights whose normalizations do something."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, one in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = one
            continue
        values = 2 * torch.rand(one.shape, generator=generator, dtype=torch.float64) - 1
        if one.ndim > 1:
            state[name] = values * math.sqrt(4 / one[0].numel())
        elif name.endswith("running_var"):
            state[name] = 1 + 0.3 * values
        else:
            state[name] = 0.6 + 0.3 * values if name.endswith("weight") else 0.2 * values
    return state


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
        y = normalized(state, f"{name}.res_layer.0", x)
        y = F.conv2d(y, state[f"{name}.res_layer.1.weight"], padding=1)
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


@pytest.fixture(scope="module")
def psp() -> tuple[PspEncoder, dict[str, Tensor]]:
    state = stirred(PspEncoder(CODES, TINY))
    net = psp_from_official(state).double()
    net.load_state_dict(state)
    return net, state


def test_codes_are_those_of_a_plain_recomputation(psp):
    net, state = psp
    images = torch.cat([waves(256, 256).double().roll(17 * index, -1) for index in range(2)])
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
    state = stirred(IrSe50(TINY))
    net = ir_se50_from_official(state).double()
    net.load_state_dict(state)
    faces = torch.cat([waves(112, 112).double().roll(17 * index, -1) for index in range(3)])
    x = normalized(state, "output_layer.0", backbone(state, faces)[-1]).reshape(3, -1)
    x = x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"]
    x = normalized(state, "output_layer.4", x)
    torch.testing.assert_close(net(faces), x / x.norm(dim=1, keepdim=True))


def test_pictures_of_another_shape_are_refused(psp):
    for shape in ((3, 256, 256), (1, 3, 128, 128), (1, 3, 256, 255)):
        with pytest.raises(SettingError, match=r"encoder takes pictures \(N, 3, 256, 256\), not .*cut the f"):
            psp[0](torch.zeros(shape))
    with pytest.raises(SettingError, match=r"IR-SE50 takes pictures \(N, 3, 112, 112\), not \(1, 3, 256"):
        IrSe50(TINY)(torch.zeros(1, 3, 256, 256))
