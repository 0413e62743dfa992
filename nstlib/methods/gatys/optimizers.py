"""The optimizers that paper C wants compared: Newton's method, quasi-Newton and Monte-Carlo methods.

Gradient descent and Adam (B, D) are what they are measured against. Each asks an :class:`Objective` for
values, gradients or products with the Hessian; at 128 px on a processor, where a gradient costs 1, a value
costs 0.4 and a product 3. The length of a step is its root mean square over the values of the picture, which
is in [0, 1], so it means the same at every size, for every network and every scale of the loss. The defaults
were found at 96 px with the settings' own loss on three portraits and paintings, from the content and from
noise.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .objective import Objective
from .settings import Settings

# Of L-BFGS' pairs, in bytes: with 20 of them, 4096×3072 pixels would take 6 GB.
PAIRS_BYTES = 2**30


class Optimizer:
    """Base of all: a picture, one step at a time, and a state that can be saved.

    The picture's tensor is never changed in place, and it is replaced last: a step that is interrupted has
    not moved it. A loss that is not a number is returned, and the picture stays; the caller decides.

    Args:
        x: (1, 3, H, W) float32 to start from; it is not changed, nor clamped on the way.
        settings: of which the optimizer takes what concerns it.
        iterations: planned length of the run, for what falls to its end.
        seed: of the Monte-Carlo methods.
    """

    name: ClassVar[str]
    rate: ClassVar[float] = 0.02  # learning rate where the settings have none
    cooled: ClassVar[bool] = False  # whether the learning rate falls linearly to 0 at the planned end
    kept: ClassVar[tuple[str, ...]] = ()  # attributes that a later step depends on

    def __init__(self, x: Tensor, settings: Settings, *, iterations: int, seed: int) -> None:
        self.x, self.settings, self.iterations = x.detach().clone(), settings, iterations
        self.learning_rate = settings.learning_rate or self.rate
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = 0
        self._begin()

    def _begin(self) -> None:
        """Set up what a subclass remembers from step to step."""

    def step(self, problem: Objective) -> dict[str, float]:
        """One iteration.

        Returns:
            The terms of the picture the step started from; of the Monte-Carlo method that asks for values
            only, those of the picture it ended with.
        """
        terms, gradient = problem.gradient(self.x)
        if math.isfinite(terms["total"]):
            self._move(problem, terms["total"], gradient)
        return terms

    def _move(self, problem: Objective, total: float, gradient: Tensor) -> None:
        """Replace x, given the loss and its gradient there."""
        raise NotImplementedError

    def rate_now(self) -> float:
        """This step's learning rate."""
        left = max(1 - self.steps / self.iterations, 1 / self.iterations) if self.cooled else 1.0
        return self.learning_rate * left

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, ready for ``torch.save``."""
        kept = {name: getattr(self, name) for name in self.kept}
        return {"x": self.x, "steps": self.steps, "random": self.generator.get_state(), **kept}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state with the same numbers as if never interrupted."""
        for name in ("x", "steps", *self.kept):
            setattr(self, name, state[name])
        self.generator.set_state(state["random"].cpu())

    def resize(self, x: Tensor) -> None:
        """Go on from ``x``, the picture so far at another size (coarse to fine)."""
        self.x = x.detach().clone()


class GradientDescent(Optimizer):
    """x <- x - t g, paper A (5)-(7) taken literally; ``learning_rate`` is t.

    With the relative losses a gradient is a hundred times larger at one start than at another, and shrinks
    with the number of pixels, so no fixed t serves: by default each step has the length 0.02, falling
    linearly to 0 at the planned end, like Adam's. After 150 gradients the loss is then 1.1-1.3 from noise
    and 1.0-1.3 from the content, where the best fixed t, between 1 and 3 at 96 px, came to 1.3-1.5 and
    1.2-1.3 or broke down.
    """

    name = "gradient_descent"
    cooled = True

    def _move(self, problem: Objective, total: float, gradient: Tensor) -> None:
        rate = self.settings.learning_rate or self.rate_now() / positive(rms(gradient))
        self.steps += 1
        self.x = self.x - rate * gradient


class Adam(Optimizer):
    """Kingma & Ba 2015, the optimizer of papers B and D: every value of the picture has its own scale.

    ``learning_rate`` is alpha, a value's first step. 0.02 beats 0.01 from either start; 0.05 is 5 % ahead
    from noise at 60 steps, but makes the loss rise for a while from the content.
    """

    name = "adam"
    kept = ("mean", "square")
    betas = (0.9, 0.999)
    epsilon = 1e-8

    def _begin(self) -> None:
        self.mean, self.square = torch.zeros_like(self.x), torch.zeros_like(self.x)

    def _move(self, problem: Objective, total: float, gradient: Tensor) -> None:
        first, second = self.betas
        steps = self.steps + 1
        mean = first * self.mean + (1 - first) * gradient
        square = second * self.square + (1 - second) * gradient.square()
        # Both began at zero; the divisors take that out again.
        spread = (square / (1 - second**steps)).sqrt() + self.epsilon
        x = self.x - self.rate_now() / (1 - first**steps) * mean / spread
        self.x, self.mean, self.square, self.steps = x, mean, square, steps

    def resize(self, x: Tensor) -> None:
        """Go on at another size with both moments enlarged.

        A mean loss divides by the number of pixels, so each pixel's gradient shrinks by it: with moments
        that do not, the first steps are too small by the same factor, and starting anew would be better.
        """
        self.mean, self.square = resized_moment(self.mean, x, 1), resized_moment(self.square, x, 2)
        super().resize(x)


class LBFGS(Optimizer):
    """Quasi-Newton: the Hessian's inverse from the last steps and changes of the gradient (Nocedal 1980).

    One step is one gradient, as in torch's with ``max_iter=1``; the recursion is the same. Around it stand
    two limits, as the full step is only good where the curvature found so far holds. From noise, torch's
    first step moves each pixel by 1e-5, measures the curvature of nothing, and the third throws the picture
    to a loss of 1e8; the next 20 repair that. With a first step that is visible and none longer than 0.05 the
    loss falls from the start: from noise 1.26 instead of 1.35 after 50 iterations (mean of three pairs), and
    within half a percent of torch's, on either side, from the content.
    If the loss rises by half nevertheless, the step goes back, the history is dropped, and the way down the
    gradient is taken with half the length: a restart, counted in ``restarts``.

    ``learning_rate`` is a factor of every step. ``smoothing`` is the exponent of 1 / frequency in the first
    guess of the inverse Hessian, which otherwise is a number: many positions of the features answer to a
    broad form, and few to a fine one, so the loss is flatter along broad forms, and 0.5 makes them go further
    (benchmarks/coarse_to_fine.md). ``history_size`` pairs are kept, fewer of a large picture (3 of
    4096×3072), so that they fit in 1 GiB.
    """

    name = "lbfgs"
    rate = 1.0  # what a quasi-Newton step means
    kept = ("pairs", "last", "length", "scale", "restarts")
    first_step = 0.01  # length of a first step, along the gradient
    max_step = 0.05  # length that no step exceeds
    tolerance = 0.5  # how much of itself a loss may rise by before the step is taken back

    def _begin(self) -> None:
        self.pairs: list[list[Tensor]] = []  # [step, change of the gradient], oldest first
        self.last: list[Any] = []  # the point stepped from: [picture, gradient, loss]
        self.length = self.first_step  # of the next step along the gradient
        self.scale = 0.0
        self.restarts = 0

    def _move(self, problem: Objective, total: float, gradient: Tensor) -> None:
        # Squares of gradients leave float32's range where the loss is in millions or millionths.
        self.scale = self.scale or 1 / positive(float(gradient.abs().max()))
        gradient = self.scale * gradient
        x, every = self.x, self.settings.restart_every
        if self.last and total > self.last[2] + self.tolerance * abs(self.last[2]):
            x, gradient, total = self.last
            self.pairs, self.length, self.restarts = [], self.length / 2, self.restarts + 1
        else:
            self._remember(gradient)
        if every and self.steps and self.steps % every == 0:
            self.pairs = []
        if self.pairs:
            direction = self.rate_now() * self.direction(gradient)
            length = min(rms(direction), self.max_step)
        else:
            direction, length = -self.smoothed(gradient), self.length
        direction = direction * (length / positive(rms(direction)))
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
        if not self.settings.smoothing:
            return x
        height, width = x.shape[-2:]
        down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
        # The mean of the picture has no period: it is given one twice the longest.
        frequency = (down.square() + right.square() + (0.5 / max(height, width)) ** 2).sqrt().to(x.device)
        factors = (2 * frequency) ** -self.settings.smoothing
        return torch.fft.irfft2(torch.fft.rfft2(x) * factors, s=(height, width))

    def _remember(self, gradient: Tensor) -> None:
        if self.last:
            step, change = self.x - self.last[0], gradient - self.last[1]
            # Only curvature upwards is of use: the inverse must stay positive for d to go down.
            if float(dot(step, change)) > 1e-10 * float(step.norm() * change.norm()):
                fit = max(1, PAIRS_BYTES // (step.nbytes + change.nbytes))
                self.pairs = [*self.pairs, [step, change]][-min(self.settings.history_size, fit) :]

    def resize(self, x: Tensor) -> None:
        """Go on at another size without the history: its pairs are no gradients of the new picture."""
        super().resize(x)
        self.pairs, self.last, self.length, self.scale = [], [], self.first_step, 0.0


class Point(NamedTuple):
    """A point on the way to Newton's step, and the Hessian times it."""

    step: Tensor
    product: Tensor


class NewtonCG(Optimizer):
    """Newton's method for a million unknowns: the Hessian is only ever multiplied with vectors.

    Each step minimizes the model ``f + g·d + d·H d / 2`` by conjugate gradients (Steihaug 1983, Toint 1981)
    inside a trust region, a ball in which the model is believed; ``learning_rate`` is the first ball's
    radius, as the length of a step. Where CG meets negative curvature it goes to the ball's edge. The ball
    grows when the model was right there and shrinks when it was not; as CG's points move outwards one by
    one, a smaller ball only cuts the way shorter and needs no new products.

    By steps it is the fastest of all (ten reach what Adam needs forty for), by work among the slowest, as a
    step is up to ten products: the model holds only between the kinks of ReLU and maximum, of which there are
    many within a quarter of a gray level (notebook 03), so solving it precisely is wasted. Without the
    curvature that makes the Hessian indefinite (Gauss-Newton) the loss after equal work was 2-18 % lower on
    one pair of pictures, and up to 4 % higher on another: no reason to give up Newton's own. Products in
    bfloat16 are off by 5-10 %.
    """

    name = "newton_cg"
    kept = ("radius", "first_norm")
    products = 10  # most products a step

    def _begin(self) -> None:
        self.radius, self.first_norm = self.learning_rate, 0.0

    def _move(self, problem: Objective, total: float, gradient: Tensor) -> None:
        if not bool(torch.isfinite(gradient).all()):
            self.x = self.x - gradient  # no model to be made: the next loss will say so
            return
        values = math.sqrt(positive(float(gradient.count_nonzero())))  # from a length to a norm
        path = self.conjugate_gradients(problem, gradient, self.radius * values)
        for _ in range(8):
            point, on_edge = cut_path(path, self.radius * values)
            promised = -float(dot(gradient, point.step) + dot(point.step, point.product) / 2)
            fallen = total - problem.value(self.x + point.step)["total"]
            kept_promise = fallen / promised if promised > 0 else -1.0
            if kept_promise > 0.75 and on_edge:
                self.radius *= 2
            elif not kept_promise >= 0.25:  # NaN too
                self.radius = float(point.step.norm()) / values / 3
            if kept_promise > 1e-3:
                self.x = self.x + point.step
                break

    def conjugate_gradients(self, problem: Objective, gradient: Tensor, radius: float) -> list[Point]:
        """The points of CG on ``H d = -g`` from d = 0 outwards, to the solution or out of the ball."""
        here = Point(torch.zeros_like(gradient), torch.zeros_like(gradient))
        path, residual, search = [here], gradient, -gradient
        squared = float(dot(residual, residual))
        self.first_norm = self.first_norm or positive(math.sqrt(squared))
        # Roughly far from the minimum, precisely close to it: that is what makes Newton's end so fast.
        enough = min(0.3, math.sqrt(math.sqrt(squared) / self.first_norm)) * math.sqrt(squared)
        for _ in range(self.products if squared > 0 else 0):
            product = problem.hessian_vector(self.x, search)
            curvature = float(dot(search, product))
            downwards = not curvature > 0
            rate = 2 * radius / float(search.norm()) if downwards else squared / curvature
            here = Point(here.step + rate * search, here.product + rate * product)
            path.append(here)
            if downwards or float(here.step.norm()) >= radius:
                break
            residual = residual + rate * product
            before, squared = squared, float(dot(residual, residual))
            if math.sqrt(squared) <= enough:
                break
            search = -residual + squared / before * search
        return path

    def resize(self, x: Tensor) -> None:
        """Go on at another size in a ball of the first radius: how far the model holds is not known there."""
        super().resize(x)
        self._begin()


def cut_path(path: list[Point], radius: float) -> tuple[Point, bool]:
    """Where the path leaves the ball (True), or its end if it does not (False)."""
    for start, end in pairwise(path):
        if float(end.step.norm()) > radius:
            way = end.step - start.step
            # |start + t way|² = radius² for t in [0, 1]
            a, b = float(dot(way, way)), float(dot(start.step, way))
            c = float(dot(start.step, start.step)) - radius**2
            t = (math.sqrt(max(0.0, b * b - a * c)) - b) / a
            return Point(start.step + t * way, start.product + t * (end.product - start.product)), True
    return path[-1], False


class Langevin(Optimizer):
    """Monte-Carlo with gradients: Langevin dynamics (SGLD, Welling & Teh 2011), cooled to a minimum.

    ``x <- x - h P g + sqrt(2 h P T) noise`` samples pictures with probability exp(-loss / T); P is the
    inverse of each value's root mean square gradient (pSGLD, Li et al. 2016; with a memory of 10 steps, as
    there are few), h the ``learning_rate``. In equilibrium heat adds N T / 2 to the loss of N values: T
    begins so that this is 3 % of the first loss, and falls with h linearly to 0. More heat (10 %) or h = 0.01
    ends 5-30 % higher; none at all no better, which says that there are no bad valleys here that one needs to
    be shaken out of.
    """

    name = "langevin"
    cooled = True
    kept = ("square", "weight", "first_loss")
    memory = 0.9
    heat = 0.03  # of the first loss

    def _begin(self) -> None:
        self.square, self.weight, self.first_loss = torch.zeros_like(self.x), 0.0, 0.0

    def _move(self, problem: Objective, total: float, gradient: Tensor) -> None:
        self.first_loss = self.first_loss or abs(total)
        rate = self.rate_now()
        temperature = rate / self.learning_rate * (2 * self.heat * self.first_loss / gradient.numel())
        self.square = self.memory * self.square + (1 - self.memory) * gradient.square()
        self.weight = self.memory * self.weight + (1 - self.memory)
        spread = (self.square / self.weight).sqrt()
        typical = rms(spread)
        # Where nothing pulls (outside a mask, everywhere on a flat loss) noise would be without bounds.
        scale = (spread + 0.1 * typical).reciprocal() if typical else torch.zeros_like(gradient)
        noise = torch.randn(gradient.shape, generator=self.generator).to(gradient)
        self.steps += 1
        self.x = self.x - rate * scale * gradient + (2 * rate * temperature * scale).sqrt() * noise

    def resize(self, x: Tensor) -> None:
        """Go on at another size: the squares are enlarged as Adam's are."""
        self.square = resized_moment(self.square, x, 2)
        super().resize(x)


class Annealing(Optimizer):
    """Monte-Carlo without gradients: simulated annealing (Kirkpatrick et al. 1983; Metropolis et al. 1953).

    A step proposes a change and keeps it with probability min(1, exp(-rise of the loss / T)). One value
    answers one question in N dimensions, a gradient N: at equal cost it stays far behind everything else,
    which is the lesson. Noise on all pixels is hopeless, as nearly every direction leads up: it takes 4-7 %
    off the first loss in 400 values, smooth bumps of color from a half to a 32nd of the side 25-55 %. The
    height of the bumps of each width begins at ``learning_rate`` (1 is from black to white) and adapts until
    one proposal of four is kept. T falls geometrically from a thousandth of the first loss, by a thousand;
    ten times the heat ended 3-17 % higher.
    """

    name = "annealing"
    rate = 0.1
    kept = ("terms", "first_loss", "heights")
    shares = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)  # widths of bumps, of the shorter side

    def _begin(self) -> None:
        self.terms: dict[str, float] = {}  # of x
        self.first_loss = 0.0
        self.heights = [self.learning_rate] * len(self.shares)

    def step(self, problem: Objective) -> dict[str, float]:
        """One proposal; returns the terms of the picture kept."""
        self.terms = self.terms or problem.value(self.x)
        if not math.isfinite(self.terms["total"]):
            return dict(self.terms)
        self.first_loss = self.first_loss or abs(self.terms["total"])
        progress = min(1.0, self.steps / self.iterations)
        temperature = positive(1e-3 * self.first_loss * 1e-3**progress)
        kind = int(torch.randint(len(self.heights), (1,), generator=self.generator))
        candidate = self.x + self.heights[kind] * self.bump(kind)
        terms = problem.value(candidate)
        rise = terms["total"] - self.terms["total"]
        chance = float(torch.rand(1, generator=self.generator, dtype=torch.float64))
        taken = rise <= 0 or chance < math.exp(-rise / temperature)
        self.heights[kind] *= math.exp(0.3 * (taken - 0.25))
        self.steps += 1
        if taken:
            self.terms, self.x = terms, candidate
        return dict(self.terms)

    def bump(self, kind: int) -> Tensor:
        """A change of height about 1, in the picture's shape."""
        height, width = self.x.shape[-2:]
        radius = max(1.0, self.shares[kind] * min(height, width)) / 2
        middle = torch.rand(2, generator=self.generator)
        down = torch.exp(-((torch.arange(height) - middle[0] * height) / radius).square() / 2)
        across = torch.exp(-((torch.arange(width) - middle[1] * width) / radius).square() / 2)
        color = torch.randn(self.x.shape[:2], generator=self.generator)
        return (color[..., None, None] * down[:, None] * across).to(self.x)

    def resize(self, x: Tensor) -> None:
        """Go on at another size: bumps are as wide in the picture as before, and its loss is asked anew."""
        super().resize(x)
        self.terms = {}


OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (GradientDescent, Adam, LBFGS, NewtonCG, Langevin, Annealing)
}


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of two pictures."""
    return torch.dot(a.flatten(), b.flatten())


def rms(x: Tensor) -> float:
    """The length of a step: root mean square over the values that move, as a mask may hold the most still."""
    return float(x.norm()) / math.sqrt(max(1, int(x.count_nonzero())))


def positive(value: float) -> float:
    """A divisor that is not 0: at a minimum there is no gradient to divide by."""
    return max(value, 1e-30)


def resized_moment(moment: Tensor, x: Tensor, power: int) -> Tensor:
    """An average of gradients (``power`` 1) or of their squares (2), for the size of ``x``."""
    shrunk = moment.numel() / x.numel()
    size = (x.shape[-2], x.shape[-1])
    return shrunk**power * interpolate(moment, size, mode="bilinear", align_corners=False).to(x)
