"""How a picture goes downhill: the optimizers that paper C wants compared, behind one small interface.

C names Newton's method, quasi-Newton methods and Monte-Carlo methods; gradient descent and Adam (B, D) are
what they are measured against. Each asks a :class:`Problem` for values, gradients or products with the
Hessian, and who answers counts: at 128 px on a processor, where a gradient costs 1, a value costs 0.4 and a
product 3. Lengths of steps are root mean squares over the values of the picture, which is in [0, 1]: they
mean the same at every size, for every network and every scale of the loss. The defaults were found at 96 px
with the settings' own loss on three portraits and paintings, from the content and from noise.
"""

from __future__ import annotations

import math

from torch import Tensor

from ...errors import SettingError
from .descent import LBFGS, Adam, GradientDescent, Optimizer, Problem, backtrack
from .montecarlo import Annealing, Langevin
from .newton import NewtonCG

__all__ = [
    "LBFGS",
    "OPTIMIZERS",
    "Adam",
    "Annealing",
    "GradientDescent",
    "Langevin",
    "NewtonCG",
    "Optimizer",
    "Problem",
    "backtrack",
    "make_optimizer",
]


OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (GradientDescent, Adam, LBFGS, NewtonCG, Langevin, Annealing)
}


def make_optimizer(
    name: str,
    x: Tensor,
    *,
    learning_rate: float | None = None,
    smoothing: float = 0.0,
    history_size: int = 20,
    restart_every: int | None = None,
    line_search: bool = False,
    seed: int = 0,
    iterations: int = 150,
) -> Optimizer:
    """An optimizer by its name; each takes what concerns it, and leaves the rest.

    Args:
        name: one of :data:`OPTIMIZERS`.
        x: (1, 3, H, W) to start from.
        learning_rate: what it means and its default: see each class.
        smoothing: of L-BFGS.
        history_size: of L-BFGS.
        restart_every: of L-BFGS.
        line_search: of gradient descent and L-BFGS.
        seed: of the Monte-Carlo methods.
        iterations: planned length of the run, for what falls to its end.

    Raises:
        SettingError: an unknown name or a value out of range.
    """
    if name not in OPTIMIZERS:
        raise SettingError(f"There is no optimizer '{name}': choose one of {', '.join(OPTIMIZERS)}.")
    if learning_rate is not None and not (
        isinstance(learning_rate, int | float) and 0 < learning_rate < math.inf
    ):
        raise SettingError(f"The learning rate must be a positive number, not {learning_rate!r}.")
    if not isinstance(smoothing, int | float) or not 0 <= smoothing <= 2:
        raise SettingError(f"smoothing is an exponent from 0 to 2, not {smoothing!r}.")
    counts = {
        "history_size": history_size,
        "iterations": iterations,
        "restart_every": 1 if restart_every is None else restart_every,
    }
    for what, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise SettingError(f"{what} must be at least 1, not {count!r}: give a whole number.")
    if name == "gradient_descent":
        return GradientDescent(x, learning_rate, iterations=iterations, line_search=line_search)
    if name == "lbfgs":
        return LBFGS(
            x,
            learning_rate,
            smoothing=smoothing,
            history_size=history_size,
            restart_every=restart_every,
            line_search=line_search,
        )
    if name == "langevin":
        return Langevin(x, learning_rate, seed=seed, iterations=iterations)
    if name == "annealing":
        return Annealing(x, learning_rate, seed=seed, iterations=iterations)
    return NewtonCG(x, learning_rate) if name == "newton_cg" else Adam(x, learning_rate)
