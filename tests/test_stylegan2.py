"""StyleGAN2: the numbers of the plain and of the published way, codes, noise, the discriminator."""

from __future__ import annotations

import parity
import plain_stylegan2 as plain
import pytest
import torch
from conftest import waves
from torch import Tensor, nn

from nstlib.errors import SettingError
from nstlib.nets.stylegan2 import (
    Discriminator,
    DiscriminatorFeatures,
    Generator,
    discriminator_from_official,
    features_from_official,
    minibatch_deviation,
)
from nstlib.nets.stylegan2_layers import ModulatedConv

TINY = (8, 6, 5, 4)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stirred(net: nn.Module) -> nn.Module:
    """In float64, with biases and noises that are not the zeros they begin with."""
    net = net.double().eval()
    with torch.no_grad():
        for number, (name, one) in enumerate(net.named_parameters()):
            if name.endswith(("bias", "noise.weight")):
                one.add_(0.3 * drawn(*one.shape, seed=number))
    return net


@pytest.fixture(scope="module")
def net() -> Generator:
    torch.manual_seed(0)
    return stirred(Generator(32, TINY)).requires_grad_(False)


@pytest.fixture(scope="module")
def discriminator() -> Discriminator:
    torch.manual_seed(0)
    return stirred(Discriminator(32, TINY)).requires_grad_(False)


# ---------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("make", [Generator, Discriminator, DiscriminatorFeatures])
def test_sizes_without_a_layout_are_refused(make):
    with pytest.raises(SettingError, match=r"size '48'.*: choose one of 32, 64"):
        make(48)


# ------------------------------------------------------------------------- the fast way and the plain way


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("side", [2, 8])
@pytest.mark.parametrize(
    ("kernel", "up", "demodulate"), [(3, False, True), (3, True, True), (1, False, False), (1, False, True)]
)
def test_scaled_features_give_what_scaled_filters_give(number, side, kernel, up, demodulate):
    """Numbers and gradients; one picture with few or with many pixels goes different ways."""
    torch.manual_seed(0)
    conv = ModulatedConv(5, 6, kernel, up, demodulate).double()
    x, w, bias = drawn(number, 5, side, side), drawn(number, 512, seed=1), drawn(6, seed=2)
    leaves = [one.requires_grad_() for one in (x, w, *conv.parameters())]
    found = conv(x, w, bias, 1.7)
    state = {f"c.{key}": one for key, one in conv.state_dict(keep_vars=True).items()}
    expected = 1.7 * plain.modulated_conv(state, "c", x, w, demodulate) + bias[:, None, None]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(conv(x, w), plain.modulated_conv(state, "c", x, w, demodulate))
    direction = drawn(*found.shape, seed=3)
    one, other = (torch.autograd.grad((y * direction).sum(), leaves) for y in (found, expected))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("number", [1, 2])
def test_pictures_are_those_of_the_plain_way(net, number):
    w = drawn(number, 8, 512)
    found = net(w, space="w")
    assert found.shape == (number, 3, 32, 32)
    torch.testing.assert_close(found, plain.generator(net.state_dict(), w))
    maps = [drawn(number, 1, side, side, seed=side) for side in (4, 8, 8, 16, 16, 32, 32)]
    expected = plain.generator(net.state_dict(), w, maps)
    torch.testing.assert_close(net(w, space="w", noise=maps), expected)
    assert not torch.allclose(found, expected)


def test_styles_are_those_of_the_plain_way(net):
    z = drawn(3, 512)
    torch.testing.assert_close(net.style(z), plain.mapping(net.state_dict(), "style", 8, z))
    torch.testing.assert_close(net.style(7 * z), net.style(z))


def test_scores_and_features_are_those_recorded(discriminator):
    """From the published layers written out one by one."""
    x = torch.cat([waves(32, 32).double().roll(5 * index, -1) for index in range(3)])
    recorded = torch.tensor([[-0.0013996], [-0.0399483], [-0.0352759]]).double()
    torch.testing.assert_close(discriminator(x), recorded, rtol=0, atol=1e-6)
    features = discriminator.features(x)
    means = [one.mean().item() for one in features]
    assert means == pytest.approx([0.0748900, 0.1845940], abs=1e-6)
    state = {key: one for key, one in discriminator.state_dict().items() if not key.startswith("final")}
    torch.testing.assert_close(features_from_official(state).double()(x), features)


def test_jojogan_stops_at_the_fifth_block():
    features = DiscriminatorFeatures(256, (2,) * 7)
    features.convs[6] = None  # would not even be computed
    found = features(torch.zeros(1, 3, 256, 256))
    assert [tuple(one.shape) for one in found] == [(1, 2, side, side) for side in (128, 32, 16, 8)]


@parity.needed
def test_scores_are_those_of_the_published_network():
    io = parity.recorded("stylegan2_disc_64")
    net = discriminator_from_official(parity.weights(parity.layout("stylegan2_disc_64_keys"), "eqlr"))
    parity.assert_equal(net(io["x"]), io["y"], 1e-5)


# ------------------------------------------------------------------------------------------------- filters


def test_each_filter_has_its_gain():
    """All of the generator's follow a doubling of the size; the discriminator's none."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for net, gain in ((Generator(32, TINY), 4), (Discriminator(32, TINY), 1)):
        found = [one for name, one in net.state_dict().items() if name.endswith("kernel")]
        assert len(found) == 6
        for one in found:
            torch.testing.assert_close(one, gain * taps[:, None] * taps / 64)


# ----------------------------------------------------------------------------------------- codes and noise


def test_codes_of_each_kind_give_the_same_picture(net):
    z = drawn(2, 512)
    expected = net(z)
    for codes, space in ((z[:, None].repeat(1, 8, 1), "z"), (net.style(z), "w"), (net.w_plus(z, "z"), "w")):
        torch.testing.assert_close(net(codes, space=space), expected)
    z_plus = drawn(2, 8, 512)
    torch.testing.assert_close(
        net.w_plus(z_plus, "z"), torch.stack([net.style(one) for one in z_plus.unbind(1)], 1)
    )


def test_truncation_goes_from_the_code_to_the_center(net):
    z, center = drawn(2, 512), drawn(1, 512, seed=1)
    w = net.style(z)[:, None]
    torch.testing.assert_close(net.w_plus(z, "z", 0.75), 0.75 * w.expand(-1, 8, -1))
    torch.testing.assert_close(net.w_plus(z, "z", 0, center), center[:, None].expand(2, 8, -1))
    torch.testing.assert_close(net.w_plus(z, "z", 1, center), w.expand(-1, 8, -1))
    half = (center[:, None] + w).expand(-1, 8, -1) / 2
    for one in (center, center[0], center[:, None].repeat(1, 8, 1)):
        torch.testing.assert_close(net.w_plus(z, "z", 0.5, one), half)
    torch.testing.assert_close(net(z, truncation=0.5, center=center), net(half, space="w"))


def test_the_mean_of_w_is_one_of_many_z(net):
    mean = net.mean_w(64, torch.Generator().manual_seed(3))
    assert mean.shape == (1, 512)
    torch.testing.assert_close(mean, net.mean_w(64, torch.Generator().manual_seed(3)))
    assert float((mean - net.mean_w(2000)).norm()) < 0.3 * float(net.style(drawn(1, 512)).norm())


@pytest.mark.parametrize("shape", [(512,), (1, 511), (1, 7, 512), (1, 1, 8, 512)])
def test_codes_of_another_shape_are_refused(net, shape):
    with pytest.raises(SettingError, match=r"Codes are \(N, 512\) or \(N, 8, 512\), not \(.*512|511"):
        net(torch.zeros(shape))
    with pytest.raises(SettingError, match="no space of codes 'w\\+'"):
        net(drawn(1, 512), space="w+")


def test_each_layer_has_its_own_code(net):
    """A code changes the features from its layer on, and the last one the picture alone."""

    def features(w: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        net.synthesize(w, net.noise_maps(), lambda _, x: found.append(x) or x)
        return found

    w = drawn(1, 8, 512)
    before = features(w)
    assert len(before) == 7
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in before)
    for layer in range(8):
        changed = w.clone()
        changed[:, layer] += 1
        same = [torch.allclose(a, b) for a, b in zip(before, features(changed), strict=True)]
        assert same == [index < layer for index in range(7)]
        assert not torch.allclose(net(changed, space="w"), net(w, space="w"))


def test_noise_is_the_networks_own_given_or_none(net):
    z, own = drawn(2, 512), net.noise_maps()
    assert [tuple(one.shape[2:]) for one in own] == [(side, side) for side in (4, 8, 8, 16, 16, 32, 32)]
    torch.testing.assert_close(net(z, noise=own), net(z))
    none = net(z, noise=[None] * 7)
    torch.testing.assert_close(net(z, noise=[torch.zeros_like(one) for one in own]), none)
    assert not torch.allclose(net(z), none)


# ------------------------------------------------------------------------ formats, gradients, discriminator


def test_under_autocast_only_the_convolutions_are_bfloat16():
    torch.manual_seed(0)
    net = Generator(32, TINY).eval().requires_grad_(False)
    z, dtypes = drawn(2, 512).float(), set()
    exact, w, factors = net(z), net.w_plus(z, "z"), net.conv1.conv.factors(drawn(2, 8).float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net.w_plus(z, "z"), w)
        torch.testing.assert_close(net.conv1.conv.factors(drawn(2, 8).float()), factors)
        net.synthesize(w, net.noise_maps(), lambda _, x: dtypes.add(x.dtype) or x)
        rounded = net(z)
    assert dtypes == {torch.bfloat16}
    assert rounded.dtype == torch.float32
    assert 1e-5 < float((rounded - exact).abs().max() / exact.abs().max()) < 0.05


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 32, 31)])
def test_pictures_of_another_shape_are_refused(discriminator, shape):
    with pytest.raises(SettingError, match=r"takes \(N, 3, 32, 32\), not .*resize the pictures"):
        discriminator(torch.zeros(shape))


@pytest.mark.parametrize(("number", "size"), [(1, 1), (6, 3), (7, 1), (12, 4)])
def test_groups_are_as_large_as_the_batch_allows(number, size):
    x = torch.arange(float(number)).reshape(-1, 1, 1, 1).expand(-1, 2, 3, 3)
    expected = x[:, 0, 0, 0].reshape(size, -1).var(0, correction=0).sqrt().repeat(size)
    found = minibatch_deviation(x)[:, 2]
    torch.testing.assert_close(found, expected[:, None, None].expand(-1, 3, 3), atol=2e-4, rtol=0)
