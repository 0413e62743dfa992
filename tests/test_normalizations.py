"""A weight converted from one scale of the losses to another leaves the gradient as it was."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib.errors import SettingError
from nstlib.losses import (
    STYLE_ALIASES,
    STYLE_NORMALIZATIONS,
    gram_matrix,
    style_loss,
    style_normalization,
    style_weight_factor,
)

NAMES = [*STYLE_NORMALIZATIONS, *STYLE_ALIASES]
PAIRS = list(itertools.product(NAMES, repeat=2))


def random(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def style_gradient(name, weight, features, style, mask=None):
    features = features.clone().requires_grad_(True)
    target = gram_matrix(style, style_normalization(name).divisor)
    return torch.autograd.grad(weight * style_loss(features, target, name, mask), features)[0]


def relative_difference(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("shape", [(1, 6, 5, 4), (1, 1, 2, 2)])
def test_a_converted_style_weight_gives_the_same_gradient(source, target, shape):
    features, style = random(shape, 1), random(shape, 2)
    factor = style_weight_factor(source, target, shape[1], shape[2] * shape[3])
    expected = style_gradient(source, 7.0, features, style)
    assert relative_difference(style_gradient(target, 7.0 * factor, features, style), expected) < 1e-5


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_without_raw_sums_the_style_may_have_another_size(source, target):
    features, style = random((1, 5, 6, 4), 1), random((1, 5, 3, 9), 2)
    factor = style_weight_factor(source, target, 5, 24)
    expected = style_gradient(source, 7.0, features, style)
    same = relative_difference(style_gradient(target, 7.0 * factor, features, style), expected) < 1e-5
    assert same == ((source == "as_printed") == (target == "as_printed"))  # as the docstring warns


def test_a_mask_counts_by_its_squares():
    features, style, mask = random((1, 5, 6, 4), 1), random((1, 5, 3, 9), 2), random((1, 1, 6, 4), 3).abs()
    factor = style_weight_factor("gatys_paper", "neural_style_pt", 5, mask.square().sum().item())
    expected = style_gradient("gatys_paper", 7.0, features, style, mask)
    ours = style_gradient("neural_style_pt", 7.0 * factor, features, style, mask)
    assert relative_difference(ours, expected) < 1e-5


@settings(deadline=None, max_examples=50)
@given(names=st.tuples(*[st.sampled_from(NAMES)] * 3), c=st.integers(1, 512), m=st.integers(1, 10**6))
def test_style_factors_compose_and_invert(names, c, m):
    a, b, d = names
    through = style_weight_factor(a, b, c, m) * style_weight_factor(b, d, c, m)
    assert style_weight_factor(a, d, c, m) == pytest.approx(through)
    assert style_weight_factor(a, b, c, m) * style_weight_factor(b, a, c, m) == pytest.approx(1)


@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [
        ("gatys_paper", "gatys_notebook", 1 / 4),
        ("gatys_notebook", "gordicaleksa", 1),  # which the formulas do not look like
        ("neural_style_pt", "pytorch_tutorial", 1),
        ("neural_style_pt", "gordicaleksa", 1 / 64**2),  # a mean over 64 x 64 entries
        ("gatys_notebook", "neural_style_pt", 64**2),
        ("gatys_notebook", "as_printed", 1 / (64 * 100) ** 2),
    ],
)
def test_factors_that_can_be_had_by_hand(source, target, factor):
    assert style_weight_factor(source, target, 64, 100) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("order", [1, -1])
def test_what_no_factor_converts_is_one_sentence(order):
    for name, why in (
        ("crowsonkb", "as it is a Wasserstein-2 distance"),
        ("relative", "as it divides by the pa"),
    ):
        with pytest.raises(SettingError, match=rf"^No factor converts weights of '{name}', {why}.*anew\.$"):
            style_weight_factor(*[name, "gatys_paper"][::order], 64, 100)
    with pytest.raises(SettingError, match="no style normalization 'gatys': choose one of as_printed"):
        style_weight_factor(*["gatys", "gatys_paper"][::order], 64, 100)


@pytest.mark.parametrize(
    ("channels", "positions"), [(0, 100), (64, 0), (-1, 100), (64, -5), (64, float("nan"))]
)
def test_a_layer_without_extent_is_one_sentence(channels, positions):
    with pytest.raises(SettingError, match=rf"not {channels} and {positions}: give its C and its H\*W"):
        style_weight_factor("gatys_paper", "as_printed", channels, positions)
