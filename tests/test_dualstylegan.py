"""DualStyleGAN: the published pictures, the plain way's pictures, what each switch does."""

from __future__ import annotations

import parity
import plain_stylegan2 as plain
import pytest
import torch
import torch.nn.functional as F
from test_stylegan2 import drawn, stirred
from torch import Tensor

from nstlib.errors import SettingError
from nstlib.nets.dualstylegan import (
    ColorTransform,
    DualStyleGAN,
    Sampler,
    from_official,
    layer_weights,
    sampler_from_official,
)

TINY = (8, 6, 5, 4, 4)
LAYERS = 10


@pytest.fixture(scope="module")
def net() -> DualStyleGAN:
    torch.manual_seed(0)
    net = stirred(DualStyleGAN(64, TINY)).requires_grad_(False)
    for one in net.res[:7]:  # large enough to be seen
        one.conv[0].weight.mul_(100)
        one.conv2[0].weight.mul_(100)
    return net


@pytest.fixture(scope="module")
def codes() -> tuple[Tensor, Tensor]:
    """z+ of a face and of a style."""
    return drawn(2, LAYERS, 512), drawn(2, LAYERS, 512, seed=1)


def expected(net: DualStyleGAN, w: Tensor, art: Tensor, weights: list[float], last: int = 99) -> Tensor:
    return plain.dualstylegan(net.state_dict(), w, art, weights, last)


# ------------------------------------------------------------------------------------ the published numbers


@parity.needed
def test_the_pictures_are_those_of_the_published_network():
    """All five that are recorded, from one network: to make its 69 million weights takes longest."""
    io = parity.recorded("dualstylegan_64")
    net = from_official(parity.weights(parity.layout("dualstylegan_64_keys"), "eqlr", gain=4.0))
    z, e = io["z"], io["e"]
    parity.assert_equal(net.generator.w_plus(e, "z"), io["exstyle_w"], 1e-5)
    parity.assert_equal(net.generator.w_plus(z, "z", 0.75), io["latent"], 1e-5)

    weights = layer_weights(LAYERS, 0.75, 1)
    parity.assert_equal(net(z, e, truncation=0.75, interp_weights=weights), io["img"])
    parity.assert_equal(net(z), io["plain"])
    half = layer_weights(LAYERS, 0, 0.5)
    parity.assert_equal(net(z, io["exstyle_w"], extrinsic_space="w", interp_weights=half), io["half"])
    parity.assert_equal(net(z, e, fuse_index=7), io["fuse7"])
    # The two codes of "single" are not in the file: the rule draws them too.
    one, other = (parity.rule().draw(f"in.{name}", (1, 512)) for name in ("z1", "e1"))
    parity.assert_equal(net(one, other), io["single"])


@parity.needed
def test_the_samplers_codes_are_those_of_the_published_network():
    io = parity.recorded("dsg_sampler_color")
    net = sampler_from_official(parity.weights(parity.layout("dsg_sampler_color_keys"), "fanin"))
    parity.assert_equal(net(io["z"]), io["y"], 1e-5)
    assert torch.equal(net.codes(io["z"])[:, 1], net(io["z"])[:, 512:1024])


# ------------------------------------------------------------------------------------------- the plain way


def test_pictures_are_those_of_the_plain_way(net, codes):
    w, art = (net.generator.w_plus(one, "z") for one in codes)
    weights = [0.1 * index for index in range(1, LAYERS + 1)]
    found = net(*codes, interp_weights=weights)
    assert found.shape == (2, 3, 64, 64)
    torch.testing.assert_close(found, expected(net, w, art, weights))
    torch.testing.assert_close(net(*codes), expected(net, w, art, [1] * LAYERS))
    assert not torch.allclose(net(*codes), found)
    torch.testing.assert_close(net(codes[0][:1], codes[1][:1], interp_weights=weights), found[:1])
    for art in (codes[1][:1], codes[1][:1, 0]):  # one style serves many faces
        torch.testing.assert_close(net(codes[0], art)[1:], net(codes[0][1:], art))


@pytest.mark.parametrize("last", [0, 1, 6, 7, 8, 9, 18])
def test_fusion_ends_behind_the_layer_named(net, codes, last):
    w, art = (net.generator.w_plus(one, "z") for one in codes)
    if last == 0:  # as in the released code
        assert torch.equal(net(*codes, fuse_index=0), net(codes[0]))
    else:
        torch.testing.assert_close(net(*codes, fuse_index=last), expected(net, w, art, [1] * LAYERS, last))


def test_truncation_is_the_faces_alone(net, codes):
    w, art = (net.generator.w_plus(one, "z") for one in codes)
    found = net(*codes, truncation=0.75)
    torch.testing.assert_close(found, expected(net, 0.75 * w, art, [1] * LAYERS))
    center = drawn(1, 512, seed=2)
    found = net(*codes, truncation=0.5, center=center)
    torch.testing.assert_close(found, expected(net, (w + center) / 2, art, [1] * LAYERS))
    torch.testing.assert_close(net(*codes, truncation=0.5, center=0 * center), net(*codes, truncation=0.5))


def test_colors_of_the_face_are_kept_by_its_own_codes(net, codes):
    w, art = (net.generator.w_plus(one, "z") for one in codes)
    own = torch.cat([art[:, :7], w[:, 7:]], 1)
    found = net(*codes, truncation=0.75, keep_colors=True)
    torch.testing.assert_close(found, expected(net, 0.75 * w, own, [1] * LAYERS))
    assert not torch.allclose(found, net(*codes, truncation=0.75))


# -------------------------------------------------------------------------------------- weights of the layers


def test_without_weight_or_style_it_is_stylegan2(net, codes):
    face = net.generator(codes[0])
    assert torch.equal(net(codes[0]), face)
    assert torch.equal(net(*codes, interp_weights=layer_weights(LAYERS, 0, 0)), face)
    assert torch.equal(net(*codes, interp_weights=0), face)


def test_weights_differ_from_picture_to_picture(net, codes):
    weights = torch.rand(2, LAYERS, generator=torch.Generator().manual_seed(0)).double()
    weights[0, 3] = weights[1, 8] = 0
    found = net(*codes, interp_weights=weights)
    for index in (0, 1):
        alone = (code[index : index + 1] for code in codes)
        torch.testing.assert_close(found[index : index + 1], net(*alone, interp_weights=weights[index]))


def test_weights_are_made_of_two_strengths():
    assert layer_weights(10, 0.5, 0.25) == [0.5] * 7 + [0.25] * 3
    assert layer_weights(18, 1) == [1.0] * 18
    assert layer_weights(8, range(7), [9]) == [0, 1, 2, 3, 4, 5, 6, 9]
    with pytest.raises(SettingError, match="structure is one number, or one for each of 7 layers, not 6"):
        layer_weights(10, [1.0] * 6)
    with pytest.raises(SettingError, match="color is one number, or one for each of 3 layers, not 11"):
        layer_weights(10, 1, [1.0] * 11)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interp_weights": [1.0] * 18}, r"\(18,\) are not one for each layer \(10\)"),
        ({"interp_weights": torch.ones(3, LAYERS)}, "not one for each layer"),
        ({"extrinsic_space": "wplus"}, "no space of codes 'wplus'"),
        ({"extrinsic": torch.zeros(2, 18, 512)}, r"not \(2, 18, 512\)"),
    ],
)
def test_wrong_settings_are_told(net, codes, settings, message):
    with pytest.raises(SettingError, match=message):
        net(codes[0], **{"extrinsic": codes[1], **settings})


# ------------------------------------------------------------------------------------------------ the parts


def test_a_fresh_networks_colors_are_the_styles_own():
    """T_c begins as the identity, with a little noise; the structure begins as nothing."""
    torch.manual_seed(0)
    layer = ColorTransform()
    w = torch.randn(4, 512)
    assert 0 < (layer(w) - w).std().item() < 0.02
    fresh = DualStyleGAN(32, TINY[:4]).eval()
    face, style = torch.randn(1, 8, 512), torch.randn(1, 8, 512)
    with torch.no_grad():
        w = fresh.generator.w_plus(face, "z")
        w[:, 7:] = fresh.generator.w_plus(style, "z")[:, 7:]
        found, expected = fresh(face, style), fresh.generator(w, space="w")
    assert 0 < (found - expected).std().item() < 0.1 * expected.std().item()


# ---------------------------------------------------------------------------------------------- the samplers


@pytest.mark.parametrize("codes", [7, 11])
def test_samplers_are_read_from_their_weights(codes):
    torch.manual_seed(0)
    state = {key: torch.rand(one.shape) for key, one in Sampler(codes).state_dict().items()}
    net = sampler_from_official(state)
    z = torch.randn(5, 128)
    x = z
    for index in (1, 2):
        x = x @ state[f"lin{index}.weight"].T
        mean, variance = state[f"bn{index}.running_mean"], state[f"bn{index}.running_var"]
        x = (x - mean) / (variance + 1e-5).sqrt() * state[f"bn{index}.weight"] + state[f"bn{index}.bias"]
        x = F.relu(x)
    expected = x @ state["lin_out.weight"].T
    assert net(z).shape == (5, 512 * codes)
    torch.testing.assert_close(net(z), expected, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(net.codes(z), net(z).reshape(5, codes, 512))
