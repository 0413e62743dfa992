"""The loop that changes a picture until its objective is small: watched, averaged, interrupted, resumed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ...assets.writing import atomic
from ...errors import OptimizationError, SettingError
from .objective import Objective
from .optimizers import OPTIMIZERS, Optimizer
from .settings import Settings

Callback = Callable[["Progress"], "bool | None"]


@dataclass(frozen=True)
class Progress:
    """What a callback gets after each iteration."""

    iteration: int  # 1, 2, ... through all sizes
    iterations: int
    losses: Mapping[str, float]  # before this step: "total", "content", "style", "tv", "style/relu1_1", ...
    seconds: float  # since the start
    evaluations: float  # since the start, see Objective
    image: Tensor  # after this step: (1, 3, H, W), clamped to [0, 1], on the CPU


@dataclass
class Result:
    """The picture and how it came about."""

    image: Tensor  # (1, 3, H, W), RGB in [0, 1], on the CPU
    settings: Settings
    # One row an iteration: losses, "seconds", "evaluations" (see Objective) and "size", the longest side.
    history: list[dict[str, float]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        """Time the optimization took."""
        return self.history[-1]["seconds"] if self.history else 0.0

    def describe(self) -> dict[str, Any]:
        """Settings and outcome, to be saved with the picture; "final" holds the last row of the history."""
        final = dict(self.history[-1]) if self.history else {}
        return {"method": "gatys", **asdict(self.settings), "interrupted": self.interrupted, "final": final}


class Checkpoint:
    """A file from which a killed run goes on, with the pixels it would have had (on the same device).

    Args:
        path: the file.
        every: seconds between two savings; 0 saves after each iteration.
    """

    def __init__(self, path: str | os.PathLike[str], every: float = 30.0) -> None:
        self.path, self.every = Path(path), every
        self._last = time.monotonic()

    def load(self, fingerprint: str) -> dict[str, Any] | None:
        """The saved run, or None if there is none.

        Raises:
            SettingError: the file is of another run, or no checkpoint.
        """
        if not self.path.exists():
            return None
        try:
            saved = dict(torch.load(self.path, weights_only=True))
        except Exception:  # torch.load raises half a dozen kinds on a broken file
            saved = {}
        if saved.get("fingerprint") != fingerprint:
            raise SettingError(
                f"'{self.path}' is no checkpoint of these pictures and settings: give those it was made with "
                "to go on, or delete it to begin anew."
            )
        return saved

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= self.every

    def save(self, content: dict[str, Any]) -> None:
        """Write the run's state.

        Raises:
            ImageError: the disk is full or the file cannot be written.
        """
        # Through a file of Python's: torch's own turns a full disk into a RuntimeError of many lines.
        with atomic(self.path) as part, part.open("wb") as file:
            torch.save(content, file)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the file, once the picture is safe."""
        self.path.unlink(missing_ok=True)


@dataclass
class Run:
    """One run through all its sizes: optimizer, average, history, and where they are saved."""

    settings: Settings
    iterations: int  # planned, at all sizes together
    seed: int = 0  # of the random optimizers
    callback: Callback | None = None  # see stylize
    progress: bool = True  # show a progress bar on standard error
    checkpoint: Checkpoint | None = None
    fingerprint: str = ""  # tells this run from others in the checkpoint
    finish: Callable[[Tensor], Tensor] | None = None  # applied to every picture that is shown
    history: list[dict[str, float]] = field(default_factory=list)
    optimizer: Optimizer | None = None
    average: Tensor | None = None
    stage: int = 0  # which size
    step: int = 0  # iterations done at this size
    interrupted: bool = False
    stopped: bool = False  # interrupted, or by the callback

    def __post_init__(self) -> None:
        self._saved = self.checkpoint.load(self.fingerprint) if self.checkpoint is not None else None
        for name in ("history", "average", "stage", "step") if self._saved else ():
            setattr(self, name, self._saved[name])  # type: ignore[index]
        # Computing time, that of an interrupted run before this one included.
        self._started = time.perf_counter() - (self.history[-1]["seconds"] if self.history else 0.0)

    def minimize(self, objective: Objective, start: Tensor, steps: int) -> Tensor:
        """Take ``steps`` iterations at one size, from ``start`` or from where a saved run stopped.

        Returns:
            The picture reached, unclamped, on the objective's device.

        Raises:
            OptimizationError: the loss is no longer a number; its ``result`` holds the last good picture.
            ImageError: the checkpoint cannot be written.
        """
        s = self.settings
        start = start.detach().to(objective.extractor.device)
        if self.optimizer is None:
            kind = OPTIMIZERS[s.optimizer]
            self.optimizer = kind(start, s, iterations=self.iterations, seed=self.seed)
            if self._saved is not None:
                self.optimizer.load(self._saved["optimizer"])
        else:
            self.optimizer.resize(start)
            self.average = None
        optimizer, self._saved = self.optimizer, None
        before = self.history[-1]["evaluations"] if self.history else 0.0
        good = self._current(objective)
        bar = tqdm(
            total=self.iterations, initial=len(self.history), desc=f"{s.network} {s.optimizer}", unit="it",
            disable=not self.progress,
        )  # fmt: skip
        try:
            while self.step < steps and not self.stopped:
                evaluated = self._current(objective)
                losses = optimizer.step(objective)
                if not math.isfinite(losses["total"]):
                    raise OptimizationError(
                        f"The loss is not a number at iteration {len(self.history) + 1}: lower the learning "
                        "rate or the weights, or take precision float32; the last good picture is kept.",
                        self.result(good),
                    )
                good = evaluated
                average = self._averaged(optimizer.x)
                self.step, self.average = self.step + 1, average  # together: Ctrl-C may come between lines
                self.history.append({
                    "iteration": len(self.history) + 1, "seconds": time.perf_counter() - self._started,
                    "evaluations": before + objective.evaluations, "size": max(start.shape[-2:]),
                    **losses,
                })  # fmt: skip
                bar.update()
                bar.set_postfix(loss=f"{losses['total']:.4g}", refresh=False)
                if self.checkpoint is not None and self.checkpoint.due():
                    self.save()
                if self.callback is not None:
                    row, image = self.history[-1], self._shown(self._current(objective))
                    now = Progress(
                        len(self.history), self.iterations, losses, row["seconds"], row["evaluations"], image
                    )
                    self.stopped = self.callback(now) is False
            if self.checkpoint is not None:
                # Not after an interrupt: it may come in the middle of a step, and the file's state is whole.
                self.save()
        except KeyboardInterrupt:
            self.stopped = self.interrupted = True
        finally:
            bar.close()
        # The last step may have gone anywhere, and nobody knows its loss: no picture of NaNs comes out.
        reached = self._current(objective)
        return reached if bool(torch.isfinite(reached).all()) else good

    def save(self) -> None:
        """Write the checkpoint."""
        assert self.checkpoint is not None
        assert self.optimizer is not None
        if not bool(torch.isfinite(self.optimizer.x).all()):
            return  # the next loss will tell; the file keeps a picture
        content = {
            name: getattr(self, name) for name in ("fingerprint", "history", "average", "stage", "step")
        }
        self.checkpoint.save({**content, "optimizer": self.optimizer.state()})

    def result(self, x: Tensor) -> Result:
        """The outcome with this picture."""
        return Result(self._shown(x), self.settings, self.history, self.interrupted)

    def _shown(self, x: Tensor) -> Tensor:
        """The picture as it would be saved."""
        image = x.detach().clamp(0, 1).cpu().float()
        return image if self.finish is None else self.finish(image)

    def _current(self, objective: Objective) -> Tensor:
        """The picture as it stands: the average if one is taken, the content outside the masks."""
        assert self.optimizer is not None
        x = self.optimizer.x.detach()
        if self.average is not None:
            x = self.average / (1 - self.settings.averaging**self.step)
        return objective.canvas(x)  # the optimizer changes no tensor in place, so this one will not change

    def _averaged(self, x: Tensor) -> Tensor | None:
        """An exponential average of the iterates, from zero; dividing by 1 - d^n takes the zero out again."""
        decay = self.settings.averaging
        if not decay:
            return None
        before = torch.zeros_like(x) if self.average is None else self.average
        return decay * before + (1 - decay) * x.detach()


def minimize(
    objective: Objective, image: Tensor, *, callback: Callback | None = None, progress: bool = True,
    seed: int = 0,
) -> Result:  # fmt: skip
    """Change ``image`` until ``objective`` is small; the loop of papers A, B and D.

    Pixels are free during the optimization and are clamped to [0, 1] only when looked at: clamping inside it
    would falsify the differences of gradients from which L-BFGS estimates curvature, the usual cause of black
    pictures.

    Args:
        objective: what to minimize, with the settings.
        image: (1, 3, H, W) to start from; it is not changed.
        callback: called after each iteration; returning False stops, with everything up to then kept.
        progress: show a progress bar on standard error.
        seed: of the random optimizers.

    Returns:
        The result; after Ctrl-C the picture reached so far, with ``interrupted=True``.

    Raises:
        OptimizationError: the loss is no longer a number; its ``result`` holds the last good picture.
    """
    settings = objective.settings
    run = Run(settings, settings.iterations, seed, callback, progress)
    return run.result(run.minimize(objective, image, settings.iterations))
