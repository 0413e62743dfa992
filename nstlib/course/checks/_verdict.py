"""What all checkers share: one sentence for an answer, and random cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Outcome = str | None  # None: right; otherwise the hint


def verdict(question: str, judge: Callable[[], Outcome]) -> bool:
    try:
        hint = judge()
    except Exception as error:  # whatever the student's code raises is an answer to be commented on
        hint = f"your code stopped with {type(error).__name__}: {error}"
    print(f"✓ {question}: right." if hint is None else f"✗ {question}: {hint}")
    return hint is None


def missing(answer: Any) -> bool:
    return answer is None or answer is ...


def features_of(seed: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equal(answer: Tensor, right: Tensor) -> bool:
    """Equal as far as float32 can be: students may compute in it."""
    return torch.allclose(answer.double(), right, rtol=1e-4, atol=1e-5)


SHAPES = ((3, 4, 5), (5, 7, 2), (8, 1, 6), (1, 3, 3))
UNANSWERED = "not answered yet; replace the dots by your own line."
