"""The race of notebook 03 keeps to its budget, whatever a step costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nstlib.course.race import race
from nstlib.methods.gatys import PLAIN
from nstlib.methods.gatys.optimizers import OPTIMIZERS


class Bowl:
    """|x|² / 2 with the counting of an Objective."""

    settings = PLAIN

    def __init__(self) -> None:
        self.evaluations = 0.0

    def value(self, x: Tensor) -> dict[str, float]:
        self.evaluations += 0.5
        return {"total": float(x.square().sum() / 2)}

    def gradient(self, x: Tensor) -> tuple[dict[str, float], Tensor]:
        self.evaluations += 1
        return {"total": float(x.square().sum() / 2)}, x.clone()

    def hessian_vector(self, x: Tensor, v: Tensor) -> Tensor:
        self.evaluations += 3
        return v


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_gets_lower_within_the_budget(kind):
    start, bowl = torch.full((1, 3, 8, 8), 0.5), Bowl()
    x, rows = race(kind, bowl, start, 20)
    assert bowl.value(x)["total"] <= rows[-1]["total"] + 1e-6 < rows[0]["total"]  # clamped is nearer to 0
    for column in ("evaluations", "seconds"):
        assert [r[column] for r in rows] == sorted(r[column] for r in rows)
    assert rows[-1]["evaluations"] == 20


def test_a_step_beyond_the_budget_is_taken_back():
    start = torch.full((1, 3, 8, 8), 0.5)
    x, rows = race("newton_cg", Bowl(), start, 2)
    assert torch.equal(x, start)
    assert rows[0]["total"] == rows[-1]["total"]


def test_own_attributes_take_the_place_of_the_optimizers():
    start = torch.full((1, 3, 8, 8), 0.5)
    ways = [race("adam", Bowl(), start, 9, rate=0.01, cooled=cooled)[1] for cooled in (False, True)]
    assert ways[0][1]["total"] == ways[1][1]["total"]  # the first step is whole either way
    assert ways[0][-1]["total"] < ways[1][-1]["total"]
    still, _ = race("langevin", Bowl(), start, 9, heat=0.0)
    again, _ = race("langevin", Bowl(), start, 9, heat=0.0, seed=1)
    assert torch.equal(still, again)
