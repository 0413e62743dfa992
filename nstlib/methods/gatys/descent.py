"""Down the gradient: what optimizers have in common, gradient descent, Adam and L-BFGS."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...errors import SettingError

# Of L-BFGS' pairs, in bytes: with 20 of them, 4096×3072 pixels would take 6 GB.
PAIRS_BYTES = 2**30


class Problem(Protocol):
    """A function of a picture; each question is counted by who answers it."""

    def value(self, image: Tensor, /) -> dict[str, float]:
        """Every term by name, forward only; "total" is what is minimized."""

    def gradient(self, image: Tensor, /) -> tuple[dict[str, float], Tensor]:
        """Every term, and d total / d image in the picture's shape."""

    def hessian_vector(self, image: Tensor, vector: Tensor, /) -> Tensor:
        """The Hessian of "total" times a vector in the picture's shape."""


class Optimizer:
    """What all have in common: a picture, one step at a time, and a state that can be saved.

    No tensor is changed in place, and the picture is replaced last: a step that is interrupted has not moved
    it. A loss that is not a number is returned, and the picture stays; the caller decides.

    Args:
        x: (1, 3, H, W) float32 to start from; it is not changed, nor clamped on the way.
    """

    name: ClassVar[str]
    kept: ClassVar[tuple[str, ...]] = ()  # attributes that, beside x, a later step depends on

    def __init__(self, x: Tensor) -> None:
        self.x = x.detach().clone()

    def step(self, problem: Problem) -> dict[str, float]:
        """One iteration.

        Returns:
            The terms of the picture the step started from; of the Monte-Carlo method that asks for values
            only, those of the picture it ended with.
        """
        terms, gradient = problem.gradient(self.x)
        if math.isfinite(terms["total"]):
            self._move(problem, terms["total"], gradient)
        return terms

    def _move(self, problem: Problem, total: float, gradient: Tensor) -> None:
        """Replace x, given the loss and its gradient there."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors, numbers and lists: ready for ``torch.save``."""
        kept = {name: _packed(getattr(self, name)) for name in self.kept}
        return {"name": self.name, "x": self.x.clone(), **kept}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, picture included, with the same numbers as if never interrupted.

        Raises:
            SettingError: the state is another optimizer's.
        """
        if state.get("name") != self.name:
            raise SettingError(
                f"A state of '{state.get('name')}' cannot be loaded into '{self.name}': make that optimizer."
            )
        device = self.x.device
        for name in self.kept:
            current = getattr(self, name)
            if isinstance(current, torch.Generator):
                current.set_state(state[name].cpu())
            else:
                setattr(self, name, _moved(state[name], device))
        self.x = state["x"].to(device).clone()

    def resize(self, x: Tensor) -> None:
        """Go on from ``x``, the picture so far at another size (coarse to fine)."""
        self.x = x.detach().clone()


class GradientDescent(Optimizer):
    """x <- x - t g, paper A (5)-(7) taken literally.

    With the relative losses a gradient is a hundred times larger at one start than at another, and shrinks
    with the number of pixels, so no fixed t serves: by default each step has the length 0.02, falling
    linearly to 0 at the planned end, like Adam's. After 150 gradients the loss is then 1.1-1.3 from noise
    and 1.0-1.3 from the content, where the best fixed t, between 1 and 3 at 96 px, came to 1.3-1.5 and
    1.2-1.3 or broke down.

    Args:
        x: see :class:`Optimizer`.
        learning_rate: t, which is then the same for all steps; None: steps of a given length.
        iterations: planned, for the length to fall.
        line_search: Armijo's backtracking instead: sure to go down, and slower than steps that are too long.
            ``learning_rate`` is then the first t to be tried.
    """

    name = "gradient_descent"
    kept = ("steps", "rate")

    def __init__(
        self,
        x: Tensor,
        learning_rate: float | None = None,
        *,
        iterations: int = 150,
        line_search: bool = False,
    ) -> None:
        super().__init__(x)
        self.fixed, self.iterations, self.line_search = learning_rate, iterations, line_search
        self.steps = 0
        self.rate = learning_rate or 0.0  # of the line search

    def _move(self, problem: Problem, total: float, gradient: Tensor) -> None:
        per_length = 0.02 / positive(rms(gradient))  # the t of a step as long as Adam's
        if self.line_search:
            rate = backtrack(problem, self.x, total, gradient, -gradient, self.rate or per_length)
            self.rate = 2 * rate  # the next search begins a little too far
        else:
            rate = self.fixed or per_length * remaining(self.steps, self.iterations)
        self.steps += 1
        self.x = self.x - rate * gradient


def backtrack(
    problem: Problem, x: Tensor, total: float, gradient: Tensor, direction: Tensor, rate: float
) -> float:
    """Armijo's line search: halve ``rate`` until the loss falls by a bit of what the slope promises.

    Returns:
        The rate found; after 20 halvings without success the last one, which is next to nothing.
    """
    slope = float(dot(gradient, direction))
    for _ in range(20):
        if problem.value(x + rate * direction)["total"] <= total + 1e-4 * rate * slope:
            break
        rate /= 2
    return rate


class Adam(Optimizer):
    """Kingma & Ba 2015, the optimizer of papers B and D: every value of the picture has its own scale.

    The rate 0.02 (a value's first step) beats 0.01 from either start; 0.05 is 5 % ahead from noise at 60
    steps, but makes the loss rise for a while from the content.

    Args:
        x: see :class:`Optimizer`.
        learning_rate: alpha; None: 0.02.
    """

    name = "adam"
    kept = ("steps", "mean", "square")
    betas = (0.9, 0.999)
    epsilon = 1e-8

    def __init__(self, x: Tensor, learning_rate: float | None = None) -> None:
        super().__init__(x)
        self.learning_rate = learning_rate or 0.02
        self.steps = 0
        self.mean, self.square = torch.zeros_like(self.x), torch.zeros_like(self.x)

    def _move(self, problem: Problem, total: float, gradient: Tensor) -> None:
        first, second = self.betas
        steps = self.steps + 1
        mean = first * self.mean + (1 - first) * gradient
        square = second * self.square + (1 - second) * gradient.square()
        # Both began at zero; the divisors take that out again.
        spread = (square / (1 - second**steps)).sqrt() + self.epsilon
        x = self.x - self.learning_rate / (1 - first**steps) * mean / spread
        self.x, self.mean, self.square, self.steps = x, mean, square, steps

    def resize(self, x: Tensor) -> None:
        """Go on at another size with both moments enlarged.

        A mean loss divides by the number of pixels, so each pixel's gradient shrinks by it: with moments
        that do not, the first steps are too small by the same factor, and starting anew would be better.
        """
        self.mean, self.square = resized_moments(self.mean, self.square, x)
        super().resize(x)


class LBFGS(Optimizer):
    """Quasi-Newton: the Hessian's inverse from the last steps and changes of the gradient (Nocedal 1980).

    One step is one gradient, as in torch's with ``max_iter=1``; the recursion is the same. Around it stand
    two limits, as the full step is only good where the curvature seen so far holds. From noise, torch's
    first step moves each pixel by 1e-5, sees the curvature of nothing, and the third throws the picture to
    a loss of 1e8; the next 20 repair that. With a first step that is visible and none longer than 0.05 the
    loss falls from the start: from noise 1.26 instead of 1.35 after 50 iterations (mean of three pairs), and
    within half a percent of torch's, on either side, from the content.
    If the loss rises by half nevertheless, the step goes back, the history is dropped, and the way down the
    gradient is taken with half the length: a restart, counted in ``restarts``. Returning alone, without the
    limits, still loses the first ten evaluations.

    Args:
        x: see :class:`Optimizer`.
        learning_rate: factor of every step; None: 1, which a quasi-Newton step means.
        smoothing: exponent of 1 / frequency in the first guess of the inverse Hessian, which otherwise is a
            number. Many positions of the features answer to a broad form, and few to a fine one, so the loss
            is flatter along broad forms: 0.5 makes them go further. See benchmarks/coarse_to_fine.md.
        history_size: pairs to remember; fewer of a large picture, 3 of 4096×3072, so that they fit in 1 GiB.
        restart_every: drop the history every so many steps; None: never.
        line_search: Armijo's backtracking, for 0.4 evaluations a trial more.
        first_step: length of a first step, along the gradient.
        max_step: length that no step exceeds.
        tolerance: how much of itself a loss may rise by before the step is taken back.
    """

    name = "lbfgs"
    kept = ("pairs", "last", "length", "scale", "steps", "restarts")

    def __init__(
        self,
        x: Tensor,
        learning_rate: float | None = None,
        *,
        smoothing: float = 0.0,
        history_size: int = 20,
        restart_every: int | None = None,
        line_search: bool = False,
        first_step: float = 0.01,
        max_step: float = 0.05,
        tolerance: float = 0.5,
    ) -> None:
        super().__init__(x)
        self.learning_rate, self.history_size = learning_rate or 1.0, history_size
        self.smoothing = smoothing
        self.restart_every, self.line_search = restart_every, line_search
        self.first_step, self.max_step, self.tolerance = first_step, max_step, tolerance
        self.pairs: list[list[Tensor]] = []  # [step, change of the gradient], oldest first
        self.last: list[Any] = []  # the point stepped from: [picture, gradient, loss]
        self.length = first_step  # of the next step along the gradient
        self.scale = 0.0
        self.steps = self.restarts = 0

    def _move(self, problem: Problem, total: float, gradient: Tensor) -> None:
        # Squares of gradients leave float32's range where the loss is in millions or millionths.
        self.scale = self.scale or 1 / positive(float(gradient.abs().max()))
        gradient = self.scale * gradient
        x = self.x
        if self.last and total > self.last[2] + self.tolerance * abs(self.last[2]):
            x, gradient, total = self.last
            self.pairs, self.length, self.restarts = [], self.length / 2, self.restarts + 1
        else:
            self._remember(gradient)
        if self.restart_every and self.steps and self.steps % self.restart_every == 0:
            self.pairs = []
        if self.pairs:
            direction = self.learning_rate * self.direction(gradient)
            length = min(rms(direction), self.max_step)
        else:
            direction, length = -self.smoothed(gradient), self.length
        direction = direction * (length / positive(rms(direction)))
        if self.line_search:
            direction = backtrack(problem, x, total, gradient / self.scale, direction, 1.0) * direction
        self.last, self.steps = [x, gradient, total], self.steps + 1
        self.length = rms(direction) or self.first_step
        self.x = x + direction

    def direction(self, gradient: Tensor) -> Tensor:
        """Minus the inverse Hessian times ``gradient``, by the two-loop recursion over the pairs."""
        d, shares = -gradient, []
        for step, change in reversed(self.pairs):
            share = dot(step, d) / dot(step, change)
            d.addcmul_(change, share, value=-1)  # in place: a sum would hold two more pictures for a moment
            shares.append(share)
        newest_step, newest_change = self.pairs[-1]
        d = self.smoothed(d)
        d *= dot(newest_step, newest_change) / dot(newest_change, self.smoothed(newest_change))
        for (step, change), share in zip(self.pairs, reversed(shares), strict=True):
            d.addcmul_(step, share - dot(change, d) / dot(step, change))
        return d

    def smoothed(self, x: Tensor) -> Tensor:
        """Each frequency f divided by f ** smoothing: symmetric and positive, as a first guess must be."""
        if not self.smoothing:
            return x
        height, width = x.shape[-2:]
        down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
        # The mean of the picture has no period: it is given one twice the longest.
        frequency = (down.square() + right.square() + (0.5 / max(height, width)) ** 2).sqrt().to(x.device)
        return torch.fft.irfft2(torch.fft.rfft2(x) * (2 * frequency) ** -self.smoothing, s=(height, width))

    def _remember(self, gradient: Tensor) -> None:
        if self.last:
            step, change = self.x - self.last[0], gradient - self.last[1]
            # Only curvature upwards is of use: the inverse must stay positive for d to go down.
            if float(dot(step, change)) > 1e-10 * float(step.norm() * change.norm()):
                fit = max(1, PAIRS_BYTES // (step.nbytes + change.nbytes))
                self.pairs = [*self.pairs, [step, change]][-min(self.history_size, fit) :]

    def resize(self, x: Tensor) -> None:
        """Go on at another size without the history: its pairs are no gradients of the new picture."""
        super().resize(x)
        self.pairs, self.last, self.length, self.scale = [], [], self.first_step, 0.0


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of two pictures."""
    return torch.dot(a.flatten(), b.flatten())


def rms(x: Tensor) -> float:
    """The length of a step: root mean square over the values that move, as a mask may hold the most still."""
    return float(x.norm()) / math.sqrt(max(1, int(x.count_nonzero())))


def positive(value: float) -> float:
    """A divisor that is not 0: at a minimum there is no gradient to divide by."""
    return max(value, 1e-30)


def remaining(steps: int, iterations: int) -> float:
    """1 at the start, falling linearly to 1 / iterations at the planned end, and there it stays."""
    return max(1 - steps / iterations, 1 / iterations)


def resized_moments(mean: Tensor, square: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Averages of gradients and of their squares, for the size of ``x``."""
    shrunk = mean.numel() / x.numel()
    size = (x.shape[-2], x.shape[-1])
    mean = interpolate(mean, size, mode="bilinear", align_corners=False).to(x)
    square = interpolate(square, size, mode="bilinear", align_corners=False).to(x).clamp_min(0)
    return shrunk * mean, shrunk**2 * square


def _packed(value: Any) -> Any:
    """A value as it is saved: generators by their state, containers as copies."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, dict):
        return dict(value)
    return [_packed(item) for item in value] if isinstance(value, list) else value


def _moved(value: Any, device: torch.device) -> Any:
    """A saved value with its tensors on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    return [_moved(item, device) for item in value] if isinstance(value, list) else value
