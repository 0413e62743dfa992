"""StyleGAN2: the published layouts and numbers, the plain way's numbers, codes, noise, the critic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import parity
import plain_stylegan2 as plain
import pytest
import torch
from torch import Tensor, nn

from nstlib.errors import SettingError
from nstlib.nets import stylegan2
from nstlib.nets.stylegan2 import (
    CHANNELS,
    SIZES,
    Discriminator,
    DiscriminatorFeatures,
    Generator,
    discriminator_from_official,
    features_from_official,
    generator_from_official,
    minibatch_deviation,
)
from nstlib.nets.stylegan2_layers import Blur, EqualLinear, ModulatedConv, StyledConv, Upsample

TINY = (8, 6, 5, 4)
Layout = dict[str, tuple[int, ...]]


def generator_layout(channels: Sequence[int]) -> Layout:
    """Name -> shape of the published generator; written down a second time, on purpose."""
    layout: Layout = {}

    def modulated(name: str, into: int, out: int, kernel: int) -> None:
        layout[f"{name}.weight"] = (1, out, into, kernel, kernel)
        layout[f"{name}.modulation.weight"] = (into, 512)
        layout[f"{name}.modulation.bias"] = (into,)

    def styled(name: str, into: int, out: int, up: bool = False) -> None:
        modulated(f"{name}.conv", into, out, 3)
        if up:
            layout[f"{name}.conv.blur.kernel"] = (4, 4)
        layout[f"{name}.noise.weight"] = (1,)
        layout[f"{name}.activate.bias"] = (out,)

    def rgb(name: str, into: int) -> None:
        layout[f"{name}.bias"] = (1, 3, 1, 1)
        modulated(f"{name}.conv", into, 3, 1)

    for index in range(1, 9):
        layout[f"style.{index}.weight"] = (512, 512)
        layout[f"style.{index}.bias"] = (512,)
    layout["input.input"] = (1, channels[0], 4, 4)
    layout["noises.noise_0"] = (1, 1, 4, 4)
    styled("conv1", channels[0], channels[0])
    rgb("to_rgb1", channels[0])
    for level, (before, here) in enumerate(pairwise(channels)):
        styled(f"convs.{2 * level}", before, here, up=True)
        styled(f"convs.{2 * level + 1}", here, here)
        rgb(f"to_rgbs.{level}", here)
        layout[f"to_rgbs.{level}.upsample.kernel"] = (4, 4)
        for index in (1, 2):
            layout[f"noises.noise_{2 * level + index}"] = (1, 1, 8 << level, 8 << level)
    return layout


def discriminator_layout(channels: Sequence[int], whole: bool = True) -> Layout:
    """Name -> shape of the published discriminator; channels from 4 pixels up."""
    first = channels[-1]
    layout: Layout = {"convs.0.0.weight": (first, 3, 1, 1), "convs.0.1.bias": (first,)}
    for number, (into, out) in enumerate(pairwise(channels[::-1]), 1):
        name = f"convs.{number}"
        layout[f"{name}.conv1.0.weight"] = (into, into, 3, 3)
        layout[f"{name}.conv1.1.bias"] = (into,)
        layout[f"{name}.conv2.0.kernel"] = layout[f"{name}.skip.0.kernel"] = (4, 4)
        layout[f"{name}.conv2.1.weight"] = (out, into, 3, 3)
        layout[f"{name}.conv2.2.bias"] = (out,)
        layout[f"{name}.skip.1.weight"] = (out, into, 1, 1)
    if whole:
        last = channels[0]
        layout |= {"final_conv.0.weight": (last, last + 1, 3, 3), "final_conv.1.bias": (last,)}
        layout |= {"final_linear.0.weight": (last, 16 * last), "final_linear.0.bias": (last,)}
        layout |= {"final_linear.1.weight": (1, last), "final_linear.1.bias": (1,)}
    return layout


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
def critic() -> Discriminator:
    torch.manual_seed(0)
    return stirred(Discriminator(32, TINY)).requires_grad_(False)


# -------------------------------------------------------------------------------------------- the layouts


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_the_published_names_and_shapes(size):
    channels = CHANNELS[: int(math.log2(size)) - 1]
    with torch.device("meta"):
        assert parity.shapes(Generator(size).state_dict()) == generator_layout(channels)
        assert parity.shapes(Discriminator(size).state_dict()) == discriminator_layout(channels)
        blocks = DiscriminatorFeatures(size)
    assert parity.shapes(blocks.state_dict()) == discriminator_layout(channels, whole=False)


@parity.needed
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("jojogan_generator_64_keys", generator_layout(CHANNELS[:5])),
        ("stylegan2_disc_64_keys", discriminator_layout(CHANNELS[:5])),
        ("stylegan2_disc_keys_256", discriminator_layout(CHANNELS[:7])),
        ("stylegan2_disc_keys_1024", discriminator_layout(CHANNELS)),
        ("jojogan_discfeat_256_keys", discriminator_layout(CHANNELS[:7], whole=False)),
    ],
)
def test_the_layouts_are_those_of_the_published_files(name, layout):
    assert parity.layout(name) == layout


@pytest.mark.parametrize("size", SIZES)
def test_the_size_is_read_from_the_weights(size):
    channels = CHANNELS[: int(math.log2(size)) - 1]
    found = generator_from_official(parity.empty(generator_layout(channels)))
    assert (found.size, found.layers) == (size, 2 * int(math.log2(size)) - 2)
    assert discriminator_from_official(parity.empty(discriminator_layout(channels))).size == size
    assert features_from_official(parity.empty(discriminator_layout(channels, whole=False))).size == size


def test_published_weights_are_copied_and_frozen(net):
    state = net.float().state_dict()
    net.double()
    found = generator_from_official(state)
    assert all(torch.equal(found.state_dict()[key], one) for key, one in state.items())
    assert not found.training
    assert not any(one.requires_grad for one in found.parameters())
    before = state["conv1.noise.weight"].clone()
    found.conv1.noise.weight.add_(1)
    assert torch.equal(state["conv1.noise.weight"], before)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_the_bytes_are_computed_with_in_float32(half):
    state = {key: torch.zeros(shape, dtype=half) for key, shape in discriminator_layout(TINY).items()}
    found = discriminator_from_official(state)
    assert {one.dtype for one in found.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("to_rgbs.2.bias"), "they lack 'to_rgbs.2.bias' .1 such"),
        (lambda s: s.pop("noises.noise_3"), "they lack 'noises.noise_3'"),
        (lambda s: s.update({"g_ema": {}}), "have, beyond what it takes, 'g_ema'"),
        (
            lambda s: s.update({"convs.0.conv.weight": torch.empty(1, 9, 8, 3, 3)}),
            "another shape of 'convs.0",
        ),
        (
            lambda s: s.update({"convs.0.conv.weight": torch.empty(6, 8, 3, 3)}),
            "another shape of 'convs.0.conv.weight' .1 such",
        ),
        (lambda s: s.update({"to_rgb1.conv.weight": {}}), "another shape of"),
        (lambda s: s.update({"to_rgbs.77.bias": torch.empty(1, 3, 1, 1)}), "they lack"),
        (lambda s: s.clear(), "they lack 'style.1.weight'.*g_ema"),
    ],
    ids=["missing", "noise", "left over", "shape", "axes", "no tensor", "size", "empty"],
)
def test_other_generators_are_refused_in_a_sentence(change, message):
    state = parity.empty(generator_layout(TINY))
    change(state)
    with pytest.raises(SettingError, match=rf"not those of StyleGAN2's generator: .*{message}") as told:
        generator_from_official(state)
    assert str(told.value).count("\n") == 0


@pytest.mark.parametrize("key", ["convs.3.conv2.1.weight", "final_linear.1.bias", "convs.0.0.weight"])
def test_other_discriminators_are_refused_in_a_sentence(key):
    state = parity.empty(discriminator_layout(TINY))
    whole = dict(state)
    del state[key]
    with pytest.raises(SettingError, match="not those of StyleGAN2's discriminator: they lack"):
        discriminator_from_official(state)
    with pytest.raises(SettingError, match=r"JoJoGAN's discriminator: .* beyond what it takes, 'final_conv"):
        features_from_official(whole)


@pytest.mark.parametrize("make", [Generator, Discriminator, DiscriminatorFeatures])
def test_sizes_without_a_layout_are_refused(make):
    for size in (16, 48, 2048):
        with pytest.raises(SettingError, match=f"or 1024 pixels a side, not {size}: choose"):
            make(size)
    with pytest.raises(SettingError, match="For 32 pixels give 4 channels, not 3"):
        make(32, TINY[:3])


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


def test_both_ways_of_a_single_picture_are_taken(monkeypatch):
    conv = ModulatedConv(5, 6, 3)
    weights: list[Tensor] = []
    monkeypatch.setattr(conv, "convolve", lambda x, w, *_: weights.append(w) or x.new_zeros(len(x), 6, 1, 1))
    for number, side in ((1, 2), (1, 8), (2, 8)):
        conv(torch.ones(number, 5, side, side), torch.ones(number, 512))
    assert [torch.equal(one, conv.weight[0]) for one in weights] == [True, False, True]


def test_demodulated_features_have_the_deviation_of_white_noise():
    torch.manual_seed(0)
    conv = ModulatedConv(32, 16, 3)
    y = conv(torch.randn(2, 32, 40, 40), 3 * torch.randn(2, 512))[:, :, 1:-1, 1:-1]
    assert torch.allclose(y.std((2, 3)), torch.ones(2, 16), atol=0.15)


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


def test_pictures_of_wide_layers_are_those_of_the_plain_way_in_float32_too():
    """At 32 pixels these are wide enough for Winograd's convolution."""
    torch.manual_seed(0)
    net = Generator(32, (16, 16, 16, 128)).eval().requires_grad_(False)
    z = drawn(2, 512).float()
    expected = plain.generator(net.double().state_dict(), net.w_plus(z.double(), "z"))
    parity.assert_equal(net.float()(z).double(), expected, 1e-5)


def test_styles_are_those_of_the_plain_way(net):
    z = drawn(3, 512)
    torch.testing.assert_close(net.style(z), plain.mapping(net.state_dict(), "style", 8, z))
    torch.testing.assert_close(net.style(7 * z), net.style(z))


def test_judgements_are_those_of_the_plain_way(critic):
    x = drawn(3, 3, 32, 32)
    expected, blocks = plain.discriminator(critic.state_dict(), x)
    torch.testing.assert_close(critic(x), expected)
    torch.testing.assert_close(critic(x[:1]), plain.discriminator(critic.state_dict(), x[:1])[0])
    state = {key: one for key, one in critic.state_dict().items() if not key.startswith("final")}
    features = features_from_official(state).double()
    torch.testing.assert_close(features(x), [blocks[1], blocks[3]])
    torch.testing.assert_close(critic.features(x), [blocks[1], blocks[3]])
    features.taken = (0, 2)
    torch.testing.assert_close(features(x), [blocks[0], blocks[2]])


def test_jojogan_stops_at_the_fifth_block(critic):
    torch.manual_seed(0)
    features = DiscriminatorFeatures(256, (2,) * 7)
    features.convs[6] = None  # would not even be computed
    assert [tuple(one.shape) for one in features(torch.zeros(1, 3, 256, 256))] == [
        (1, 2, 128, 128),
        (1, 2, 32, 32),
        (1, 2, 16, 16),
        (1, 2, 8, 8),
    ]


@parity.needed
def test_the_judgements_are_those_of_the_published_network():
    io = parity.recorded("stylegan2_disc_64")
    net = discriminator_from_official(parity.weights(parity.layout("stylegan2_disc_64_keys"), "eqlr"))
    parity.assert_equal(net(io["x"]), io["y"], 1e-5)


# ------------------------------------------------------------------------------------------------- filters


def test_the_filter_keeps_what_is_even():
    flat = torch.full((2, 3, 9, 9), 0.7)
    torch.testing.assert_close(Blur(padding=1)(flat)[:, :, 2:-2, 2:-2], flat[:, :, :4, :4])
    torch.testing.assert_close(Blur(padding=1, gain=4)(flat)[:, :, 2:-2, 2:-2], 4 * flat[:, :, :4, :4])
    torch.testing.assert_close(Upsample()(flat)[:, :, 1:-1, 1:-1], torch.full((2, 3, 16, 16), 0.7))


def test_each_filter_has_its_gain():
    """All of the generator's follow a doubling of the size; the critic's none."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for net, gain in ((Generator(32, TINY), 4), (Discriminator(32, TINY), 1)):
        found = [one for name, one in net.state_dict().items() if name.endswith("kernel")]
        assert len(found) == 6
        for one in found:
            torch.testing.assert_close(one, gain * taps[:, None] * taps / 64)


def test_a_single_pixel_becomes_the_filter():
    one = torch.zeros(1, 1, 4, 4)
    one[0, 0, 1, 2] = 1
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    expected = torch.zeros(8, 8)
    expected[1:5, 3:7] = taps[:, None] * taps
    torch.testing.assert_close(Upsample()(one)[0, 0], expected)
    blurred = Blur(padding=2)(one)[0, 0]
    assert blurred.shape == (5, 5)
    torch.testing.assert_close(blurred[0:4, 1:5], taps[:, None] * taps / 4)
    torch.testing.assert_close(Blur(padding=2, stride=2)(one)[0, 0], blurred[::2, ::2])


def test_a_crooked_filter_would_be_applied_as_published():
    x = drawn(2, 3, 6, 6)
    kernel = drawn(4, 4, seed=1)
    for module, settings in (
        (Blur(padding=1), {"pad": (1, 1)}),
        (Blur(padding=1, stride=2), {"pad": (1, 1), "down": 2}),
        (Upsample(), {"pad": (2, 1), "up": 2}),
    ):
        module.kernel = kernel
        torch.testing.assert_close(module(x), plain.upfirdn(x, kernel, **settings))


# ----------------------------------------------------------------------------------------- codes and noise


@pytest.mark.parametrize("space", ["z", "w"])
def test_one_code_is_the_same_code_for_all_layers(net, space):
    code = drawn(2, 512)
    torch.testing.assert_close(net(code, space=space), net(code[:, None].repeat(1, 8, 1), space=space))


def test_z_plus_are_mapped_each_by_itself(net):
    z = drawn(2, 8, 512)
    w = torch.stack([net.style(z[:, index]) for index in range(8)], 1)
    torch.testing.assert_close(net(z), net(w, space="w"))
    torch.testing.assert_close(net.w_plus(z, "z"), w)


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
    assert mean.dtype == torch.float64
    assert torch.equal(mean, net.mean_w(64, torch.Generator().manual_seed(3)))
    assert float((mean - net.mean_w(2000)).norm()) < 0.3 * float(net.style(drawn(1, 512)).norm())


@pytest.mark.parametrize("shape", [(512,), (1, 511), (1, 7, 512), (1, 1, 8, 512), (1, 18, 512)])
def test_codes_of_another_shape_are_told(net, shape):
    with pytest.raises(SettingError, match=r"Codes for 32 pixels are \(N, 512\), or \(N, 8, 512\)"):
        net(torch.zeros(shape))


def test_unknown_spaces_and_centers_are_told(net):
    with pytest.raises(SettingError, match="'z' or 'w', not 'w\\+'"):
        net(drawn(1, 512), space="w+")
    with pytest.raises(SettingError, match=r"center of truncation is .* not \(2, 512\)"):
        net(drawn(2, 512), center=drawn(2, 512))


def test_each_layer_has_its_own_code(net):
    """A code changes the features from its layer on, and the last one the picture alone."""

    def features(w: Tensor) -> list[Tensor]:
        seen: list[Tensor] = []
        net.synthesize(w, net.noise_maps(), lambda _, x: seen.append(x) or x)
        return seen

    w = drawn(1, 8, 512)
    before = features(w)
    assert len(before) == 7
    for layer in range(8):
        changed = w.clone()
        changed[:, layer] += 1
        same = [torch.equal(a, b) for a, b in zip(before, features(changed), strict=True)]
        assert same == [index < layer for index in range(7)]
        assert not torch.allclose(net(changed, space="w"), net(w, space="w"))


def test_no_codes_give_no_pictures(net):
    assert net(drawn(0, 512)).shape == (0, 3, 32, 32)


def test_pictures_of_a_batch_do_not_mix(net):
    z = drawn(3, 512)
    torch.testing.assert_close(net(z)[1:2], net(z[1:2]))


def test_noise_is_fixed_drawn_none_or_given(net):
    z = drawn(2, 512)
    fixed, none = net(z), net(z, noise="none")
    assert torch.equal(fixed, net(z))
    own = [net.noises.get_buffer(f"noise_{index}") for index in range(7)]
    torch.testing.assert_close(net(z, noise=own), fixed)
    torch.testing.assert_close(net(z, noise=[torch.zeros_like(one) for one in own]), none)
    torch.testing.assert_close(net(z, noise=[None] * 7), none)
    first, again = (net(z, noise="random", generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, fixed)
    assert not torch.allclose(fixed, none)
    maps = net.noise_maps("random", 2)
    assert [tuple(one.shape[2:]) for one in maps] == [(side, side) for side in (4, 8, 8, 16, 16, 32, 32)]
    assert not torch.equal(maps[0][0], maps[0][1])


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ("loud", "'fixed', 'random', 'none' or 7 maps, not 'loud'"),
        ([None] * 6, "or 7 maps, not 6 maps"),
        ([None] * 3 + [torch.zeros(1, 1, 8, 8)] + [None] * 3, r"map 3 is \(1, 1, 16, 16\) or has 2 such"),
        ([torch.zeros(3, 1, 4, 4)] + [None] * 6, "map 0 is"),
    ],
)
def test_other_noise_is_told(net, noise, message):
    with pytest.raises(SettingError, match=message):
        net(drawn(2, 512), noise=noise)


# ------------------------------------------------------------------------------- formats, gradients, critic


def test_under_autocast_the_convolutions_are_bfloat16_and_nothing_else_is(monkeypatch):
    torch.manual_seed(0)
    net = Generator(32, TINY).eval().requires_grad_(False)
    z = drawn(2, 512).float()
    exact, w = net(z), net.w_plus(z, "z")
    seen: list[torch.dtype] = []
    monkeypatch.setattr(
        ModulatedConv,
        "factors",
        lambda self, style, factors=ModulatedConv.factors: (
            seen.append(factors(self, style).dtype) or factors(self, style)
        ),
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.w_plus(z, "z"), w)
        dtypes: list[torch.dtype] = []
        net.synthesize(w, net.noise_maps(), lambda _, x: dtypes.append(x.dtype) or x)
        rounded = net(z)
    assert set(dtypes) == {torch.bfloat16}
    assert set(seen) == {torch.float32}
    assert rounded.dtype == torch.float32
    assert 1e-5 < float((rounded - exact).abs().max() / exact.abs().max()) < 0.05


def test_demodulation_has_float32s_digits_under_autocast():
    torch.manual_seed(0)
    conv = ModulatedConv(64, 8, 3)
    style = 1 + torch.randn(2, 64)
    expected = conv.double().factors(style.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = conv.float().factors(style)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_features_lie_channels_last(net):
    seen: list[bool] = []
    for number in (1, 2):
        net.synthesize(
            drawn(number, 8, 512),
            net.noise_maps(),
            lambda _, x: seen.append(x.is_contiguous(memory_format=torch.channels_last)) or x,
        )
    assert seen == [True] * 14


@pytest.mark.parametrize("number", [1, 2])
def test_codes_and_weights_get_gradients(number):
    torch.manual_seed(0)
    net = stirred(Generator(32, TINY))
    w = drawn(number, 8, 512).requires_grad_()
    net(w, space="w").square().mean().backward()
    assert bool((w.grad.abs().amax((0, 2)) > 0).all())
    idle = {name for name, one in net.named_parameters() if one.grad is None or not one.grad.any()}
    assert idle == {name for name, _ in net.named_parameters() if name.startswith("style.")}


def test_a_step_in_w_changes_the_picture_as_the_gradient_says(net):
    w, direction, step = drawn(1, 8, 512).requires_grad_(), drawn(1, 8, 512, seed=1), 1e-6
    net(w, space="w").square().mean().backward()
    values = [net(w.detach() + sign * step * direction, space="w").square().mean() for sign in (1, -1)]
    slope = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close((w.grad * direction).sum(), slope, rtol=1e-4, atol=0)


def test_the_critics_slope_can_be_learned_from(critic):
    """R1 takes the gradient of a gradient."""
    x = drawn(2, 3, 32, 32).requires_grad_()
    net = stirred(Discriminator(32, TINY))
    (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in net.convs.parameters()
               if one.ndim == 4)  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 64, 64), (1, 1, 32, 32), (1, 3, 32, 31)])
def test_pictures_of_another_shape_are_told(critic, shape):
    with pytest.raises(SettingError, match=r"takes pictures \(N, 3, 32, 32\), not .*resize the pictures"):
        critic(torch.zeros(shape))


def test_the_groups_deviation_by_hand():
    """Of 8 pictures 0, 2, 4, 6 are a group; each channel's deviation over them, and the mean of these."""
    x = torch.zeros(8, 2, 1, 1)
    x[[0, 2, 4, 6], 0, 0, 0] = torch.tensor([1.0, 3.0, 1.0, 3.0])  # deviation 1
    x[[0, 2, 4, 6], 1, 0, 0] = torch.tensor([0.0, 0.0, 4.0, 4.0])  # deviation 2
    x[[1, 3, 5, 7], 0, 0, 0] = torch.tensor([6.0, 6.0, 0.0, 0.0])  # 3, and the other channel 0
    found = minibatch_deviation(x)
    assert found.shape == (8, 3, 1, 1)
    assert torch.equal(found[:, :2], x)
    torch.testing.assert_close(found[:, 2, 0, 0], torch.tensor([1.5] * 8), atol=1e-4, rtol=0)
    x[[1, 3, 5, 7]] = 0
    found = minibatch_deviation(x)[:, 2, 0, 0]
    torch.testing.assert_close(found, torch.tensor([1.5, 0] * 4), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("number", "size"), [(1, 1), (2, 2), (5, 1), (6, 3), (7, 1), (9, 3), (12, 4)])
def test_groups_are_as_large_as_the_batch_lets_them_be(number, size):
    x = torch.arange(float(number)).reshape(-1, 1, 1, 1).expand(-1, 2, 3, 3)
    groups = x[:, 0, 0, 0].reshape(size, -1)
    expected = groups.var(0, correction=0).sqrt().repeat(size)
    found = minibatch_deviation(x)[:, 2]
    torch.testing.assert_close(found, expected[:, None, None].expand(-1, 3, 3), atol=2e-4, rtol=0)


def test_layers_begin_with_equal_shares():
    """Karras et al.: weights of deviation 1, scaled where they are used; slow ones the other way around."""
    torch.manual_seed(0)
    for rate in (1.0, 0.01):
        layer = EqualLinear(400, 300, bias=1.0, rate=rate)
        assert layer.weight.std().item() == pytest.approx(1 / rate, rel=0.02)
        y = layer(torch.randn(50, 400))
        assert y.std().item() == pytest.approx(1, rel=0.05)
        assert y.mean().item() == pytest.approx(1, abs=0.03)
    assert StyledConv(3, 3).noise.weight.item() == 0


def test_configuration_f_is_the_default():
    assert stylegan2.channels_for(256) == (512, 512, 512, 512, 512, 256, 128)
    assert stylegan2.channels_for(32, [1, 2, 3, 4]) == (1, 2, 3, 4)
