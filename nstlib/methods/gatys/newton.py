"""Newton's method: down a parabola fitted by products with the Hessian, no farther than it can be trusted."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .descent import Optimizer, Problem, dot, positive


class _Point(NamedTuple):
    """A point on the way to Newton's step, and the Hessian times it."""

    step: Tensor
    product: Tensor


class NewtonCG(Optimizer):
    """Newton's method for a million unknowns: the Hessian is only ever multiplied with vectors.

    Each step minimizes the model ``f + g·d + d·H d / 2`` by conjugate gradients (Steihaug 1983, Toint 1981)
    inside a trust region, a ball in which the model is believed. Where CG meets negative curvature it goes
    to the ball's edge. The ball grows when the model was right there and shrinks when it was not; as CG's
    points move outwards one by one, a smaller ball only cuts the way shorter and needs no new products.

    By steps it is the fastest of all (ten reach what Adam needs forty for), by work among the slowest, as a
    step is up to ten products: the model holds for a hundredth of the gray scale only, between the kinks of
    ReLU and maximum, so solving it precisely is wasted. Without the curvature that makes the Hessian
    indefinite (Gauss-Newton) the loss after equal work was 2-18 % lower on one pair of pictures, and up to
    4 % higher on another: no reason to give up Newton's own. Products in bfloat16 are off by 5-10 %.

    Args:
        x: see :class:`Optimizer`.
        learning_rate: radius of the first ball, as the length of a step; None: 0.02.
        products: most products a step.
    """

    name = "newton_cg"
    kept = ("radius", "first_norm", "negative", "rejected")

    def __init__(self, x: Tensor, learning_rate: float | None = None, *, products: int = 10) -> None:
        super().__init__(x)
        self.products, self.first_radius = products, learning_rate or 0.02
        self.radius = self.first_radius
        self.first_norm = 0.0
        self.negative = 0  # steps that met negative curvature
        self.rejected = 0  # trials after which the ball shrank

    def _move(self, problem: Problem, total: float, gradient: Tensor) -> None:
        if not bool(torch.isfinite(gradient).all()):
            self.x = self.x - gradient  # no model to be made: the next loss will say so
            return
        values = math.sqrt(positive(float(gradient.count_nonzero())))  # from a length to a norm
        path = self.conjugate_gradients(problem, gradient, self.radius * values)
        for _ in range(8):
            point, on_edge = _cut(path, self.radius * values)
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
            self.rejected += 1

    def conjugate_gradients(self, problem: Problem, gradient: Tensor, radius: float) -> list[_Point]:
        """The points of CG on ``H d = -g`` from d = 0 outwards, to the solution or out of the ball."""
        here = _Point(torch.zeros_like(gradient), torch.zeros_like(gradient))
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
            here = _Point(here.step + rate * search, here.product + rate * product)
            path.append(here)
            self.negative += downwards
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
        self.radius, self.first_norm = self.first_radius, 0.0


def _cut(path: list[_Point], radius: float) -> tuple[_Point, bool]:
    """Where the path leaves the ball (True), or its end if it does not (False)."""
    for start, end in pairwise(path):
        if float(end.step.norm()) > radius:
            way = end.step - start.step
            # |start + t way|² = radius² for t in [0, 1]
            a, b = float(dot(way, way)), float(dot(start.step, way))
            c = float(dot(start.step, start.step)) - radius**2
            t = (math.sqrt(max(0.0, b * b - a * c)) - b) / a
            return _Point(start.step + t * way, start.product + t * (end.product - start.product)), True
    return path[-1], False
