"""Gram matrices and losses against their definitions, and the scales of the field against each other."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib.errors import SettingError
from nstlib.losses import (
    STYLE_NORMALIZATIONS,
    content_loss,
    feature_moments,
    gaussian_style,
    gram_matrix,
    style_loss,
    style_normalization,
    style_weight_factor,
    total_variation,
    wasserstein2,
)

SHAPES = [(1, 3, 4, 5), (2, 5, 7, 2), (3, 1, 6, 6), (1, 8, 1, 1), (2, 16, 3, 1)]


def random(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain_gram(features):
    """The definition, through autograd's own backward pass."""
    return torch.einsum("nihw,njhw->nij", features, features)


# --------------------------------------------------------------------------------------------- Gram matrix


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("divisor", ["none", "hw", "chw"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gram_is_its_definition(shape, divisor, layout):
    features = random(shape).contiguous(memory_format=layout)
    n, c, h, w = shape
    by = {"none": 1, "hw": h * w, "chw": c * h * w}[divisor]
    gram = gram_matrix(features, divisor)
    assert gram.shape == (n, c, c)
    torch.testing.assert_close(gram, plain_gram(features) / by)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gram_is_summed_in_float32_at_least(dtype):
    features = random((1, 4, 64, 64)).abs().to(dtype)  # about 4096 a entry: bfloat16 would lose 16s
    gram = gram_matrix(features, "none")
    assert gram.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(gram.double(), plain_gram(features.double()), rtol=1e-5, atol=0)


def test_gram_of_no_feature_map_is_one_sentence():
    with pytest.raises(SettingError, match=r"A feature map has the shape \(N, C, H, W\), not \(3, 4, 5\)"):
        gram_matrix(torch.zeros(3, 4, 5))
    with pytest.raises(SettingError, match=r"no divisor 'c' \(did .*\): choose one of none, hw, chw"):
        gram_matrix(torch.zeros(1, 3, 4, 5), "c")


# ------------------------------------------------------------------------------- the backward pass of our own


@pytest.mark.parametrize("shape", [(1, 3, 2, 4), (2, 2, 3, 1), (1, 1, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_first_and_second_derivatives_numerically(shape, layout):
    features = random(shape).contiguous(memory_format=layout).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda f: gram_matrix(f, "hw"), features)
    assert torch.autograd.gradgradcheck(lambda f: gram_matrix(f, "none"), features)


# ---------------------------------------------------------------------------------------- the field's scales


# Each source's formula, as it is printed or released, for Gram matrices before any division.
PUBLISHED = {
    "as_printed": lambda gram, aim, c, m: (gram - aim).square().sum(),
    "gatys_paper": lambda gram, aim, c, m: (gram - aim).square().sum() / (4 * c**2 * m**2),
    "gatys_notebook": lambda gram, aim, c, m: F.mse_loss(gram / m, aim / m),
    "neural_style_pt": lambda gram, aim, c, m: F.mse_loss(gram / (c * m), aim / (c * m)),
    "gordicaleksa": lambda gram, aim, c, m: (gram / (c * m) - aim / (c * m)).square().sum(),
}


@pytest.mark.parametrize("name", STYLE_NORMALIZATIONS)
def test_each_normalization_is_its_published_formula(name):
    features, style = random((1, 5, 6, 4), 1), random((1, 5, 6, 4), 2)
    ours = style_loss(features, gram_matrix(style, style_normalization(name).divisor), name)
    torch.testing.assert_close(ours, PUBLISHED[name](plain_gram(features), plain_gram(style), 5, 24))


def test_one_style_for_a_batch():
    features, style = random((3, 4, 5, 5)), random((1, 4, 6, 6), 1)
    target = gram_matrix(style)
    together = style_loss(features, target)
    alone = torch.stack([style_loss(features[i : i + 1], target) for i in range(3)])
    torch.testing.assert_close(together, alone.mean())


# --------------------------------------------------------------------------------------------- masked regions


def soft_mask(n, h, w, seed=5):
    return torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("divisor", ["none", "hw", "chw"])
def test_a_masked_gram_matrix_is_its_definition(divisor):
    features, mask = random((2, 5, 4, 6)), soft_mask(2, 4, 6)
    weight = mask.square().sum((1, 2, 3)).view(2, 1, 1)
    by = {"none": 1, "hw": weight, "chw": 5 * weight}[divisor]
    torch.testing.assert_close(gram_matrix(features, divisor, mask), plain_gram(features * mask) / by)


def test_masked_derivatives_numerically():
    features, mask = random((2, 3, 2, 4)).requires_grad_(True), soft_mask(1, 2, 4)
    assert torch.autograd.gradcheck(lambda f: gram_matrix(f, "hw", mask), features)
    assert torch.autograd.gradgradcheck(lambda f: gram_matrix(f, "chw", mask), features)
    for use in (None, mask):
        assert torch.autograd.gradcheck(lambda f, m=use: feature_moments(f, m), features)
        assert torch.autograd.gradgradcheck(lambda f, m=use: feature_moments(f, m), features)


@pytest.mark.parametrize("measure", [lambda f, m: gram_matrix(f, "none", m), feature_moments])
def test_an_unfit_mask_is_one_sentence(measure):
    features = random((2, 3, 4, 5))
    empty = torch.stack([torch.ones(1, 4, 5), torch.zeros(1, 4, 5)])
    with pytest.raises(SettingError, match=r"^The mask is empty at 4×5: take a larger region, .*layer\.$"):
        measure(features, empty)
    for shape in ((4, 5), (1, 1, 1, 1)):
        with pytest.raises(SettingError, match=r"\(1 or 2, 1, 4, 5\), not \("):
            measure(features, torch.ones(shape))


# ---------------------------------------------------------------------------------------------- Wasserstein-2


def numpy_moments(features):
    rows = features[0].flatten(1).double().numpy()
    return rows.mean(1), np.atleast_2d(np.cov(rows, bias=True))


def scipy_wasserstein2(features, style, ridge=0.0):
    """The formula as it stands, with scipy's matrix root."""
    (m1, c1), (m2, c2) = numpy_moments(features), numpy_moments(style)
    c1, c2 = (c + ridge * np.eye(len(c)) for c in (c1, c2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # singular, and right all the same
        root = scipy.linalg.sqrtm(c2)
        cross = scipy.linalg.sqrtm(root @ c1 @ root)
    return float(((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * cross).real)


def w2(features, style, ridge=1e-5):
    return wasserstein2(feature_moments(features), gaussian_style(feature_moments(style), ridge))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_moments_are_numpys(shape, dtype):
    features = random(shape, dtype=dtype)
    mean, covariance = feature_moments(features)
    assert mean.dtype == covariance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for i in range(shape[0]):
        expected_mean, expected = numpy_moments(features[i : i + 1])
        np.testing.assert_allclose(mean[i], expected_mean, atol=1e-5)
        np.testing.assert_allclose(covariance[i], expected, atol=1e-5)


def test_masked_moments_are_numpys():
    features, mask = random((1, 4, 5, 6)), soft_mask(1, 5, 6)
    weights = mask[0, 0].flatten().square().numpy()
    mean, covariance = feature_moments(features, mask)
    rows = features[0].flatten(1).numpy()
    np.testing.assert_allclose(mean[0], np.average(rows, axis=1, weights=weights))
    np.testing.assert_allclose(covariance[0], np.cov(rows, aweights=weights, ddof=0))
    second = gram_matrix(features, "hw", mask)
    torch.testing.assert_close(covariance + mean.unsqueeze(2) * mean.unsqueeze(1), second)


@settings(deadline=None, max_examples=40)
@given(c=st.integers(1, 12), h=st.integers(1, 6), w=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_wasserstein2_is_scipys(c, h, w, seed):
    """Full rank or not: with one position there is no covariance at all."""
    features, style = random((1, c, h, w), seed), 1.5 * random((1, c, 5, 4), seed + 1) + 0.3
    target = gaussian_style(feature_moments(style))
    ours = wasserstein2(feature_moments(features), target).item()
    assert ours == pytest.approx(scipy_wasserstein2(features, style, target.ridge.item()), rel=1e-6)
    assert ours == pytest.approx(scipy_wasserstein2(features, style), rel=0.01)  # the ridge matters little


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 8, 2, 2), (1, 5, 1, 1), (2, 4, 3, 3)])
def test_the_derivative_of_wasserstein2_numerically(shape):
    """Also with fewer positions than channels, where the plain square root's slope is infinite."""
    features = random(shape).requires_grad_(True)
    style = random((1, *shape[1:]), 1) + 0.2
    # A ridge that finite differences can see across; the formula is the same.
    target = gaussian_style(feature_moments(style), ridge=0.01)
    assert torch.autograd.gradcheck(lambda f: wasserstein2(feature_moments(f), target), features, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 6, 5, 5), (1, 40, 3, 4), (1, 5, 1, 1)])
def test_at_the_style_itself_distance_and_gradient_vanish(dtype, shape):
    features = random(shape, dtype=dtype).requires_grad_(True)
    moments = feature_moments(features)
    loss = wasserstein2(moments, gaussian_style(moments))
    loss.backward()
    scale = moments[1].diagonal(dim1=1, dim2=2).sum().item() or 1.0
    assert abs(loss.item()) < 1e-5 * scale
    assert features.grad.abs().max() < (1e-3 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize(
    ("features", "style"),
    [
        (torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)),  # dead channels on both sides
        (torch.rand(1, 3, 4, 4), torch.ones(1, 3, 2, 2)),
        (torch.ones(1, 3, 2, 2), torch.rand(1, 3, 4, 4)),
        (torch.rand(1, 64, 1, 1), torch.rand(1, 64, 9, 9)),
        (torch.rand(1, 64, 9, 9), torch.rand(1, 64, 1, 1)),
        (1e4 * torch.rand(1, 16, 3, 3), 1e-4 * torch.rand(1, 16, 9, 9)),
    ],
)
def test_where_a_covariance_has_no_width_the_gradient_is_finite(features, style):
    features = features.clone().requires_grad_(True)
    loss = w2(features, style)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()
    assert loss.item() == pytest.approx(scipy_wasserstein2(features.detach(), style), rel=0.02, abs=1e-5)


def test_features_that_are_no_numbers_give_a_distance_that_is_none():
    """No error of the eigenvalue routine: who minimizes looks for NaN and keeps the last good picture."""
    features = torch.full((1, 4, 3, 3), float("nan"), requires_grad=True)
    loss = w2(features, random((1, 4, 5, 5)))
    assert loss.isnan()
    loss.backward()


# -------------------------------------------------------------------------------------------- content, pixels


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 30 / 8), ("sum", 30.0), ("half_sum", 15.0)])
def test_content_loss(reduction, expected):
    a, b = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    a[0, 0] = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    assert content_loss(a, b, reduction).item() == pytest.approx(expected)


def test_content_loss_of_bfloat16_is_computed_in_float32():
    a, b = random((1, 8, 64, 64), 1, torch.bfloat16), random((1, 8, 64, 64), 2, torch.bfloat16)
    loss = content_loss(a, b, "sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((a.double() - b.double()).square().sum().item(), rel=1e-5)


def test_content_of_another_size_is_one_sentence():
    with pytest.raises(
        SettingError, match=r"\(1, 2, 3, 4\) and \(1, 2, 4, 3\); give both pictures the same size"
    ):
        content_loss(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4, 3))


def test_total_variation_known_values():
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 3, 5, 4)
    assert total_variation(stripes).item() == pytest.approx(1)  # across 1 everywhere, down 0
    assert total_variation(stripes.transpose(2, 3)).item() == pytest.approx(1)
    ramp = torch.linspace(0, 1, 5).view(1, 1, 1, 5).expand(2, 3, 4, 5)
    assert total_variation(ramp).item() == pytest.approx(0.25)
    board = (torch.arange(6).view(6, 1) + torch.arange(6)).remainder(2).float().expand(1, 3, 6, 6)
    assert total_variation(board).item() == pytest.approx(2)


# ------------------------------------------------------------------------- weights from one scale to another

PAIRS = list(itertools.product(STYLE_NORMALIZATIONS, repeat=2))


def style_gradient(name, weight, features, style):
    features = features.clone().requires_grad_(True)
    target = gram_matrix(style, style_normalization(name).divisor)
    return torch.autograd.grad(weight * style_loss(features, target, name), features)[0]


def relative_difference(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_converted_style_weight_gives_the_same_gradient(source, target):
    features, style = random((1, 6, 5, 4), 1), random((1, 6, 5, 4), 2)
    factor = style_weight_factor(source, target, 6, 20)
    expected = style_gradient(source, 7.0, features, style)
    assert relative_difference(style_gradient(target, 7.0 * factor, features, style), expected) < 1e-5
