"""The objective of Gatys' method: its terms, its masks and blends, what it counts, and its derivatives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gatys_helpers import SHALLOW, left, shallow_net
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from nstlib.errors import NstError, SettingError
from nstlib.losses import (
    STYLE_NORMALIZATIONS,
    content_loss,
    feature_moments,
    gaussian_style,
    gram_matrix,
    style_loss,
    style_normalization,
    wasserstein2,
)
from nstlib.methods.gatys import PLAIN, Anchor, Guide, Objective, stylize

pytestmark = pytest.mark.usefixtures("one_thread")  # some compare bits

PIXEL = PLAIN.changed(style_layers=("relu1_1",))
DISTANCES = ("gram", "wasserstein2")


class Pixels:
    """In place of a network: the pixels themselves are the features, one pixel a position."""

    device = torch.device("cpu")

    def __call__(self, image):
        return {"relu1_1": image, "relu4_2": image}


@pytest.fixture(scope="module")
def precise(weights):
    """The same network in float64, with average pooling: smooth but for the ReLUs."""
    return shallow_net(weights["vgg16"], "float64", pooling="average")


def value(objective, image):
    with torch.no_grad():
        return {name: term.item() for name, term in objective(image).items()}


# ------------------------------------------------------------------------------------------- scales of terms


@pytest.mark.parametrize("name", STYLE_NORMALIZATIONS)
def test_published_scales_are_the_losses_of_the_library(net, picture, name):
    content, style, image = picture(12, 14, 1), picture(10, 9, 2), picture(12, 14, 3)
    settings = replace(
        SHALLOW, style_normalization=name, layer_weights=(0.3, 2.0), content_weight=5.0, style_weight=7.0
    )
    with torch.no_grad():
        terms = Objective(net, content, style, settings)(image)
        now, aim, look = net(image), net(content), net(style)
        divisor = style_normalization(name).divisor
        layers = {
            layer: style_loss(now[layer], gram_matrix(look[layer], divisor), name)
            for layer in settings.style_layers
        }
        c = content_loss(now["relu1_2"], aim["relu1_2"])
        s = 0.3 * layers["relu1_1"] + 2.0 * layers["relu2_1"]
    torch.testing.assert_close(terms["content"], c)
    torch.testing.assert_close(terms["style"], s)
    torch.testing.assert_close(terms["total"], 5 * c + 7 * s)
    for layer, expected in layers.items():
        torch.testing.assert_close(terms[f"style/{layer}"], expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_relative_terms_are_one_for_an_empty_feature_map(picture, distance):
    objective = Objective(
        Pixels(), picture(6, 8, 1), picture(5, 9, 2), replace(PIXEL, style_distance=distance)
    )
    terms = objective(torch.zeros(1, 3, 6, 8))
    assert terms["content"].item() == pytest.approx(1)
    assert terms["style"].item() == pytest.approx(1, rel=1e-3)  # the ridge of wasserstein2
    assert terms["style/relu1_1"].item() == pytest.approx(1, rel=1e-3)
    assert terms["total"].item() == pytest.approx(1 + PLAIN.style_weight, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "share", "reduced"),
    [
        ({}, 0.5, lambda term, size: term / size),  # a mean over the layers, relative in each
        ({"style_normalization": "as_printed", "content_reduction": "sum"}, 1.0, lambda term, size: term),
    ],
    ids=["mean", "sum"],
)
def test_content_layers_share_the_content_weight(net, picture, changes, share, reduced):
    content, image = picture(12, 12, 1), picture(12, 12, 3)
    both = replace(SHALLOW, content_layers=("relu1_1", "relu1_2"), **changes)
    together = value(Objective(net, content, None, both), image)["content"]
    with torch.no_grad():
        now, aim = net(image), net(content)
        apart = [
            reduced((now[name] - aim[name]).square().sum(), aim[name].square().sum()).item()
            for name in both.content_layers
        ]
    assert together == pytest.approx(share * sum(apart), rel=1e-5)


# -------------------------------------------------------------------------------------------- wasserstein


def test_the_wasserstein_term_is_the_librarys(net, picture):
    style, image = picture(14, 15, 2), picture(12, 14, 3)
    settings = replace(SHALLOW, style_distance="wasserstein2")
    terms = value(Objective(net, None, style, settings), image)
    with torch.no_grad():
        now, look = net(image), net(style)
        for name in settings.style_layers:
            distance = wasserstein2(feature_moments(now[name]), gaussian_style(feature_moments(look[name])))
            size = look[name].square().sum(1).mean()  # E|F|²
            assert terms[f"style/{name}"] == pytest.approx((distance / size).item(), rel=0.02)  # float32 here


# -------------------------------------------------------------------------------------------------- blends


@pytest.mark.parametrize("distance", DISTANCES)
def test_shares_are_of_the_whole_and_none_means_alike(net, picture, distance):
    content, styles, image = picture(12, 12, 1), (picture(9, 9, 2), picture(13, 7, 4)), picture(12, 12, 3)
    settings = replace(SHALLOW, style_distance=distance)

    def at(style):
        return value(Objective(net, content, style, settings), image)

    assert at([Guide(styles, (1.0, 3.0))]) == pytest.approx(at([Guide(styles, (0.25, 0.75))]), rel=1e-5)
    assert at([Guide(styles)]) == at([Guide(styles, (7.0, 7.0))]) == at(list(styles))
    assert at([Guide(styles, (1.0, 0.0))]) == pytest.approx(at(styles[0]), rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_blend_aims_at_the_average_gram_matrix(picture, distance):
    # Pixels as features: of the blend a quarter of the pixels are one's, and the others the other's.
    one, other = picture(6, 5, 2), picture(6, 5, 4)
    settings = replace(PIXEL, style_distance=distance)
    shared = Objective(Pixels(), None, [Guide((one, other), (1.0, 3.0))], settings)
    assert value(shared, torch.cat([one, other, other, other], 3))["style"] < 1e-6
    assert value(shared, torch.cat([one, other], 3))["style"] > 1e-5


# --------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("distance", DISTANCES)
def test_masks_of_ones_change_nothing(net, picture, distance):
    content, style, image = picture(13, 11, 1), picture(10, 15, 2), picture(13, 11, 3)
    settings = replace(SHALLOW, style_distance=distance)
    plain = Objective(net, content, style, settings)
    masked = Objective(net, content, [Guide((style,), mask=torch.ones(1, 1, 13, 11))], settings)
    assert value(masked, image) == pytest.approx(value(plain, image), rel=1e-4)
    slope = plain.gradient(image)[1]
    # Roots of next to nothing, where positions are fewer than channels, make much of float32's rounding.
    assert (masked.gradient(image)[1] - slope).norm() < 1e-2 * slope.norm()


@pytest.mark.parametrize("distance", DISTANCES)
def test_only_the_region_is_compared(picture, distance):
    # The left half is the one painting, the right half the other: nothing is left to do.
    one, other = picture(6, 5, 2), picture(6, 4, 4)
    image = torch.cat([one, other], 3)
    settings = replace(PIXEL, style_distance=distance, content_weight=0.0)
    mask = left(6, 9, 5)
    guides = [Guide((one,), mask=mask), Guide((other,), mask=1 - mask)]
    assert value(Objective(Pixels(), image, guides, settings), image)["style"] < 1e-6
    crossed = [Guide((other,), mask=mask), Guide((one,), mask=1 - mask)]
    assert value(Objective(Pixels(), image, crossed, settings), image)["style"] > 1e-3


@pytest.mark.parametrize("distance", DISTANCES)
@examples(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(2, 17), width=st.integers(2, 17))
def test_nothing_outside_the_masks_matters_or_changes(net, picture, distance, seed, height, width):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(1, 1, height, width, generator=generator) < 0.5).float()
    mask[..., 0, 0], mask[..., -1, -1] = 1, 0
    content, image = picture(height, width, 1), picture(height, width, 3)
    settings = replace(SHALLOW, style_distance=distance, tv_weight=0.2)
    objective = Objective(net, content, [Guide((picture(9, 8, 2),), mask=mask)], settings)
    outside = (mask == 0).expand_as(content)
    assert torch.equal(objective.canvas(image)[outside], content[outside])
    torch.testing.assert_close(objective.canvas(image)[~outside], image[~outside])
    terms, gradient = objective.gradient(image)
    assert not gradient[outside].any()
    assert gradient[~outside].any()
    disturbed = torch.where(outside, torch.rand(image.shape, generator=generator), image)
    # Sums of several threads differ in the last bit, and float32 eigenvalues in the fourth digit.
    assert value(objective, disturbed) == pytest.approx(terms, rel=1e-3)


def test_a_soft_mask_mixes_picture_and_content(net, picture):
    content, image = picture(8, 9, 1), picture(8, 9, 3)
    guides = [Guide((picture(8, 8, 2),), mask=torch.full((1, 1, 8, 9), share)) for share in (0.25, 0.5)]
    one, both = (Objective(net, content, guides[:count], SHALLOW) for count in (1, 2))
    torch.testing.assert_close(one.canvas(image), 0.75 * content + 0.25 * image)
    torch.testing.assert_close(both.canvas(image), 0.25 * content + 0.75 * image)
    full = [replace(guide, mask=torch.ones(1, 1, 8, 9)) for guide in guides]
    torch.testing.assert_close(Objective(net, content, full, SHALLOW).canvas(image), image)


def test_one_guide_without_a_mask_frees_the_whole_picture(net, picture):
    content, image = picture(8, 9, 1), picture(8, 9, 3)
    guides = [Guide((picture(8, 8, 2),), mask=left(8, 9, 3)), Guide((picture(8, 8, 4),))]
    objective = Objective(net, content, guides, SHALLOW)
    assert torch.equal(objective.canvas(image), image)
    assert (objective.gradient(image)[1] != 0).float().mean() > 0.9


def test_a_result_keeps_the_content_outside_the_masks_to_the_bit(net, picture):
    content = picture(33, 40, 1)
    mask = left(33, 40, 17)
    for changes in ({}, {"smallest": 16}, {"averaging": 0.5}, {"tile": 64}, {"optimizer": "langevin"}):
        result = stylize(
            content, [Guide((picture(18, 15, 2),), mask=mask)], SHALLOW, extractor=net, progress=False,
            **changes,
        )  # fmt: skip
        assert torch.equal(result.image[..., 17:], content[..., 17:])
        assert (result.image[..., :17] - content[..., :17]).abs().mean() > 0.01


# -------------------------------------------------------------------------------------------------- anchor


def test_an_anchor_holds_the_picture_where_it_is_trusted(net, picture):
    content, held, image = picture(8, 9, 1), picture(8, 9, 5), picture(8, 9, 3)
    mask = left(8, 9, 4)
    settings = replace(SHALLOW, temporal_weight=40.0)
    free = Objective(net, content, picture(9, 9, 2), settings)
    anchored = Objective(net, content, picture(9, 9, 2), settings, anchor=Anchor(held, mask))
    terms, gradient = anchored.gradient(image)
    expected = (mask * (image - held).square()).mean().item()
    assert terms["temporal"] == pytest.approx(expected, rel=1e-5)
    assert "temporal" not in value(free, image)
    assert terms["total"] == pytest.approx(value(free, image)["total"] + 40 * expected, rel=1e-5)
    extra = gradient - free.gradient(image)[1]
    torch.testing.assert_close(extra, 40 * 2 * mask * (image - held) / image.numel(), rtol=1e-3, atol=1e-6)


# ------------------------------------------------------------------------------------ counts and derivatives


def test_questions_are_counted(net, picture):
    objective = Objective(net, picture(8, 8, 1), picture(8, 8, 2), SHALLOW)
    image = picture(8, 8, 3)
    assert objective.evaluations == 0
    objective.value(image)
    objective.value(image)
    objective.gradient(image)
    objective.hessian_vector(image, image)
    assert objective.evaluations == 2 * 0.5 + 1 + 3


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_is_that_of_finite_differences(precise, picture, distance, masked):
    content, image = picture(10, 9, 1).double(), picture(10, 9, 3).double()
    mask = 0.8 * left(10, 9, 6) if masked else None
    settings = replace(SHALLOW, style_distance=distance, pooling="average")
    objective = Objective(precise, content, [Guide((picture(20, 20, 2),), mask=mask)], settings)
    way = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, gradient = objective.gradient(image)
    step = 1e-5
    ahead, behind = (objective.value(image + sign * step * way)["total"] for sign in (1, -1))
    assert (gradient * way).sum().item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-4)


def test_a_hessian_product_is_the_gradients_change(precise, picture):
    content, image = picture(10, 9, 1).double(), picture(10, 9, 3).double()
    guides = [Guide((picture(9, 12, 2),), mask=0.8 * left(10, 9, 6))]
    objective = Objective(precise, content, guides, replace(SHALLOW, pooling="average"))
    way = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = objective.hessian_vector(image, way)
    step = 1e-6
    ahead, behind = (objective.gradient(image + sign * step * way)[1] for sign in (1, -1))
    expected = (ahead - behind) / (2 * step)
    assert (product - expected).norm() < 1e-3 * expected.norm()  # a ReLU or two has its kink on the way


# ------------------------------------------------------------------------------------------------ bad inputs


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shares": (1.0,)}, r"2 styles need as many shares, not all of them 0, unlike \(1\.0,\)"),
        ({"shares": (-1.0, 2.0)}, r"shares should be greater than or equal to 0"),
        ({"mask": torch.full((1, 1, 8, 9), 255.0)}, r"mask of a region has values outside \[0, 1\]"),
    ],
)
def test_a_guide_that_makes_no_sense_is_one_sentence(picture, arguments, sentence):
    with pytest.raises(NstError, match=sentence) as caught:
        Guide(**{"styles": (picture(5, 6, 1), picture(5, 6, 2)), **arguments})
    assert str(caught.value).endswith(".")


def test_an_empty_mask_is_one_sentence(net, picture):
    guide = Guide((picture(5, 6, 2),), mask=torch.zeros(1, 1, 8, 9))
    with pytest.raises(SettingError, match=r"The mask of a region is empty: leave the region out"):
        Objective(net, picture(8, 9, 1), [guide], SHALLOW)


@pytest.mark.parametrize(
    "style", [["painting.jpg"], [torch.zeros(1, 3, 4, 4), Guide((torch.zeros(1, 3, 4, 4),))]]
)
def test_what_is_no_style_is_not_passed_over(net, picture, style):
    with pytest.raises(
        SettingError, match=r"A style is a picture \(1, 3, H, W\), several of them, or several"
    ):
        Objective(net, picture(8, 8), style, SHALLOW)
