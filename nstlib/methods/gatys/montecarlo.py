"""Monte-Carlo: down by dice, with gradients (Langevin) and without (annealing)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import SettingError
from .descent import Optimizer, Problem, positive, remaining, resized_moments, rms


class Langevin(Optimizer):
    """Monte-Carlo with gradients: Langevin dynamics (SGLD, Welling & Teh 2011), cooled to a minimum.

    ``x <- x - h P g + sqrt(2 h P T) noise`` samples pictures with probability exp(-loss / T); P is the
    inverse of each value's root mean square gradient (pSGLD, Li et al. 2016; with a memory of 10 steps, as
    there are few). In equilibrium heat adds N T / 2 to the loss of N values: T begins so that this is 3 % of
    the first loss, and falls with h linearly to 0. More heat (10 %) or h = 0.01 ends 5-30 % higher; none
    at all no better, which says that there are no bad valleys here that one needs to be shaken out of.

    Args:
        x: see :class:`Optimizer`.
        learning_rate: h; None: 0.02.
        seed: of the noise.
        iterations: planned, for the cooling.
        temperature: T; None: from the first loss.
        cooled: False keeps T and h, to sample.
        preconditioned: False leaves P out; ``learning_rate`` is then in the loss's own scale.
    """

    name = "langevin"
    kept = ("steps", "square", "weight", "first_loss", "generator")
    memory = 0.9
    heat = 0.03  # of the first loss

    def __init__(
        self,
        x: Tensor,
        learning_rate: float | None = None,
        *,
        seed: int = 0,
        iterations: int = 150,
        temperature: float | None = None,
        cooled: bool = True,
        preconditioned: bool = True,
    ) -> None:
        super().__init__(x)
        self.learning_rate, self.iterations = learning_rate or 0.02, iterations
        self.temperature, self.cooled, self.preconditioned = temperature, cooled, preconditioned
        self.steps, self.first_loss = 0, 0.0
        self.square, self.weight = torch.zeros_like(self.x), 0.0
        self.generator = torch.Generator().manual_seed(seed)

    def _move(self, problem: Problem, total: float, gradient: Tensor) -> None:
        self.first_loss = self.first_loss or abs(total)
        temperature = (
            2 * self.heat * self.first_loss / gradient.numel()
            if self.temperature is None
            else self.temperature
        )
        rate = self.learning_rate
        if self.cooled:
            left = remaining(self.steps, self.iterations)
            rate, temperature = left * rate, left * temperature
        scale = torch.ones_like(gradient)
        if self.preconditioned:
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
        _, self.square = resized_moments(self.square, self.square, x)
        super().resize(x)


class Annealing(Optimizer):
    """Monte-Carlo without gradients: simulated annealing (Kirkpatrick et al. 1983; Metropolis et al. 1953).

    A step proposes a change and keeps it with probability min(1, exp(-rise of the loss / T)). One value
    answers one question in N dimensions, a gradient N: at equal cost it stays far behind everything else,
    which is the lesson. Noise on all pixels is hopeless, as nearly every direction leads up: it takes 4-7 %
    off the first loss in 400 values, smooth bumps of color from a half to a 32nd of the side 25-55 %. The
    size of each kind adapts until one proposal of four is kept. T falls geometrically from a thousandth of
    the first loss, by a thousand; ten times the heat ended 3-17 % higher.

    Args:
        x: see :class:`Optimizer`.
        learning_rate: height of the first bumps, 1 being from black to white; None: 0.1.
        seed: of the proposals.
        iterations: planned proposals, for the cooling.
        proposals: "bumps", or "pixels" for noise on all pixels.
    """

    name = "annealing"
    kept = ("steps", "accepted", "terms", "first_loss", "heights", "generator")
    shares = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)  # widths of bumps, of the shorter side

    def __init__(
        self,
        x: Tensor,
        learning_rate: float | None = None,
        *,
        seed: int = 0,
        iterations: int = 150,
        proposals: str = "bumps",
    ) -> None:
        super().__init__(x)
        if proposals not in ("bumps", "pixels"):
            raise SettingError(f"Annealing proposes 'bumps' or 'pixels', not '{proposals}'.")
        self.iterations, self.proposals = iterations, proposals
        self.steps = self.accepted = 0
        self.terms: dict[str, float] = {}  # of x
        self.first_loss = 0.0
        self.heights = [learning_rate or 0.1] * (len(self.shares) if proposals == "bumps" else 1)
        self.generator = torch.Generator().manual_seed(seed)

    def step(self, problem: Problem) -> dict[str, float]:
        """One proposal; returns the terms of the picture kept."""
        self.terms = self.terms or problem.value(self.x)
        if not math.isfinite(self.terms["total"]):
            return dict(self.terms)
        self.first_loss = self.first_loss or abs(self.terms["total"])
        progress = min(1.0, self.steps / self.iterations)
        temperature = positive(1e-3 * self.first_loss * 1e-3**progress)
        kind = int(torch.randint(len(self.heights), (1,), generator=self.generator))
        candidate = self.x + self.heights[kind] * self.proposal(kind)
        terms = problem.value(candidate)
        rise = terms["total"] - self.terms["total"]
        chance = float(torch.rand(1, generator=self.generator, dtype=torch.float64))
        taken = rise <= 0 or chance < math.exp(-rise / temperature)
        self.heights[kind] *= math.exp(0.3 * (taken - 0.25))
        self.steps += 1
        if taken:
            self.accepted += 1
            self.terms, self.x = terms, candidate
        return dict(self.terms)

    def proposal(self, kind: int) -> Tensor:
        """A change of height about 1, in the picture's shape."""
        height, width = self.x.shape[-2:]
        if self.proposals == "pixels":
            return torch.randn(self.x.shape, generator=self.generator).to(self.x)
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
