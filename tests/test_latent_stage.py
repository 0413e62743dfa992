"""Stage four: codes fitted to the finished network, and networks that draw such codes, none left out."""

from __future__ import annotations

import pytest
import torch
from conftest import randn, refused

from nstlib.errors import SettingError
from nstlib.methods.dualstylegan.destylization import Destylized
from nstlib.methods.dualstylegan.latent import refine_codes, sample_styles, train_sampler
from nstlib.methods.dualstylegan.settings import SMALL, SamplerSettings
from nstlib.metrics import Lpips
from nstlib.nets.dualstylegan import DualStyleGAN
from nstlib.nets.stylegan2 import Generator

pytestmark = pytest.mark.usefixtures("random_networks")
LATENT = SMALL.latent.changed(steps=2)
SAMPLER = SamplerSettings(steps=6, batch=8, pool=16, choices=16, codes=20, inputs=16)


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        source = Generator(32, (8, 8, 8, 8))
        net = DualStyleGAN.over(source, 4).requires_grad_(False).eval()
    with torch.no_grad():
        for block in net.res[:7]:  # so that structure codes are seen
            block.widen.weight.mul_(100)
    return net


@pytest.fixture(scope="module")
def styles(net):
    """Three portraits that the network draws from codes which are not quite theirs."""
    intrinsic, true = (0.5 * randn(3, net.layers, 512, seed=seed) for seed in (1, 2))
    with torch.no_grad():
        drawn = net(intrinsic, true, space="w", extrinsic_space="w")
    pictures = ((drawn + 1) / 2).clamp(0, 1)
    return Destylized(true + 0.3 * randn(3, net.layers, 512, seed=3), intrinsic, pictures)


# ------------------------------------------------------------------------------------ latent optimization


def test_codes_come_nearer_to_their_portraits(net, styles):
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    settings = LATENT.changed(steps=15, structure_rate=0.02, color_rate=0.02, contextual_weight=0.01)
    found = refine_codes(net, styles, settings, progress=False)
    lpips = Lpips("alexnet", device="cpu")
    apart = []
    for one in (styles, found):
        with torch.no_grad():
            drawn = net(one.intrinsic, one.extrinsic, space="w", extrinsic_space="w")
        apart.append(lpips(((drawn + 1) / 2).clamp(0, 1), one.portraits))
    assert (apart[1] < 0.9 * apart[0]).all()
    assert torch.equal(found.intrinsic, styles.intrinsic)
    assert torch.equal(found.portraits, styles.portraits)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_structure_and_color_have_their_own_rates(net, styles, tmp_path):
    settings = LATENT.changed(steps=1, structure_rate=0.005, color_rate=0.1)
    found = refine_codes(net, styles, settings, tmp_path, progress=False)
    moved = (found.extrinsic - styles.extrinsic).abs()  # Adam's first step has the size of the rate
    assert float(moved[:, :7].max()) == pytest.approx(0.005, rel=1e-2)
    assert float(moved[:, 7:].max()) == pytest.approx(0.1, rel=1e-2)
    with refused(SettingError, match="steps 1 there, 3 here"):
        refine_codes(net, styles, settings.changed(steps=3), tmp_path, progress=False)


def test_codes_of_another_network_are_refused(net, styles):
    other = Destylized(styles.extrinsic[:, :7], styles.intrinsic[:, :7], styles.portraits)
    with refused(SettingError, match="destylize them with the same generator"):
        refine_codes(net, other, LATENT)


# ----------------------------------------------------------------------------------------------- samplers


def test_samples_lie_near_every_group_of_codes():
    """A few codes here, many there: both are drawn, and little else."""
    here, there = randn(1, 9, 512, seed=1), randn(1, 9, 512, seed=2)
    codes = torch.cat([here, *[there] * 4])
    settings = SamplerSettings(steps=100, batch=32, pool=64, codes=100, inputs=32, learning_rate=1e-2)
    samplers, result = train_sampler(codes, settings, progress=False)
    found = sample_styles(samplers, 300)
    assert found.shape == (300, 9, 512)
    apart = float((here - there).square().mean().sqrt())
    for part in (slice(0, 7), slice(7, None)):
        both = [(found - one)[:, part].square().mean((1, 2)).sqrt() for one in (here, there)]
        distances = torch.stack(both)
        nearest = distances.amin(0)
        assert (distances.amin(1) < 0.3 * apart).all()  # none is left out
        assert float(nearest.median()) < 0.35 * apart
        share = float((distances[0] < distances[1]).float().mean())
        assert 0.03 < share < 0.5
    assert result.history[-1]["total"] < 0.2 * result.history[0]["total"]


def test_samples_are_numbered(tmp_path):
    codes = randn(2, 9, 512)
    samplers, _ = train_sampler(codes, SAMPLER, tmp_path / "run", progress=False)
    found = sample_styles(samplers, 5, seed=1)
    torch.testing.assert_close(sample_styles(samplers, 3, seed=1), found[:3])
    assert not torch.allclose(sample_styles(samplers, 5, seed=2), found)
    assert sample_styles(samplers, 0).shape == (0, 9, 512)
    with refused(SettingError, match="with other settings"):
        train_sampler(2 * codes, SAMPLER, tmp_path / "run", progress=False)
