"""The encoder of pSp and IR-SE50: recorded numbers, sizes from weights, wrong pictures."""

from __future__ import annotations

import math

import pytest
import torch
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


@pytest.fixture(scope="module")
def psp() -> tuple[PspEncoder, dict[str, Tensor]]:
    state = stirred(PspEncoder(CODES, TINY))
    net = psp_from_official(state).double()
    net.load_state_dict(state)
    return net, state


def test_codes_are_those_recorded(psp):
    """From the published layers written out one by one."""
    images = torch.cat([waves(256, 256).double().roll(17 * index, -1) for index in range(2)])
    found = psp[0](images)
    assert found.shape == (2, CODES, TINY[-1])
    some = torch.stack([found[0, [0, 4, 8], 7], found[1, [0, 4, 8], 12]])
    recorded = [[-0.11084, 0.184698, -0.011229], [0.003253, 0.151626, -0.158556]]
    torch.testing.assert_close(some, torch.tensor(recorded).double(), rtol=0, atol=1e-5)
    assert found.std(0).min().item() > 1e-6, "the codes do not look at the picture"
    torch.testing.assert_close(psp[0](images[1:]), found[1:])


def test_embeddings_are_those_recorded():
    state = stirred(IrSe50(TINY))
    net = ir_se50_from_official(state).double()
    net.load_state_dict(state)
    found = net(torch.cat([waves(112, 112).double().roll(17 * index, -1) for index in range(3)]))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3).double())
    recorded = torch.tensor(
        [[0.12562, 0.197327, 0.00876], [0.107157, 0.18494, -0.034459], [0.069442, 0.301359, -0.000561]]
    ).double()
    torch.testing.assert_close(found[:, ::16], recorded, rtol=0, atol=1e-5)


def test_pictures_of_another_shape_are_refused(psp):
    for shape in ((3, 256, 256), (1, 3, 128, 128), (1, 3, 256, 255)):
        with pytest.raises(SettingError, match=r"encoder takes \(N, 3, 256, 256\), not .*cut the f"):
            psp[0](torch.zeros(shape))
    with pytest.raises(SettingError, match=r"IR-SE50 takes \(N, 3, 112, 112\), not \(1, 3, 256"):
        IrSe50(TINY)(torch.zeros(1, 3, 256, 256))
