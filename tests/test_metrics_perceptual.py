"""LPIPS against the package's own class, VGG distances against the losses they are made of."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

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


@pytest.fixture(scope="module")
def vgg(weights):
    return VggDistance(device="cpu", tensors=weights["vgg19"])


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


def by_hand(backbone, tensors, a, b):
    """The definition, through this library's own extractor: unit vectors, weighted squares, means, sums."""
    import lpips

    name, _ = BACKBONES[backbone]
    layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"] if name == "vgg" else [
        f"relu{i}" for i in range(1, 6)
    ]  # fmt: skip
    net = FeatureExtractor(backbone, layers, precision="float32", device="cpu", tensors=tensors)
    heads = torch.load(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{name}.pth", map_location="cpu")
    total = torch.zeros(len(a))
    for i, layer in enumerate(layers):
        x, y = (torch.nn.functional.normalize(net(image)[layer], dim=1) for image in (a, b))
        total = total + ((x - y).square() * heads[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    return total


# --------------------------------------------------------------------------------------------------- LPIPS


def test_lpips_is_the_packages(measures, weights, picture):
    net = reference("alexnet", weights["alexnet"])
    a, b = (torch.cat([picture(70, 81, seed) for seed in seeds]) for seeds in ((0, 1), (2, 3)))
    expected = net(2 * a - 1, 2 * b - 1).flatten()
    torch.testing.assert_close(measures["alexnet"](a, b), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lpips_is_its_definition(backbone, measures, weights, picture):
    a, b = picture(64, 70, 0), picture(64, 70, 1)
    expected = by_hand(backbone, weights[backbone], a, b)
    found = measures[backbone](a, b)
    assert found.shape == (1,)
    # The package rounds ImageNet's mean and deviation a little differently, hence not 1e-6.
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_equal_pictures_are_0_apart_and_a_batch_is_its_pairs(backbone, measures, picture):
    measure = measures[backbone]
    a, b = (torch.cat([picture(64, 66, seed) for seed in seeds]) for seeds in ((0, 1), (2, 3)))
    assert measure(a, a).tolist() == [0, 0]
    together = measure(a, b)
    assert (together > 0).all()
    torch.testing.assert_close(together, measure(b, a))
    alone = torch.cat([measure(a[n : n + 1], b[n : n + 1]) for n in range(2)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lpips_leads_a_picture_to_another(backbone, measures, picture):
    target, image = picture(64, 64, 0), picture(64, 64, 1).requires_grad_()
    distance = measures[backbone](image, target)
    (gradient,) = torch.autograd.grad(distance.sum(), image)
    assert torch.isfinite(gradient).all()
    nearer = (image - 0.5 * gradient / gradient.abs().max() / 255).detach().clamp(0, 1)
    assert measures[backbone](nearer, target).item() < distance.item()
    assert not any(parameter.requires_grad for parameter in measures[backbone].parameters())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lpips_has_the_backbones_weights_and_nothing_left_empty(backbone, measures, weights):
    module = measures[backbone].net
    assert not any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])
    found = {tuple(p.shape): p for p in module.net.parameters()}
    for tensor in weights[backbone].values():
        assert tuple(tensor.shape) in found
    first = next(iter(weights[backbone].values()))
    assert torch.equal(next(module.net.parameters()), first)


@pytest.mark.parametrize(("backbone", "least"), [(name, least) for name, (_, least) in BACKBONES.items()])
def test_lpips_works_at_its_smallest_side_and_refuses_one_less(backbone, least, measures, picture):
    measure = measures[backbone]
    assert torch.isfinite(measure(picture(least, least + 1, 0), picture(least, least + 1, 1))).all()
    small = picture(least + 9, least - 1)
    with pytest.raises(SettingError, match=rf"too small for LPIPS with {backbone}: it needs {least} pixels"):
        measure(small, small)


def test_lpips_refuses_what_cannot_be_compared(measures):
    measure = measures["alexnet"]
    good = torch.full((1, 3, 64, 64), 0.5)
    with pytest.raises(SettingError, match=r"64×64 and 65×64 pixels"):
        measure(good, torch.zeros(1, 3, 64, 65))
    with pytest.raises(ImageError, match=r"not numbers"):
        measure(good, good * math.nan)
    with pytest.raises(ImageError, match=r"not from 0 to 1"):
        measure(2 * good - 2, good)


def test_lpips_of_an_unknown_backbone_or_half_the_weights_is_refused(weights):
    with pytest.raises(SettingError, match=r"one of alexnet, vgg16, not 'vgg19'"):
        Lpips("vgg19")
    half = {key: tensor for key, tensor in weights["alexnet"].items() if key != "conv3.bias"}
    with pytest.raises(SettingError, match=r"weights given for alexnet lack conv3.bias"):
        Lpips("alexnet", device="cpu", tensors=half)


def test_the_backbone_comes_from_the_assets(random_networks):
    Lpips("alexnet", device="cpu")
    VggDistance(device="cpu")
    assert random_networks == ["alexnet", "vgg19"]


# --------------------------------------------------------------------------------------------- VGG distances


def test_the_distances_are_the_losses_of_style_transfer(vgg, weights, picture):
    a, b = picture(40, 33, 0), picture(40, 33, 1)
    net = FeatureExtractor(
        "vgg19", ["relu4_2", *STYLE_LAYERS], precision="float32", device="cpu", tensors=weights["vgg19"]
    )
    maps_a, maps_b = net(a), net(b)
    torch.testing.assert_close(vgg.content(a, b), content_loss(maps_a["relu4_2"], maps_b["relu4_2"])[None])
    terms = [style_loss(maps_a[layer], gram_matrix(maps_b[layer])) for layer in STYLE_LAYERS]
    torch.testing.assert_close(vgg.style(a, b), torch.stack(terms).mean()[None])


def test_each_pair_has_its_own_distance(vgg, picture):
    a, b = (torch.cat([picture(32, 40, seed) for seed in seeds]) for seeds in ((0, 1, 2), (3, 1, 5)))
    content, style = vgg(a, b)
    assert content.shape == style.shape == (3,)
    assert content[1] == style[1] == 0
    torch.testing.assert_close(vgg.content(a, b), content)
    torch.testing.assert_close(vgg.style(a, b), style)
    torch.testing.assert_close(vgg.content(a[2:], b[2:]), content[2:])
    torch.testing.assert_close(vgg.style(a[2:], b[2:]), style[2:])


def test_style_compares_pictures_of_different_sizes_and_content_does_not(vgg, picture):
    a, b = picture(32, 40, 0), picture(48, 33, 1)
    assert vgg.style(a, b).item() > 0
    with pytest.raises(SettingError, match=r"40×32 and 33×48 pixels"):
        vgg.content(a, b)
    with pytest.raises(SettingError, match=r"there are 2 and 1"):
        vgg.style(torch.cat([a, a]), b)


def test_style_does_not_see_where_things_are_and_content_does(vgg, picture):
    a = picture(64, 64)
    mirrored, other = a.flip(3), picture(64, 64, 9)
    assert vgg.style(a, mirrored) < vgg.style(a, other)
    assert vgg.content(a, mirrored) > 0


@pytest.mark.parametrize("kind", ["content", "style"])
def test_the_vgg_distances_are_differentiable_and_refuse_what_is_no_number(kind, vgg, picture):
    a, b = picture(32, 32, 0).requires_grad_(), picture(32, 32, 1)
    measure = getattr(vgg, kind)
    (gradient,) = torch.autograd.grad(measure(a, b).sum(), a)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    with pytest.raises(ImageError, match=r"^The second batch holds values that are not numbers"):
        measure(a, b * math.inf)


# -------------------------------------------------------------------------------------------- the real ones


@pytest.mark.weights
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_packages_heads_are_the_assets(backbone):
    heads = assets.load_tensors(f"lpips_{backbone}_heads")
    module = Lpips(backbone, device="cpu").net
    assert len(heads) == 5
    for key, tensor in heads.items():
        assert torch.equal(module.state_dict()[key], tensor)


@pytest.mark.weights
@pytest.mark.parametrize("backbone", BACKBONES)
def test_real_lpips_is_the_packages_and_orders_growing_distortions(backbone, picture):
    measure = Lpips(backbone, device="cpu")
    image = torch.nn.functional.interpolate(picture(12, 12), (96, 96), mode="bicubic").clamp(0, 1)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    worse = torch.cat([(image + s * noise).clamp(0, 1) for s in (0.01, 0.03, 0.06, 0.12, 0.25)])
    with torch.no_grad():
        found = measure(image.expand_as(worse), worse)
        expected = reference(backbone, assets.load_tensors(backbone))(
            image.expand_as(worse), worse, normalize=True
        )
    torch.testing.assert_close(found, expected.flatten(), rtol=0, atol=1e-5)
    assert (found.diff() > 0).all()
