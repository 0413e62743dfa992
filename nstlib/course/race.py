"""The race of notebook 03: one optimizer, one objective, a budget of evaluations."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from ..methods.gatys import Objective
from ..methods.gatys.optimizers import OPTIMIZERS


def race(
    kind: str, objective: Objective, start: Tensor, budget: float, *, seed: int = 0, **own: Any
) -> tuple[Tensor, list[dict[str, float]]]:
    """Change a picture with one optimizer until a budget is used up.

    A step that exceeds the budget is taken back: Newton's method cannot stop within a step.

    Args:
        kind: name in ``OPTIMIZERS``.
        objective: a new one, whose ``evaluations`` are 0; a gradient counts as 1.
        start: (1, 3, H, W).
        budget: evaluations.
        seed: of the Monte-Carlo methods.
        **own: attributes in the place of the optimizer's: ``rate``, ``cooled``, Langevin's ``heat``.

    Returns:
        The picture reached, clamped to [0, 1], and rows with the evaluations and seconds used so far and the
        total loss of the picture as it then was, not clamped.
    """
    steps = round(2 * budget) if kind == "annealing" else round(budget)  # a value is half an evaluation
    optimizer = type(kind, (OPTIMIZERS[kind],), own)(start, objective.settings, iterations=steps, seed=seed)
    began, x, rows = time.perf_counter(), start, []

    def spent() -> dict[str, float]:
        return {"evaluations": objective.evaluations, "seconds": time.perf_counter() - began}

    while objective.evaluations < budget:
        x, before = optimizer.x, spent()
        total = optimizer.step(objective)["total"]
        # Annealing tells the loss of the picture it ends with, the others that of the one they start from.
        rows.append({**(spent() if kind == "annealing" else before), "total": total})
    x = x if objective.evaluations > budget else optimizer.x
    rows.append({**spent(), "evaluations": budget, "total": objective.value(x)["total"]})
    return x.clamp(0, 1), rows
