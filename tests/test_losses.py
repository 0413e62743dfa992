"""Gram matrices and losses against their definitions, and the scales of the field against each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib.errors import SettingError
from nstlib.losses import (
    GRAM_DIVISORS,
    STYLE_NORMALIZATIONS,
    _Gram,
    content_loss,
    gram_distance,
    gram_matrix,
    style_loss,
    style_normalization,
    total_variation,
)

SHAPES = [(1, 3, 4, 5), (2, 5, 7, 2), (3, 1, 6, 6), (1, 8, 1, 1), (2, 16, 3, 1)]
shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 8), st.integers(1, 8))


def random(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain_gram(features):
    """The definition, through autograd's own backward pass."""
    return torch.einsum("nihw,njhw->nij", features, features)


# --------------------------------------------------------------------------------------------- Gram matrix


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("divisor", GRAM_DIVISORS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gram_is_its_definition(shape, divisor, layout):
    features = random(shape).contiguous(memory_format=layout)
    n, c, h, w = shape
    by = {"none": 1, "hw": h * w, "chw": c * h * w}[divisor]
    gram = gram_matrix(features, divisor)
    assert gram.shape == (n, c, c)
    torch.testing.assert_close(gram, plain_gram(features) / by)


def test_gram_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels, two positions
    assert gram_matrix(features, "none").tolist() == [[[5.0, 1.0], [1.0, 10.0]]]
    assert gram_matrix(features, "hw").tolist() == [[[2.5, 0.5], [0.5, 5.0]]]
    assert gram_matrix(features).tolist() == [[[2.5, 0.5], [0.5, 5.0]]]
    assert gram_matrix(features, "chw").tolist() == [[[1.25, 0.25], [0.25, 2.5]]]


@pytest.mark.parametrize(
    ("given_dtype", "expected"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float16, torch.float32),
     (torch.float64, torch.float64)],
)  # fmt: skip
def test_gram_is_summed_in_float32_at_least(given_dtype, expected):
    features = random((1, 4, 64, 64)).abs().to(given_dtype)  # about 4096 a entry: bfloat16 would lose 16s
    gram = gram_matrix(features, "none")
    assert gram.dtype == expected
    torch.testing.assert_close(gram.double(), plain_gram(features.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (1, 1, 3, 4, 5)])
def test_gram_of_no_feature_map_is_one_sentence(shape):
    with pytest.raises(SettingError, match=r"A feature map has the shape \(N, C, H, W\), not \(") as caught:
        gram_matrix(torch.zeros(shape))
    assert str(tuple(shape)) in str(caught.value)


@pytest.mark.parametrize("divisor", ["", "HW", "c", "sum"])
def test_an_unknown_divisor_is_one_sentence(divisor):
    with pytest.raises(SettingError, match=rf"divided by one of none, hw, chw, not '{divisor}'"):
        gram_matrix(torch.zeros(1, 2, 2, 2), divisor)


@settings(deadline=None, max_examples=50)
@given(shape=shapes, seed=st.integers(0, 2**31))
def test_gram_does_not_see_places(shape, seed):
    features = random(shape, seed)
    n, c, h, w = shape
    order = torch.randperm(h * w, generator=torch.Generator().manual_seed(seed))
    shuffled = features.flatten(2)[..., order].reshape(n, c, h, w)
    torch.testing.assert_close(gram_matrix(shuffled), gram_matrix(features))
    torch.testing.assert_close(gram_matrix(features.transpose(2, 3)), gram_matrix(features))


@settings(deadline=None, max_examples=50)
@given(shape=shapes, seed=st.integers(0, 2**31))
def test_gram_is_symmetric_and_positive_semidefinite(shape, seed):
    gram = gram_matrix(random(shape, seed), "none")
    torch.testing.assert_close(gram, gram.transpose(1, 2), rtol=1e-12, atol=1e-12)
    eigenvalues = torch.linalg.eigvalsh(gram)
    assert eigenvalues.min() > -1e-9 * max(eigenvalues.max().item(), 1)
    torch.testing.assert_close(eigenvalues.sum(1), random(shape, seed).square().sum((1, 2, 3)))


@settings(deadline=None, max_examples=25)
@given(shape=shapes, seed=st.integers(0, 2**31))
def test_gram_by_hw_is_the_same_for_a_picture_beside_itself(shape, seed):
    features = random(shape, seed)
    doubled = torch.cat([features, features], 3)
    torch.testing.assert_close(gram_matrix(doubled, "hw"), gram_matrix(features, "hw"))
    torch.testing.assert_close(gram_matrix(doubled, "none"), 2 * gram_matrix(features, "none"))


# ------------------------------------------------------------------------------- the backward pass of our own


@pytest.mark.parametrize("shape", [(1, 3, 2, 4), (2, 2, 3, 1), (1, 1, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_first_and_second_derivatives_numerically(shape, layout):
    features = random(shape).contiguous(memory_format=layout).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda f: gram_matrix(f, "hw"), features)
    assert torch.autograd.gradgradcheck(lambda f: gram_matrix(f, "none"), features)


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_is_autograds(shape):
    features = random(shape).requires_grad_(True)
    # Not symmetric, so that a backward pass that forgets one half is found.
    upstream = random((shape[0], shape[1], shape[1]), seed=1)
    (ours,) = torch.autograd.grad((_Gram.apply(features) * upstream).sum(), features)
    (theirs,) = torch.autograd.grad((plain_gram(features) * upstream).sum(), features)
    torch.testing.assert_close(ours, theirs)
    assert ours.shape == features.shape


def test_second_derivatives_are_autograds():
    features, target, direction = (random((2, 4, 3, 3), seed) for seed in range(3))
    target = plain_gram(target)

    def hessian_vector(gram):
        f = features.clone().requires_grad_(True)
        (first,) = torch.autograd.grad((gram(f) - target).square().sum(), f, create_graph=True)
        return torch.autograd.grad((first * direction).sum(), f)[0]

    ours = hessian_vector(lambda f: gram_matrix(f, "none"))
    torch.testing.assert_close(ours, hessian_vector(plain_gram))
    assert ours.abs().max() > 1


def test_the_gradient_of_bfloat16_features_is_bfloat16_and_close():
    wide = random((1, 6, 9, 8)).to(torch.bfloat16).float().requires_grad_(True)
    short = wide.detach().to(torch.bfloat16).requires_grad_(True)
    for features in (wide, short):
        gram_matrix(features).square().sum().backward()
    assert short.grad.dtype == torch.bfloat16
    assert ((short.grad.float() - wide.grad).norm() / wide.grad.norm()) < 1e-2


def test_no_gradient_is_kept_where_none_is_asked_for():
    assert not gram_matrix(random((1, 2, 3, 3))).requires_grad
    with torch.no_grad():
        assert not gram_matrix(random((1, 2, 3, 3)).requires_grad_(True)).requires_grad


# ---------------------------------------------------------------------------------------- the field's scales


def loss_and_gradient(name, features, style, weight=1.0):
    features = features.clone().requires_grad_(True)
    target = gram_matrix(style, style_normalization(name).divisor)
    loss = weight * style_loss(features, target, name)
    (gradient,) = torch.autograd.grad(loss, features)
    return loss.detach(), gradient


def published(name, features, style):
    """Each source's formula, written out as it is printed or released."""
    _, c, h, w = features.shape
    channels, positions = c, h * w
    raw, target_raw = plain_gram(features), plain_gram(style)
    target_positions = style.shape[2] * style.shape[3]
    if name == "as_printed":
        return (raw - target_raw).square().sum()
    if name == "gatys_paper":
        assert positions == target_positions  # the formula has one M
        return (raw - target_raw).square().sum() / (4 * channels**2 * positions**2)
    if name == "gatys_notebook":
        return torch.nn.functional.mse_loss(raw / positions, target_raw / target_positions)
    if name == "neural_style_pt":
        return torch.nn.functional.mse_loss(raw / raw.new_tensor(c * h * w), target_raw / style[0].numel())
    if name == "gordicaleksa":
        return (raw / (c * h * w) - target_raw / style[0].numel()).square().sum()
    raise AssertionError(name)


@pytest.mark.parametrize("name", STYLE_NORMALIZATIONS)
def test_each_normalization_is_its_published_formula(name):
    features, style = random((1, 5, 6, 4), 1), random((1, 5, 6, 4), 2)
    ours, _ = loss_and_gradient(name, features, style)
    torch.testing.assert_close(ours, published(name, features, style))


@pytest.mark.parametrize("name", ["as_printed", "gatys_notebook", "neural_style_pt", "gordicaleksa"])
def test_the_style_picture_may_have_another_size(name):
    features, style = random((1, 5, 6, 4), 1), random((1, 5, 3, 9), 2)
    ours, _ = loss_and_gradient(name, features, style)
    torch.testing.assert_close(ours, published(name, features, style))


# What a style weight of one source has to be multiplied by to mean the same in "as_printed": with C channels
# and M positions, each loss is this factor times the plain sum of squares.
FACTORS = {
    "as_printed": lambda c, m: 1.0,
    "gatys_paper": lambda c, m: 1 / (4 * c**2 * m**2),
    "gatys_notebook": lambda c, m: 1 / (c**2 * m**2),
    "neural_style_pt": lambda c, m: 1 / (c**4 * m**2),
    "gordicaleksa": lambda c, m: 1 / (c**2 * m**2),
}


def test_every_normalization_has_its_conversion():
    assert set(FACTORS) == set(STYLE_NORMALIZATIONS)


@settings(deadline=None, max_examples=30)
@given(
    pair=st.tuples(st.sampled_from(sorted(FACTORS)), st.sampled_from(sorted(FACTORS))),
    c=st.integers(1, 8),
    h=st.integers(1, 7),
    w=st.integers(1, 7),
)
def test_a_converted_weight_gives_the_same_gradient(pair, c, h, w):
    first, second = pair
    features, style = random((1, c, h, w), 3), random((1, c, h, w), 4)
    weight = 7.0
    converted = weight * FACTORS[first](c, h * w) / FACTORS[second](c, h * w)
    loss, gradient = loss_and_gradient(first, features, style, weight)
    same_loss, same_gradient = loss_and_gradient(second, features, style, converted)
    torch.testing.assert_close(same_loss, loss, rtol=1e-5, atol=0)
    assert (same_gradient - gradient).norm() <= 1e-5 * gradient.norm()


def test_gatys_two_scales_differ_by_four():
    features, style = random((2, 4, 5, 5), 1), random((2, 4, 5, 5), 2)
    notebook, _ = loss_and_gradient("gatys_notebook", features, style)
    paper, _ = loss_and_gradient("gatys_paper", features, style)
    torch.testing.assert_close(notebook, 4 * paper)


def test_an_unknown_normalization_is_one_sentence():
    with pytest.raises(
        SettingError, match=r"no style normalization 'gatys': choose one of as_printed, gatys_pa"
    ):
        style_normalization("gatys")
    with pytest.raises(SettingError, match="no style normalization 'relative'"):
        style_loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2), "relative")


@pytest.mark.parametrize(("reduction", "expected"), [("sum", 15.0), ("mean", 3.75), ("quarter_mean", 0.9375)])
def test_gram_distance(reduction, expected):
    a, b = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    a[0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # squares: 30 in one of two matrices
    assert gram_distance(a, b, reduction).item() == pytest.approx(expected)
    assert gram_distance(b, a, reduction).item() == pytest.approx(expected)
    assert gram_distance(a, a, reduction).item() == 0


def test_one_style_for_a_batch():
    features, style = random((3, 4, 5, 5)), random((1, 4, 6, 6), 1)
    target = gram_matrix(style)
    together = style_loss(features, target)
    alone = torch.stack([style_loss(features[i : i + 1], target) for i in range(3)])
    torch.testing.assert_close(together, alone.mean())
    sums = torch.stack([style_loss(features[i : i + 1], target, "as_printed") for i in range(3)])
    torch.testing.assert_close(style_loss(features, target, "as_printed"), sums.mean())


def test_an_unknown_reduction_is_one_sentence():
    with pytest.raises(SettingError, match=r"'sum', 'mean' or 'quarter_mean', not 'max'"):
        gram_distance(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), "max")


# -------------------------------------------------------------------------------------------- content, pixels


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 30 / 8), ("sum", 30.0), ("half_sum", 15.0)])
def test_content_loss(reduction, expected):
    a, b = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    a[0, 0] = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    assert content_loss(a, b, reduction).item() == pytest.approx(expected)
    assert content_loss(b, a, reduction).item() == pytest.approx(expected)
    assert content_loss(a, a, reduction).item() == 0
    if reduction == "mean":
        assert content_loss(a, b).item() == pytest.approx(expected)  # the default


def test_content_loss_sees_places():
    a = random((1, 2, 3, 4))
    assert content_loss(a.flip(3), a) > 0.1


def test_content_loss_of_bfloat16_is_computed_in_float32():
    a, b = random((1, 8, 64, 64), 1, torch.bfloat16), random((1, 8, 64, 64), 2, torch.bfloat16)
    loss = content_loss(a, b, "sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((a.double() - b.double()).square().sum().item(), rel=1e-5)
    assert content_loss(a.double(), b.double()).dtype == torch.float64


def test_content_of_another_size_is_one_sentence():
    with pytest.raises(
        SettingError, match=r"\(1, 2, 3, 4\) and \(1, 2, 4, 3\); give both pictures the same size"
    ):
        content_loss(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4, 3))
    with pytest.raises(SettingError, match="same size"):  # would broadcast silently
        content_loss(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 1, 1))
    with pytest.raises(SettingError, match=r"'mean', 'sum' or 'half_sum', not 'quarter_mean'"):
        content_loss(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), "quarter_mean")


def test_total_variation_known_values():
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 3, 5, 4)
    assert total_variation(stripes).item() == pytest.approx(1)  # across 1 everywhere, down 0
    assert total_variation(stripes.transpose(2, 3)).item() == pytest.approx(1)
    ramp = torch.linspace(0, 1, 5).view(1, 1, 1, 5).expand(2, 3, 4, 5)
    assert total_variation(ramp).item() == pytest.approx(0.25)
    board = (torch.arange(6).view(6, 1) + torch.arange(6)).remainder(2).float().expand(1, 3, 6, 6)
    assert total_variation(board).item() == pytest.approx(2)


@pytest.mark.parametrize("shape", [(1, 3, 6, 5), (1, 3, 1, 1), (2, 3, 1, 4), (1, 3, 4, 1)])
def test_a_flat_picture_has_no_variation(shape):
    flat = torch.full(shape, 0.7, requires_grad=True)
    variation = total_variation(flat)
    assert variation.ndim == 0
    assert variation.item() == 0


@pytest.mark.parametrize("shape", [(1, 3, 1, 4), (1, 3, 4, 1)])
def test_a_side_of_one_pixel_counts_nothing(shape):
    steps = torch.tensor([0.0, 0.5, 1.0, 0.0]).view(*[4 if side == 4 else 1 for side in shape]).expand(shape)
    steps = steps.clone().requires_grad_(True)
    variation = total_variation(steps)
    assert variation.item() == pytest.approx(2 / 3)
    variation.backward()
    assert torch.isfinite(steps.grad).all()
    assert steps.grad.abs().sum() > 0


def test_variation_of_noise_exceeds_that_of_its_blur():
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert total_variation(noise) > 2 * total_variation(torch.nn.functional.avg_pool2d(noise, 4, 1))
    assert math.isclose(total_variation(noise).item(), total_variation(noise.flip(2, 3)).item(), rel_tol=1e-6)
