"""U²-Net, its blocks, and paper E's generator: held to the published networks and to plain formulas."""

from __future__ import annotations

import parity
import pytest
import torch
import torch.nn.functional as F
from conftest import rand, randn

from nstlib import nets
from nstlib.nets import u2_local
from nstlib.nets.u2net import RSU


def assert_near(found, expected):
    parity.assert_equal(found, expected, 1e-5)


@parity.needed
def test_an_rsu_gives_the_published_answer():
    layout = parity.layout("rsu4_keys")
    io = parity.recorded("rsu4")
    assert_near(nets.from_official("rsu4", parity.weights(layout, "fanin"))(io["x"]), io["y"])


@parity.needed
def test_u2netp_gives_the_published_answers():
    layout = parity.layout("u2netp_keys")
    io = parity.recorded("u2netp")
    found = nets.from_official("u2netp", parity.weights(layout, "fanin"))(io["x"])
    for number, one in enumerate(found):
        assert_near(one, io[f"d{number}"])


@parity.needed
def test_style_attention_gives_the_published_answer():
    layout = parity.layout("sanet_block64_keys")
    io = parity.recorded("sanet_block64")
    block = nets.from_official("sanet_block", parity.weights(layout, "fanin"))
    assert_near(block(io["content"], io["style"]), io["y"])


@pytest.mark.parametrize("dilated", [False, True])
def test_an_rsu_is_a_small_u_net_and_a_residual(dilated):
    torch.manual_seed(0)
    net = RSU(4, 3, 4, 5, dilated).eval()
    x = randn(2, 3, 13, 18)  # odd: the sizes on the way up are those of the way down

    def block(name, x, dilation=1):
        part = net.get_submodule(name)
        x = F.conv2d(x, part.conv_s1.weight, part.conv_s1.bias, padding=dilation, dilation=dilation)
        return F.relu(x / (1 + 1e-5) ** 0.5)

    def below(x):
        return x if dilated else F.max_pool2d(x, 2, ceil_mode=True)

    def above(x, like):
        return torch.cat([F.interpolate(x, like.shape[-2:], mode="bilinear"), like], 1)

    d = (1, 2, 4, 8) if dilated else (1, 1, 1, 2)
    entry = block("rebnconvin", x)
    one = block("rebnconv1", entry, d[0])
    two = block("rebnconv2", below(one), d[1])
    three = block("rebnconv3", below(two), d[2])
    up = block("rebnconv3d", above(block("rebnconv4", three, d[3]), three), d[2])
    up = block("rebnconv1d", above(block("rebnconv2d", above(up, two), d[1]), one), d[0])
    assert_near(net(x), entry + up)


def test_style_attention_is_its_formula_and_keeps_to_the_regions():
    torch.manual_seed(0)
    block = u2_local.SanetBlock(6)
    content, style = randn(2, 6, 5, 4), randn(2, 6, 3, 7, seed=1)

    def attention(scores):
        value = block.h(style).flatten(2)
        found = (value @ scores.softmax(2).mT).view(2, 6, 5, 4)
        return content + block.out_conv(found)

    query, key = (f(u2_local.normalized(x)).flatten(2) for f, x in ((block.f, content), (block.g, style)))
    assert_near(block(content, style), attention(query.mT @ key))

    halves, style_halves = torch.zeros(2, 2, 5, 4), torch.zeros(2, 2, 3, 7)
    halves[:, 0, :2] = halves[:, 1, 2:] = 1
    style_halves[:, 0, ..., :4] = style_halves[:, 1, ..., 4:] = 1
    masked = block(content, style, halves, style_halves)
    assert_near(masked, attention(query.mT @ key + 10 * halves.flatten(2).mT @ style_halves.flatten(2)))


def test_regions_get_the_colors_of_the_same_regions():
    photo, artwork = rand(1, 3, 8, 10), rand(1, 3, 6, 6, seed=1)
    masks, theirs = torch.zeros(1, 2, 8, 10), torch.zeros(1, 2, 6, 6)
    masks[:, 0, :4] = masks[:, 1, 4:] = 1
    theirs[:, 0, :, :3] = theirs[:, 1, :, 3:] = 1
    made = u2_local.recolor(photo, artwork, masks, theirs)
    for mine, its in ((made[..., :4, :], artwork[..., :3]), (made[..., 4:, :], artwork[..., 3:])):
        assert_near(mine.mean((2, 3)), its.mean((2, 3)))
        assert_near(mine.std((2, 3), correction=0), its.std((2, 3), correction=0))
    lacking = u2_local.recolor(photo, artwork, masks, torch.zeros_like(theirs))
    assert_near(lacking, u2_local.recolor(photo, artwork))


@pytest.mark.parametrize("encoders", ["two", "one", "plain"])
@pytest.mark.parametrize("fusion", ["attention", "concat"])
def test_a_generator_restyles_both_pictures_of_any_size(encoders, fusion):
    torch.manual_seed(0)
    net = u2_local.Generator(2, encoders, fusion).eval()  # the decoders' noise is always the same
    photo, artwork = rand(1, 3, 41, 66), rand(1, 3, 50, 47, seed=1)
    masks, theirs = torch.full((1, 3, 41, 66), 1 / 3), torch.full((1, 3, 50, 47), 1 / 3)
    made, back = net(photo, artwork, masks, theirs)
    assert made.shape == photo.shape
    assert back.shape == artwork.shape
    assert_near(net(photo, artwork, masks, theirs, back=False)[0], made)
