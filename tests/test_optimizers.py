"""The optimizers: each goes down, agrees with a library or the solution, and goes on from a saved state."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from nstlib.methods.gatys import Settings
from nstlib.methods.gatys.optimizers import OPTIMIZERS

SHAPE = (1, 3, 2, 2)  # twelve unknowns
FAMILIES = tuple(OPTIMIZERS)


class Toy:
    """A problem from a scalar function of a picture; ``asked`` lists every question."""

    def __init__(self, function):
        self.function = function
        self.asked = []

    def value(self, x):
        self.asked.append("value")
        return {"total": self.function(x).item()}

    def gradient(self, x):
        self.asked.append("gradient")
        x = x.detach().requires_grad_(True)
        total = self.function(x)
        (gradient,) = torch.autograd.grad(total, x)
        return {"total": total.item()}, gradient

    def hessian_vector(self, x, vector):
        self.asked.append("product")
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.function(x), x, create_graph=True)
        return torch.autograd.grad(gradient, x, vector)[0]


def quadratic(condition=1.0, shape=SHAPE, seed=0, dtype=torch.float32):
    """(x - b)ᵀ A (x - b) / 2 with eigenvalues from 1 to ``condition``, and its solution b."""
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shape)
    turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    matrix = (turn * torch.logspace(0, math.log10(condition), size, dtype=torch.float64)) @ turn.T
    matrix = matrix.to(dtype)
    target = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)

    def function(x):
        off = (x - target).flatten()
        return off @ matrix @ off / 2

    return Toy(function), target, matrix


def rosenbrock(x):
    """A bent valley; the minimum 0 is where every value is 1."""
    x = x.flatten()
    return (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()


def make_optimizer(name, x, iterations=150, seed=0, **changes):
    return OPTIMIZERS[name](x, Settings(**changes), iterations=iterations, seed=seed)


def run(optimizer, problem, steps):
    return [optimizer.step(problem)["total"] for _ in range(steps)]


def rms(x):
    return x.square().mean().sqrt().item()


# ------------------------------------------------------------------------------------------- all families


@pytest.mark.parametrize(
    ("name", "steps", "left"),
    [
        ("gradient_descent", 100, 1e-2),
        ("adam", 200, 1e-3),
        ("lbfgs", 40, 1e-6),
        ("newton_cg", 12, 1e-6),
        ("langevin", 150, 3e-2),
        ("annealing", 600, 5e-2),
    ],
)
def test_a_convex_quadratic_is_minimized(name, steps, left):
    problem, target, _ = quadratic(10.0)
    optimizer = make_optimizer(name, torch.full(SHAPE, 0.5), iterations=steps)
    before = problem.value(optimizer.x)["total"]
    run(optimizer, problem, steps)
    assert problem.value(optimizer.x)["total"] < left * before
    assert (optimizer.x - target).abs().max() < 0.3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_returns_the_terms_of_where_it_started(name):
    problem, _, _ = quadratic()
    optimizer = make_optimizer(name, torch.full(SHAPE, 0.5))
    for _ in range(6):
        before = problem.value(optimizer.x)["total"]
        told = optimizer.step(problem)["total"]
        if name == "annealing":
            before = problem.value(optimizer.x)["total"]
        assert told == before


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("power", [-40, 40])
def test_the_scale_of_the_loss_does_not_matter(name, power):
    # A power of two changes no digit, so even roundings agree; Adam has an epsilon in the gradient's units.
    problem, _, _ = quadratic(10.0)
    scaled = Toy(lambda x: problem.function(x) * 2.0**power)
    first, second = (make_optimizer(name, torch.full(SHAPE, 0.5)) for _ in range(2))
    if name == "adam":
        first.epsilon = second.epsilon = 0.0
    run(first, problem, 8)
    run(second, scaled, 8)
    torch.testing.assert_close(second.x, first.x, rtol=1e-4, atol=1e-5)
    assert not torch.equal(first.x, torch.full(SHAPE, 0.5))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_picture_given_is_not_changed_and_the_random_state_neither(name):
    problem, _, _ = quadratic()
    start = torch.full(SHAPE, 0.5)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    optimizer = make_optimizer(name, start)
    first = optimizer.x
    run(optimizer, problem, 5)
    assert torch.equal(start, torch.full(SHAPE, 0.5))
    assert torch.equal(first, start)  # nothing is changed in place
    assert not torch.equal(optimizer.x, start)
    assert not optimizer.x.requires_grad
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_loss_that_is_no_number_is_returned_and_nothing_moves(name):
    start = torch.full(SHAPE, 0.5)
    optimizer = make_optimizer(name, start)
    bad = Toy(lambda x: x.sum() * math.nan)
    for told in run(optimizer, bad, 3):
        assert not math.isfinite(told)
    assert torch.equal(optimizer.x, start)


def test_a_mask_does_not_lengthen_the_steps_inside_it():
    # One value of twelve counts; it must not move by √12 times the length that is meant.
    start = torch.full(SHAPE, 0.5)
    for name, length in (("gradient_descent", 0.02), ("lbfgs", 0.01), ("newton_cg", 0.02)):
        masked = Toy(lambda x: (10 - x[0, 0, 0, 0]).square())
        optimizer = make_optimizer(name, start)
        optimizer.step(masked)
        moved = (optimizer.x - start).abs()
        assert moved[0, 0, 0, 0].item() == pytest.approx(length, rel=1e-3), name
        assert moved.flatten()[1:].max() == 0


# ------------------------------------------------------------------------------------ saved and gone on with


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 3, 9, 5), (1, 3, 1, 1)])
def test_it_goes_on_at_another_size(name, shape):
    def function(x):
        return (x - 0.8).square().mean()

    optimizer = make_optimizer(name, torch.full((1, 3, 5, 4), 0.2), iterations=200)
    run(optimizer, Toy(function), 20)
    larger = torch.full(shape, 0.3)
    optimizer.resize(larger)
    assert torch.equal(optimizer.x, larger)
    totals = run(optimizer, Toy(function), 60)
    assert totals[-1] < 0.9 * (0.8 - 0.3) ** 2
    assert torch.equal(larger, torch.full(shape, 0.3))


# ------------------------------------------------------------------------------------------------------ Adam


@pytest.mark.parametrize("rate", [None, 0.1])
def test_adam_is_torchs_adam(rate):
    problem, _, _ = quadratic(100.0)
    ours = make_optimizer("adam", torch.full(SHAPE, 0.5), learning_rate=rate)
    x = torch.full(SHAPE, 0.5, requires_grad=True)
    theirs = torch.optim.Adam([x], lr=rate or 0.02)
    for _ in range(50):
        ours.step(problem)
        x.grad = problem.gradient(x)[1]
        theirs.step()
    torch.testing.assert_close(ours.x, x.detach(), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- L-BFGS


@pytest.mark.parametrize("history_size", [3, 20])
def test_without_its_limits_lbfgs_is_torchs(history_size):
    problem, _, _ = quadratic(100.0, dtype=torch.float64)
    start = torch.full(SHAPE, 0.5, dtype=torch.float64)
    ours = make_optimizer("lbfgs", start, history_size=history_size)
    ours.max_step = ours.tolerance = math.inf
    x = start.clone().requires_grad_(True)
    theirs = torch.optim.LBFGS(
        [x], max_iter=1, history_size=history_size, tolerance_grad=0, tolerance_change=0
    )
    gradient = problem.gradient(x)[1]
    # torch's first step has a length of its own: min(1, 1 / |g|₁) lr g.
    theirs.param_groups[0]["lr"] = 0.01 / rms(gradient) / min(1.0, 1 / gradient.abs().sum().item())

    def closure():
        terms, x.grad = problem.gradient(x)
        return torch.tensor(terms["total"])

    for _ in range(15):
        ours.step(problem)
        theirs.step(closure)
        theirs.param_groups[0]["lr"] = 1
        torch.testing.assert_close(ours.x, x.detach(), rtol=1e-7, atol=1e-9)
    assert ours.restarts == 0
    assert len(ours.pairs) == min(history_size, 14)


def test_no_step_of_lbfgs_is_longer_than_its_limit():
    optimizer = make_optimizer("lbfgs", torch.full((1, 3, 4, 4), 0.5))
    problem = Toy(lambda x: (20 - x).square().sum())
    lengths = []
    for _ in range(10):
        before = optimizer.x
        optimizer.step(problem)
        lengths.append(rms(optimizer.x - before))
    assert lengths == pytest.approx([0.01] + 9 * [0.05], rel=1e-4)


class Leaping(Toy):
    """Adds 100 to the loss at the evaluations named."""

    def __init__(self, function, *at):
        super().__init__(function)
        self.at = at

    def gradient(self, x):
        terms, gradient = super().gradient(x)
        return {"total": terms["total"] + 100 * (len(self.asked) in self.at)}, gradient


def test_a_step_that_makes_the_loss_leap_is_taken_back():
    function = quadratic(10.0)[0].function
    problem = Leaping(function, 4, 5)
    optimizer = make_optimizer("lbfgs", torch.full(SHAPE, 0.5))
    run(optimizer, problem, 2)
    good = optimizer.x.clone()
    optimizer.step(problem)
    length = rms(optimizer.x - good)
    down = -Toy(function).gradient(good)[1]
    for restarts in (1, 2):
        assert optimizer.step(problem)["total"] > 100
        assert optimizer.restarts == restarts
        assert optimizer.pairs == []
        length /= 2
        torch.testing.assert_close(optimizer.x, good + down * (length / rms(down)), rtol=1e-4, atol=1e-7)
    run(optimizer, problem, 40)
    assert optimizer.restarts == 2
    assert function(optimizer.x) < 1e-6


@pytest.mark.parametrize(("name", "steps"), [("lbfgs", 150), ("newton_cg", 60)])
def test_a_bent_valley_is_followed(name, steps):
    optimizer = make_optimizer(name, torch.full(SHAPE, -0.5))
    totals = run(optimizer, Toy(rosenbrock), steps)
    assert rosenbrock(optimizer.x) < 1e-4
    assert (optimizer.x - 1).abs().max() < 0.05
    if name == "newton_cg":
        assert all(after <= before for before, after in pairwise(totals))


# ---------------------------------------------------------------------------------------------------- Newton


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_newton_solves_an_ill_conditioned_quadratic_as_numpy_does(condition):
    problem, target, matrix = quadratic(condition)
    optimizer = make_optimizer("newton_cg", torch.full(SHAPE, 0.5), learning_rate=1.0)
    optimizer.products = 30
    totals = run(optimizer, problem, 8)
    right = matrix.double().numpy() @ target.double().flatten().numpy()
    solution = np.linalg.solve(matrix.double().numpy(), right)
    np.testing.assert_allclose(optimizer.x.flatten().numpy(), solution, atol=2e-4)
    assert totals[-1] < 1e-5 * totals[0]


def test_newton_leaves_a_saddle_where_the_curvature_is_negative():
    start = torch.full(SHAPE, 0.1)
    optimizer = make_optimizer("newton_cg", start)
    saddle = Toy(lambda x: x[:, :2].square().sum() - x[:, 2].square().sum() + x.pow(4).sum())
    totals = run(optimizer, saddle, 30)
    # x⁴ - x² is least at √½, where four values give -1/4 each.
    assert totals[-1] == pytest.approx(-1, abs=1e-4)
    assert optimizer.x[:, 2].abs().min() > 0.7


# ----------------------------------------------------------------------------------------------- Monte-Carlo


def test_annealing_keeps_what_is_better_and_sometimes_what_is_worse():
    problem, _, _ = quadratic(10.0)
    optimizer = make_optimizer("annealing", torch.full(SHAPE, 0.5), iterations=400)
    before, kept, rises = optimizer.x, 0, 0
    last = problem.value(before)["total"]
    for _ in range(400):
        total = optimizer.step(problem)["total"]
        kept += not torch.equal(optimizer.x, before)
        rises += total > last
        assert total == problem.value(optimizer.x)["total"]
        before, last = optimizer.x, total
    assert rises > 0
    assert 0.15 < kept / 400 < 0.4  # the heights have adapted: one of four is meant
