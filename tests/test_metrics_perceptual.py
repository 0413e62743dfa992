"""LPIPS against the package's own class, VGG distances against the losses they are made of."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from nstlib import assets
from nstlib.errors import ImageError, SettingError
from nstlib.losses import content_loss, gram_matrix, style_loss
from nstlib.metrics import Lpips, VggDistance
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.vgg import architecture

BACKBONES = {"alexnet": ("alex", 31), "vgg16": ("vgg", 16)}  # the package's name, least side
STYLE_LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]


@pytest.fixture(scope="module")
def measures(weights):
    return {name: Lpips(name, device="cpu", tensors=weights[name]) for name in BACKBONES}


@pytest.fixture
def vgg(random_networks):
    return VggDistance(device="cpu")


def reference(backbone, tensors):
    """The package's LPIPS, built as it builds itself, with its backbone's convolutions filled in order."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        net = lpips.LPIPS(net=BACKBONES[backbone][0], pnet_rand=True, verbose=False)
    convolutions = [module for module in net.net.modules() if isinstance(module, torch.nn.Conv2d)]
    names = [layer.name for layer in architecture(backbone) if layer.kind == "conv"]
    for name, module in zip(names, convolutions, strict=True):
        module.load_state_dict({part: tensors[f"{name}.{part}"] for part in ("weight", "bias")})
    return net


# --------------------------------------------------------------------------------------------------- LPIPS


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_is_its_pairs_and_a_gradient_leads_a_picture_to_another(backbone, measures, picture):
    measure = measures[backbone]
    a, b = (torch.cat([picture(64, 66, seed) for seed in seeds]) for seeds in ((0, 1), (2, 3)))
    assert measure(a, a).tolist() == [0, 0]
    together = measure(a, b)
    torch.testing.assert_close(together, measure(b, a))
    torch.testing.assert_close(together, torch.cat([measure(a[n : n + 1], b[n : n + 1]) for n in range(2)]))
    image = a[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(measure(image, b[:1]).sum(), image)
    nearer = (image - 0.5 * gradient / gradient.abs().max() / 255).detach().clamp(0, 1)
    assert measure(nearer, b[:1]).item() < together[0].item()
    assert not any(parameter.requires_grad for parameter in measure.parameters())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lpips_works_at_its_smallest_side_and_refuses_what_cannot_be_compared(backbone, measures, picture):
    measure, least = measures[backbone], BACKBONES[backbone][1]
    assert torch.isfinite(measure(picture(least, least + 1, 0), picture(least, least + 1, 1))).all()
    small, good = picture(least + 9, least - 1), picture(64, 64)
    with pytest.raises(ImageError, match=f"too small: take one of at least {least}"):
        measure(small, small)
    with pytest.raises(SettingError, match="64 × 64 pixels and 1 of 65 × 64"):
        measure(good, picture(64, 65))
    with pytest.raises(ImageError, match="not from 0 to 1"):
        measure(2 * good - 2, good)
    with pytest.raises(SettingError, match=r"'vgg19'.*: choose one of alexnet, vgg16"):
        Lpips("vgg19")


# --------------------------------------------------------------------------------------------- VGG distances


def test_the_distances_are_the_losses_of_style_transfer_for_each_pair(vgg, weights, picture):
    a, b = (torch.cat([picture(32, 40, seed) for seed in seeds]) for seeds in ((0, 1, 2), (3, 1, 5)))
    net = FeatureExtractor(
        "vgg19", ["relu4_2", *STYLE_LAYERS], precision="float32", device="cpu", tensors=weights["vgg19"]
    )
    content, style = vgg.content(a, b), vgg.style(a, b)
    assert content[1] == style[1] == 0
    for n in (0, 2):
        maps_a, maps_b = net(a[n : n + 1]), net(b[n : n + 1])
        torch.testing.assert_close(content[n], content_loss(maps_a["relu4_2"], maps_b["relu4_2"]))
        terms = [style_loss(maps_a[layer], gram_matrix(maps_b[layer])) for layer in STYLE_LAYERS]
        torch.testing.assert_close(style[n], torch.stack(terms).mean())


def test_style_compares_pictures_of_different_sizes_and_content_does_not(vgg, picture):
    a, b = picture(32, 40, 0), picture(48, 33, 1)
    assert vgg.style(a, b).item() > 0
    with pytest.raises(SettingError, match="40 × 32 pixels and 1 of 33 × 48"):
        vgg.content(a, b)
    with pytest.raises(SettingError, match="these are 2 of"):
        vgg.style(torch.cat([a, a]), b)
    with pytest.raises(ImageError, match="second batch"):
        vgg.style(a, b * math.inf)


# -------------------------------------------------------------------------------------------- the real ones


@pytest.mark.weights
@pytest.mark.parametrize("backbone", BACKBONES)
def test_real_lpips_is_the_packages_with_the_assets_heads(backbone, picture):
    measure = Lpips(backbone, device="cpu")
    for key, tensor in assets.load_tensors(f"lpips_{backbone}_heads").items():
        assert torch.equal(measure.net.state_dict()[key], tensor)
    image = torch.nn.functional.interpolate(picture(12, 12), (96, 96), mode="bicubic").clamp(0, 1)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    worse = torch.cat([(image + s * noise).clamp(0, 1) for s in (0.01, 0.03, 0.06, 0.12, 0.25)])
    with torch.no_grad():
        found = measure(image.expand_as(worse), worse)
        net = reference(backbone, assets.load_tensors(backbone))
        expected = net(image.expand_as(worse), worse, normalize=True).flatten()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found.diff() > 0).all()
