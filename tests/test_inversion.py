"""Inversion: a known code's picture is found again; nothing mixes, nothing is changed, what fails says so."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from conftest import make_weights, refused

from nstlib.errors import ImageError, OptimizationError, SettingError
from nstlib.methods import inversion
from nstlib.methods.inversion import (
    AS_RELEASED,
    SMALL,
    ReconstructionLoss,
    course_encoder,
    encode,
    find_codes,
    invert,
    noise_similarity,
)
from nstlib.metrics import Lpips
from nstlib.nets.face_encoder import FaceEncoder
from nstlib.nets.mobilestylegan import FacePrior
from nstlib.nets.stylegan2 import Generator
from nstlib.pictures.files import resize

PLAIN = SMALL.changed(identity_weight=0.0, start_weight=0.0)


def drawn_pictures(generator, count, seed=5, space="w"):
    """Codes and the pictures of them, in [0, 1]; some way off the mean."""
    z = torch.randn(count, generator.layers, 512, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        codes = generator.w_plus(z, "z") if space == "w" else z
        pictures = generator(codes, space=space)
    return codes, ((pictures + 1) / 2).clamp(0, 1)


@pytest.fixture(scope="module")
def generator():
    """Of 32 pixels, with noise that is seen."""
    torch.manual_seed(0)
    net = Generator(32, (8, 8, 8, 8)).requires_grad_(False).eval()
    for name, parameter in net.named_parameters():
        if name.endswith("noise.weight"):  # which are 0 before training
            parameter.fill_(0.1)
    return net


@pytest.fixture(scope="module")
def lpips():
    return Lpips("alexnet", device="cpu", tensors=make_weights("alexnet"))


@pytest.fixture(scope="module")
def mean(generator):
    return generator.mean_w(256, torch.Generator().manual_seed(0))


class Looks:
    """Stands in for ArcFace: the direction is the picture's colors."""

    def __init__(self):
        self.alignments = []

    def embed(self, images, alignment=None):
        self.alignments.append(alignment)
        return torch.nn.functional.normalize(images.mean((2, 3)))


# ------------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("space", ["w", "z"])
def test_the_picture_of_a_known_code_is_found_again(generator, lpips, space):
    codes, pictures = drawn_pictures(generator, 2, space=space)
    settings = PLAIN.changed(space=space, noises=False, learning_rate=0.1)
    mean = generator.mean_w(64, torch.Generator().manual_seed(0))
    start = mean if space == "w" else torch.randn(1, 512, generator=torch.Generator().manual_seed(9))
    options = {"start": start, "settings": settings, "lpips": lpips, "progress": False}
    before = invert(pictures, generator, steps=0, **options)
    found = invert(pictures, generator, steps=40, **options)
    assert found.codes.shape == codes.shape
    assert found.pictures.shape == pictures.shape
    for measure in (lpips, lambda a, b: (a - b).abs().mean((1, 2, 3))):
        assert (measure(found.pictures, pictures) < 0.5 * measure(before.pictures, pictures)).all()
    assert before.history == []
    assert [row["step"] for row in found.history] == list(range(1, 41))
    row = found.history[-1]
    assert row["total"] == pytest.approx(row["perceptual"] + row["pixel"], rel=1e-5)


def test_pictures_do_not_disturb_each_other(generator, lpips, mean):
    _, pictures = drawn_pictures(generator, 2)
    options = {"start": mean, "steps": 4, "settings": SMALL, "lpips": lpips, "progress": False}
    both = invert(pictures, generator, identity=Looks(), **options)
    alone = invert(pictures[1:], generator, identity=Looks(), **options)
    # The pictures, not the codes: Adam's first steps have the size of the rate whatever the slope, and
    # rounding moves a code that the picture does not depend on.
    torch.testing.assert_close(both.pictures[1:], alone.pictures, rtol=0, atol=3e-4)
    assert (both.pictures[:1] - alone.pictures).abs().max() > 1e-3


def test_the_mean_is_where_it_begins_and_the_generator_stays(generator, lpips):
    _, pictures = drawn_pictures(generator, 1)
    before = {key: tensor.clone() for key, tensor in generator.state_dict().items()}
    found = invert(pictures, generator, steps=0, settings=PLAIN, lpips=lpips, progress=False)
    mean = generator.mean_w(4096, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.codes, mean[:, None].expand(1, generator.layers, 512))
    assert all(torch.equal(tensor, before[key]) for key, tensor in generator.state_dict().items())


def test_codes_are_held_near_their_start_and_near_each_other(generator, lpips, mean):
    _, pictures = drawn_pictures(generator, 1)
    options = {"start": mean, "steps": 15, "lpips": lpips, "progress": False}
    free = invert(pictures, generator, settings=PLAIN, **options)
    near_start = invert(pictures, generator, settings=PLAIN.changed(start_weight=10.0), **options)
    assert (near_start.codes - mean).square().mean() < 0.5 * (free.codes - mean).square().mean()
    together = invert(pictures, generator, settings=PLAIN.changed(layer_std_weight=10.0), **options)
    assert together.codes.std(1).mean() < 0.5 * free.codes.std(1).mean()
    assert math.isfinite(together.history[0]["layer_std"])  # where all codes are one, the root has no slope


# --------------------------------------------------------------------------------------------------- noise


def test_noise_maps_are_found_too_and_stay_noise(generator, lpips):
    _, pictures = drawn_pictures(generator, 1)
    start = generator.mean_w(64, torch.Generator().manual_seed(0))
    settings = PLAIN.changed(perceptual_weight=0.0, pixel_weight=1.0)
    found = invert(pictures, generator, start=start, steps=5, settings=settings, progress=False)
    own = generator.noise_maps()
    assert len(found.noises) == len(own)
    for noise, before in zip(found.noises, own, strict=True):
        assert not torch.equal(noise, before)
        assert float(noise.mean()) == pytest.approx(0, abs=1e-5)
        assert float(noise.square().mean()) == pytest.approx(1, abs=1e-4)
    assert "noise" in found.history[0]
    with torch.no_grad():
        again = ((generator(found.codes, space="w", noise=found.noises) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(found.pictures, again)


def test_noise_is_unlike_itself_and_a_picture_is_not():
    noise = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise[..., ::8, ::8], (32, 32), mode="bilinear")
    smooth = (smooth - smooth.mean((2, 3), keepdim=True)) / smooth.std((2, 3), keepdim=True)
    assert noise_similarity([noise]).shape == (2,)
    assert (noise_similarity([smooth]) > 20 * noise_similarity([noise])).all()
    # A checkerboard of 8 pixels: each neighbor is its negative, so both correlations are -1.
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    torch.testing.assert_close(noise_similarity([board.view(1, 1, 8, 8)]), torch.tensor([2.0]))


# --------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("network", ["alexnet", "vgg16"])
def test_the_perceptual_part_is_lpips(network, picture, weights):
    measure = Lpips(network, device="cpu", tensors=weights[network])
    settings = PLAIN.changed(network=network, perceptual_weight=3.0, pixel_weight=2.0)
    a = torch.cat([picture(64, 64, seed) for seed in (0, 1)])
    b = torch.cat([picture(64, 64, seed) for seed in (2, 3)])
    found = ReconstructionLoss(a, settings, measure)(2 * b - 1)
    torch.testing.assert_close(found["perceptual"], 3 * measure(b, a), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found["pixel"], 4 * (a - b).abs().mean((1, 2, 3)))
    assert set(found) == {"perceptual", "pixel"}


def test_a_picture_without_any_feature_has_a_finite_slope(weights):
    dark = {key: -tensor.abs() for key, tensor in weights["alexnet"].items()}
    measure = Lpips("alexnet", device="cpu", tensors=dark)
    white = torch.ones(1, 3, 64, 64, requires_grad=True)
    ReconstructionLoss(torch.rand(1, 3, 64, 64), PLAIN, measure)(white)["perceptual"].sum().backward()
    assert white.grad is not None
    assert bool(white.grad.isfinite().all())


# ------------------------------------------------------------------------------------- ends and refusals


def test_a_loss_that_is_no_number_is_said(generator, lpips, mean):
    _, pictures = drawn_pictures(generator, 1)
    settings = PLAIN.changed(learning_rate=1e30)
    with refused(OptimizationError, match=r"no number at step \d+: lower the learning"):
        invert(pictures, generator, start=mean, settings=settings, lpips=lpips, progress=False)


def test_the_rate_rises_and_falls():
    factors = [AS_RELEASED.factor(number, 100) for number in range(100)]
    assert min(factors) > 0
    assert factors[0] == pytest.approx(0.2)
    assert factors[4:75] == [pytest.approx(1)] * 71
    assert factors[75:] == sorted(factors[75:], reverse=True)
    assert factors[-1] < 0.01
    assert PLAIN.changed(warmup_fraction=0.0, anneal_fraction=0.0).factor(99, 100) == 1


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (torch.zeros(3, 64, 64), r"\(N, 3, H, W\)"),
        (torch.zeros(1, 3, 64, 32), "A portrait is square, not 32×64"),
        (torch.full((1, 3, 64, 64), math.nan), "not numbers"),
    ],
)
def test_what_is_no_portrait_is_refused(generator, pictures, words):
    with refused(ImageError, match=words):
        invert(pictures, generator)


def test_an_encoder_sees_pictures_of_its_own_size_and_a_descent_begins_there(generator, monkeypatch):
    torch.manual_seed(0)
    encoder = FaceEncoder(8, width=16).eval()
    pictures = torch.rand(2, 3, 128, 128)
    codes = encode(pictures, encoder)
    with torch.no_grad():
        torch.testing.assert_close(codes, encoder(2 * pictures - 1))
    assert encode(torch.rand(1, 3, 300, 300), encoder).shape == (1, 8, 512)
    assert course_encoder(FacePrior((8, 8, 8, 8)))(torch.zeros(1, 3, 128, 128)).shape == (1, 12, 512)
    with refused(SettingError, match="is for its own generator: give this one's"):
        course_encoder(generator)

    only_pixels = PLAIN.changed(perceptual_weight=0.0)
    monkeypatch.setattr(inversion, "invert", partial(invert, settings=only_pixels))
    read = lambda portraits: torch.full((len(portraits), 8, 512), 0.1)  # noqa: E731
    start, found = (find_codes(pictures, generator, read, steps=steps) for steps in (0, 2))
    torch.testing.assert_close(start, read(pictures))
    small = resize(pictures, (32, 32))
    expected = invert(small, generator, start=start, steps=2, settings=only_pixels, progress=False)
    torch.testing.assert_close(found, expected.codes)
    assert not torch.equal(found, start)


def test_a_start_that_does_not_fit_is_refused(generator, lpips):
    pictures = torch.rand(2, 3, 32, 32)
    with refused(SettingError, match=r"not \(2, 5, 512\)"):
        invert(pictures, generator, start=torch.zeros(2, 5, 512), settings=PLAIN, lpips=lpips)
    with pytest.raises(SettingError, match="no mean to begin with"):
        invert(pictures, generator, settings=PLAIN.changed(space="z"), lpips=lpips)
