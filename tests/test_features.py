"""The extractor: its own normalization, any size, any precision, and the two real VGGs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib import assets
from nstlib.errors import SettingError
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.vgg import layers_up_to, output_size, smallest_side
from nstlib.pictures import files as images


def extractor(weights, network="vgg16", layers=("relu1_1", "relu2_1"), **options) -> FeatureExtractor:
    options = {"precision": "float32", "device": "cpu", **options}
    tensors = weights["vgg19" if network.startswith("vgg19") else network]
    return FeatureExtractor(network, layers, tensors=tensors, **options)


# ------------------------------------------------------------------------------------------- size and shape


@settings(deadline=None, max_examples=25)
@given(
    named=st.sampled_from([("vgg16", "relu3_1"), ("vgg19", "pool3"), ("alexnet", "relu2")]),
    more=st.integers(0, 17),
    wider=st.integers(0, 17),
    batch=st.integers(1, 2),
)
@torch.no_grad()
def test_any_height_and_width_from_the_smallest_on(weights, picture, named, more, wider, batch):
    network, name = named
    least = smallest_side(network, name)
    height, width = least + more, least + wider
    net = extractor(weights, network, [name])
    found = net(picture(height, width).expand(batch, -1, -1, -1))[name]
    layers = layers_up_to(network, [name])
    for layer in layers:
        height, width = output_size(height, layer), output_size(width, layer)
    assert found.shape == (batch, layers[-1].channels, height, width)
    assert torch.isfinite(found).all()
    for shape in ((least - 1, least + wider), (least + more, least - 1)):
        with pytest.raises(SettingError, match=f"{shape[1]}×{shape[0]} pixels is too small for {name}"):
            net(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3)])
def test_what_is_no_batch_of_pictures_is_one_sentence(weights, shape):
    with pytest.raises(SettingError, match=r"are \(N, 3, H, W\), not") as caught:
        extractor(weights)(torch.zeros(shape))
    assert str(tuple(shape)) in str(caught.value)


def test_names_come_back_in_the_order_asked_for_and_once(weights, picture):
    net = extractor(weights, layers=["relu2_1", "conv1_1", "relu2_1", "pool1"])
    assert net.layer_names == ("relu2_1", "conv1_1", "pool1")
    assert list(net(picture(8, 8))) == ["relu2_1", "conv1_1", "pool1"]
    assert [name for name, _ in net.net.named_children()] == ["conv1_1", "conv1_2", "conv2_1"]


def test_the_asset_of_the_network_is_loaded_and_nothing_else(random_networks):
    FeatureExtractor("alexnet", ["relu1"], device="cpu")
    assert random_networks == ["alexnet"]


# -------------------------------------------------------------------------------- precision, device, gradient


@pytest.mark.parametrize(
    ("network", "layer"), [("vgg16", "relu3_3"), ("vgg19", "relu3_1"), ("alexnet", "relu3")]
)
@torch.no_grad()
def test_bfloat16_is_close_to_float32(weights, picture, network, layer):
    image = picture(40, 44)
    exact = extractor(weights, network, [layer], precision="float64")(image)[layer]
    single = extractor(weights, network, [layer])(image)[layer]
    short = extractor(weights, network, [layer], precision="bfloat16")(image)[layer]
    assert (exact.dtype, single.dtype, short.dtype) == (torch.float64, torch.float32, torch.bfloat16)

    def apart(found):
        return ((found.double() - exact).norm() / exact.norm()).item()

    assert apart(single) < 1e-5
    assert 1e-4 < apart(short) < 2e-2  # so it really was computed in bfloat16


def test_the_first_convolution_stays_in_float32(weights):
    net = extractor(weights, "vgg19", precision="bfloat16")
    assert net.first.weight.dtype == net.mean.dtype == torch.float32
    assert {parameter.dtype for parameter in net.net.parameters()} == {torch.bfloat16}
    net = extractor(weights, "vgg19", precision=torch.float64)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float64}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gradient_reaches_the_picture_and_no_parameter(weights, picture, precision):
    net = extractor(weights, "vgg19", precision=precision)
    image = picture(12, 12).requires_grad_(True)
    net(image)["relu2_1"].float().square().mean().backward()
    assert image.grad.dtype == torch.float32
    assert image.grad.abs().sum() > 0
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert not net.training


# --------------------------------------------------------------------------------------------- real networks


@pytest.mark.weights
@torch.no_grad()
def test_the_real_vgg19_is_normalized_to_a_mean_activation_near_one():
    names = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"]
    net = FeatureExtractor("vgg19", names, precision="float32", device="cpu")
    means = {name: [] for name in names}
    for relative in ("portraits/collins.jpg", "portraits/curie.jpg", "paintings/harvesters.jpg",
                     "paintings/starry_night.jpg"):  # fmt: skip
        found = net(images.load_image(assets.data_path(relative), size=128))
        for name in names:
            means[name].append(found[name].mean((0, 2, 3)))
    for name in names:
        filters = torch.stack(means[name]).mean(0)
        # Measured over all 26 pictures at 160 px: 1.14 to 1.27 on average, 90 % of the filters in 0.7 to 2.0.
        assert 0.8 < filters.mean() < 1.6, name
        assert ((filters > 0.25) & (filters < 4)).float().mean() > 0.95, name


@pytest.mark.weights
@torch.no_grad()
def test_the_real_first_convolution_turns_rgb_into_bgr_minus_the_mean():
    net = FeatureExtractor("vgg19", ["conv1_1"], precision="float32", device="cpu")
    for channel, name in enumerate(("red", "green", "blue")):
        pure = torch.zeros(1, 3, 1, 1)
        pure[0, channel] = 1
        change = (net.normalize(pure) - net.normalize(torch.zeros(1, 3, 1, 1))).flatten()
        expected = torch.zeros(3)
        expected[2 - channel] = 255
        torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-3, msg=name)
    black = net.normalize(torch.zeros(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(-black, torch.tensor([103.939, 116.779, 123.68]), rtol=1e-4, atol=1e-2)
