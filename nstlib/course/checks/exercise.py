"""The checker behind the exercises: an answer is held to the right one on cases; known mistakes are named."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNANSWERED = "not answered yet; replace the dots by your own line."
# What is known of one case: the right values, and wrong ones by the hint they deserve.
Known = tuple[Any, Mapping[str, Any]]
Checker = Callable[[Callable[..., Any]], bool]


def exercise(
    cases: Sequence[Sequence[Any]], *, rtol: float = 1e-4, in_place: bool = True
) -> Callable[[Callable[..., Known]], Checker]:
    """Make a checker of a function that knows the right answer and the usual mistakes for a case.

    The checker calls the reader's function on every case, prints one sentence and says whether all is right.

    Args:
        cases: arguments of one call each.
        rtol: relative tolerance; the absolute one is a tenth of it. Whole numbers are compared exactly.
        in_place: whether the reader's function may change the tensors it is given.
    """

    def decorate(known: Callable[..., Known]) -> Checker:
        def judge(answer: Callable[..., Any], case: Sequence[Any]) -> str | None:
            given = deepcopy(list(case))
            said = answer(*given)
            if missing(said):
                return UNANSWERED
            pairs = zip(given, case, strict=True)
            if not in_place and not all(torch.equal(a, b) for a, b in pairs if isinstance(b, Tensor)):
                return "what was given has changed: work on a copy."
            wanted, mistakes = known(*case)
            right, mine = _tensor(wanted), _tensor(said)
            if _same(mine, right, rtol):
                return None
            for hint, wrong in mistakes.items():
                if _same(mine, _tensor(wrong), rtol):
                    return hint
            if mine.shape != right.shape:
                form = f"{len(wanted)} values" if isinstance(wanted, tuple) else "an answer"
                return f"give back {form} of shape {tuple(right.shape)}; yours has {tuple(mine.shape)}."
            worst = int((mine.double() - right.double()).abs().argmax())
            a, b = (_shown(values.flatten()[worst].item()) for values in (mine, right))
            given_shown = ", ".join(_shown(value) for value in case)
            return f"yours has {a} where {b} is right, given {given_shown}. The exercise: {known.__doc__}"

        chapter, place = known.__name__.removeprefix("q").split("_")
        number = f"{chapter.lstrip('0')}.{place}"

        def check(answer: Callable[..., Any]) -> bool:
            hints = (judge(answer, case) for case in cases)
            return verdict(number, lambda: next((hint for hint in hints if hint is not None), None))

        check.__doc__ = known.__doc__
        return check

    return decorate


def entries(
    number: str,
    answer: Mapping[str, Any],
    right: Mapping[str, Any],
    mistakes: Mapping[str, Mapping[str, Any]],
    *,
    kind: str,
    otherwise: str,
) -> bool:
    """Check a dictionary of answers; a mistake is named when all wrong entries equal it.

    Args:
        number: of the exercise.
        answer: the reader's; keys that are not asked for are not looked at.
        right: the right entries.
        mistakes: wrong entries by the hint they deserve.
        kind: what is asked for at each key: "number" or "name".
        otherwise: what to say about other wrong entries.

    Returns:
        Whether all is right.
    """

    def judge() -> str | None:
        if missing(answer) or any(missing(answer.get(key)) for key in right):
            return f"not answered yet; give a {kind} for each of {', '.join(right)}."
        wrong = [key for key in right if answer[key] != right[key]]
        for hint, mistake in mistakes.items():
            if wrong and all(answer[key] == mistake[key] for key in wrong):
                return hint
        return f"wrong for {', '.join(wrong)}: {otherwise}" if wrong else None

    return verdict(number, judge)


def verdict(number: str, judge: Callable[[], str | None]) -> bool:
    """Print what ``judge`` finds, None for a right answer; an error in the reader's code is a hint, too."""
    try:
        hint = judge()
    except Exception as error:
        hint = f"your code stopped with {type(error).__name__}: {error}"
    print(f"✓ Exercise {number}: right." if hint is None else f"✗ Exercise {number}: {hint}")
    return hint is None


def missing(answer: Any) -> bool:
    """Whether the reader has not replaced the dots yet."""
    return answer is None or answer is ...


def random(seed: int, *shape: int) -> Tensor:
    """Normally distributed numbers, the same for everyone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(*cases: Sequence[Any]) -> list[list[Any]]:
    """Cases in which each tuple, a shape, becomes normally distributed numbers, the same for everyone."""
    seeds = itertools.count()
    return [[random(next(seeds), *one) if isinstance(one, tuple) else one for one in case] for case in cases]


def _shown(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return " × ".join(map(str, value.shape)) + " numbers"
    if isinstance(value, int | float):
        return f"{value:,.5g}" if isinstance(value, float) else f"{value:,}"
    return f"{len(value)} items" if isinstance(value, Sequence) else "a function"


def _tensor(value: Any) -> Tensor:
    if isinstance(value, list | tuple):
        return torch.stack([_tensor(item) for item in value])
    return torch.as_tensor(value).detach()


def _same(mine: Tensor, right: Tensor, rtol: float) -> bool:
    if mine.shape != right.shape:
        return False
    if not right.is_floating_point():
        return bool((mine == right).all())
    return torch.allclose(mine.double(), right.double(), rtol=rtol, atol=rtol / 10)
