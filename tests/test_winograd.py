"""Winograd's convolution: the plain one's numbers, and the plain one wherever it is not for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import randn
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib.nets import winograd
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.vgg import LayeredNet


@pytest.fixture
def always(monkeypatch):
    """Winograd's way for the smallest pictures too."""
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "VALUES", 1)


@pytest.fixture
def plain_calls(monkeypatch) -> list[int]:
    calls: list[int] = []

    def counted(*arguments, **settings):
        calls.append(1)
        return conv2d(*arguments, **settings)

    conv2d = F.conv2d
    monkeypatch.setattr(F, "conv2d", counted)
    return calls


@given(
    number=st.integers(1, 3),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_its_numbers_are_the_plain_ones(number, inputs, outputs, height, width, seed):
    x = randn(number, inputs, height, width, seed=seed)
    weight, bias = randn(outputs, inputs, 3, 3, seed=seed + 1), randn(outputs, seed=seed + 2)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "CHANNELS", 1)
        patch.setattr(winograd, "VALUES", 1)
        patch.setattr(F, "conv2d", None)  # or the plain one is held to itself
        found = winograd.conv3x3(x, weight, bias)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (randn(1, 2, 8, 8).double(), randn(3, 2, 3, 3).double()),
        (randn(1, 2, 8, 8).bfloat16(), randn(3, 2, 3, 3).bfloat16()),
        (randn(1, 2, 8, 8), randn(3, 2, 3, 3).requires_grad_()),
        (randn(0, 2, 8, 8), randn(3, 2, 3, 3)),
    ],
    ids=["float64", "bfloat16", "filters learn", "no picture"],
)
def test_elsewhere_it_is_the_plain_convolution(always, plain_calls, x, weight):
    found = winograd.conv3x3(x, weight)
    assert plain_calls
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=1))


def test_a_border_that_is_there_already_has_the_plain_gradient(always, plain_calls):
    x, weight = randn(1, 2, 10, 10).requires_grad_(), randn(3, 2, 3, 3)
    torch.testing.assert_close(winograd.conv3x3(x, weight, padding=0), F.conv2d(x, weight))
    assert len(plain_calls) == 2


def derivatives(conv, x, weight, bias):
    """The result, the gradient of a loss of it, and the Hessian times a vector."""
    x = x.clone().requires_grad_()
    y = conv(x, weight, bias, padding=1)
    (gradient,) = torch.autograd.grad(y.sin().square().mean(), x, create_graph=True)
    (product,) = torch.autograd.grad(gradient, x, x.detach().cos())
    return y.detach(), gradient.detach(), product


@pytest.mark.parametrize(("height", "width"), [(32, 36), (33, 47)])
def test_derivatives_of_both_orders_come_the_same_way(plain_calls, height, width):
    x, weight, bias = randn(2, 128, height, width), randn(160, 128, 3, 3, seed=1) / 34, randn(160, seed=2)
    expected = derivatives(F.conv2d, x.double(), weight.double(), bias.double())
    plain_calls.clear()
    found = derivatives(winograd.conv3x3, x, weight, bias)
    assert not plain_calls
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5


def held(x, weight):
    """The picture and its gradient are the plain ones with the filters as they are now."""
    for found, expected in zip(
        derivatives(winograd.conv3x3, x, weight, None), derivatives(F.conv2d, x, weight, None), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


def test_filters_that_change_are_seen(always):
    x, weight = randn(1, 2, 9, 7), randn(3, 2, 3, 3, seed=1)
    held(x, weight)
    weight.mul_(-2)
    held(x, weight)
    weight.data = randn(3, 2, 3, 3, seed=2)
    held(x, weight)
    layer = torch.nn.Conv2d(2, 3, 3).requires_grad_(False)
    held(x, layer.weight)
    layer.load_state_dict({"weight": randn(3, 2, 3, 3, seed=3), "bias": randn(3)})
    held(x, layer.weight)
    with torch.inference_mode():  # whose tensors count no changes
        weight = randn(3, 2, 3, 3, seed=4)
        for _ in range(2):
            torch.testing.assert_close(
                winograd.conv3x3(x, weight), F.conv2d(x, weight, padding=1), rtol=0, atol=2e-4
            )
            weight.mul_(-1)


@pytest.mark.parametrize(("precision", "quick"), [("auto", True), ("float32", False)])
def test_who_asks_for_float32_gets_all_its_decimals(monkeypatch, precision, quick):
    """Metrics do; what optimizes or shows a picture takes the quick way where the processor has no better."""
    monkeypatch.setattr("nstlib.nets.features.resolve_precision", lambda *_: torch.float32)
    calls, way = [], winograd._convolve
    monkeypatch.setattr(winograd, "_convolve", lambda *a: calls.append(1) or way(*a))
    torch.manual_seed(0)
    weights = LayeredNet("vgg16", ["conv2_2"]).state_dict()
    x = randn(1, 3, 64, 64).sigmoid().requires_grad_()
    found = FeatureExtractor("vgg16", ["conv2_2"], precision=precision, device="cpu", tensors=weights)(x)
    torch.autograd.grad(found["conv2_2"].mean(), x)
    assert len(calls) == 2 * quick  # forward and back
