"""The loop that changes a picture until its objective is small: watched, averaged, interrupted, resumed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ...errors import OptimizationError, SettingError
from .objective import Objective
from .optimizers import Optimizer, make_optimizer
from .settings import Settings

Callback = Callable[["Progress"], "bool | None"]


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each iteration."""

    iteration: int  # 1, 2, ... through all sizes
    iterations: int
    losses: Mapping[str, float]  # before this step: "total", "content", "style", "tv", "style/relu1_1", ...
    seconds: float  # since the start
    evaluations: float  # since the start, see Counts
    image: Tensor  # after this step: (1, 3, H, W), clamped to [0, 1], on the CPU


@dataclass
class Result:
    """The picture and how it came about."""

    image: Tensor  # (1, 3, H, W), RGB in [0, 1], on the CPU
    settings: Settings
    # One row an iteration: losses, "seconds", "evaluations" (see Counts) and "size", the longest side.
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
        path: the file; written beside itself and renamed, so it is whole or not there.
        every: seconds between two savings; 0 saves after each iteration.
    """

    def __init__(self, path: str | os.PathLike[str], every: float = 30.0) -> None:
        self.path, self.every = Path(path), every
        self._last = time.monotonic()
        if not self.path.parent.is_dir():
            raise SettingError(
                f"The folder '{self.path.parent}' of the checkpoint does not exist: make it first."
            )

    def load(self, fingerprint: str) -> dict[str, Any] | None:
        """The saved run, or None if there is none.

        Raises:
            SettingError: the file is of another run, or no checkpoint.
        """
        # A run that was killed while it wrote has left its half behind.
        for half in self.path.parent.glob(f".{escape(self.path.name)}.*.tmp"):
            half.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            found = saved["fingerprint"]
        except Exception as error:  # torch.load raises half a dozen kinds on a broken file
            raise SettingError(
                f"'{self.path}' is not a checkpoint of this course: delete it, or name another file."
            ) from error
        if found != fingerprint:
            raise SettingError(
                f"The checkpoint '{self.path}' is of other pictures or settings: "
                "give those again to go on, or delete it to begin anew."
            )
        return saved

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= self.every

    def save(self, content: dict[str, Any]) -> None:
        """Write the run's state.

        Raises:
            OptimizationError: the disk is full or the file cannot be written.
        """
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            torch.save(content, temporary)
            os.replace(temporary, self.path)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            raise OptimizationError(
                f"The checkpoint '{self.path}' cannot be written ({error}): make room or choose another file."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the file, once the picture is safe."""
        self.path.unlink(missing_ok=True)


class Run:
    """The state of one run, through all its sizes: optimizer, average, history, and where it is saved.

    Args:
        settings: of the whole run.
        iterations: planned, at all sizes together.
        seed: of the random optimizers.
        callback: called after each iteration; returning False stops, with everything up to then kept.
        progress: show a progress bar on standard error.
        checkpoint: where to save, if anywhere.
        fingerprint: tells this run from others in the checkpoint.
        finish: applied to every picture that is shown (colors put back).
    """

    def __init__(
        self,
        settings: Settings,
        iterations: int,
        *,
        seed: int = 0,
        callback: Callback | None = None,
        progress: bool = True,
        checkpoint: Checkpoint | None = None,
        fingerprint: str = "",
        finish: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.settings, self.iterations, self.seed = settings, iterations, seed
        self.callback, self.progress = callback, progress
        self.checkpoint, self.fingerprint, self.finish = checkpoint, fingerprint, finish
        self.history: list[dict[str, float]] = []
        self.optimizer: Optimizer | None = None
        self.average: Tensor | None = None
        self.stage = 0  # which size
        self.step = 0  # iterations done at this size
        self.evaluations = 0.0  # at the sizes before
        self.stopped = False
        self.interrupted = False
        self._started = time.perf_counter()
        self._before = 0.0  # seconds of the runs this one goes on from
        self._saved = checkpoint.load(fingerprint) if checkpoint is not None else None
        if self._saved is not None:
            for name in ("history", "stage", "step", "evaluations", "average"):
                setattr(self, name, self._saved[name])
            self._before = self.history[-1]["seconds"] if self.history else 0.0

    @property
    def seconds(self) -> float:
        """Computing time, that of an interrupted run before this one included."""
        return self._before + time.perf_counter() - self._started

    def minimize(self, objective: Objective, start: Tensor, steps: int) -> Tensor:
        """Take ``steps`` iterations at one size, from ``start`` or from where a saved run stopped.

        Returns:
            The picture reached, unclamped, on the objective's device.

        Raises:
            OptimizationError: the loss is no longer a number; its ``result`` holds the last good picture.
        """
        x = start.detach().to(objective.extractor.device)
        s, longest = self.settings, max(x.shape[-2:])
        if self.optimizer is None:
            self.optimizer = make_optimizer(
                s.optimizer, x, learning_rate=s.learning_rate, smoothing=s.smoothing,
                history_size=s.history_size,
                restart_every=s.restart_every, seed=self.seed, iterations=self.iterations,
            )  # fmt: skip
        else:
            self.optimizer.resize(x)
            self.average = None
        del start, x  # of a large picture each copy counts
        if self._saved is not None:
            self.optimizer.load(self._saved["optimizer"])
            objective.counts.__dict__.update(self._saved["counts"])
            self._saved = None
        optimizer = self.optimizer
        good = self._current(objective)
        bar = tqdm(
            total=self.iterations, initial=len(self.history), desc=f"{s.network} {s.optimizer}", unit="it",
            disable=not self.progress,
        )  # fmt: skip
        try:
            while self.step < steps:
                evaluated = self._current(objective)
                losses = optimizer.step(objective)
                if not math.isfinite(losses["total"]):
                    raise OptimizationError(
                        f"The loss is not a number at iteration {len(self.history) + 1}: lower the learning "
                        "rate or the weights, or take precision float32; the last good picture is kept.",
                        Result(self.shown(good), s, self.history),
                    )
                good = evaluated
                average = self._averaged(optimizer.x)
                self.step, self.average = self.step + 1, average  # together: Ctrl-C may come between lines
                self.history.append({
                    "iteration": len(self.history) + 1, "seconds": self.seconds,
                    "evaluations": self.evaluations + objective.counts.evaluations,
                    "size": longest, **losses,
                })  # fmt: skip
                bar.update()
                bar.set_postfix(loss=f"{losses['total']:.4g}", refresh=False)
                if self.checkpoint is not None and self.checkpoint.due():
                    self.save(objective)
                if self.callback is not None:
                    image = self.shown(self._current(objective))
                    row = self.history[-1]
                    told = Progress(
                        int(row["iteration"]),
                        self.iterations,
                        losses,
                        row["seconds"],
                        row["evaluations"],
                        image,
                    )
                    if self.callback(told) is False:
                        self.stopped = True
                        break
            if self.checkpoint is not None:
                # Not after an interrupt: it may come in the middle of a step, and the file's state is whole.
                self.save(objective)
        except KeyboardInterrupt:
            self.stopped = self.interrupted = True
        finally:
            bar.close()
        # The last step may have gone anywhere, and nobody has seen its loss: no picture of NaNs comes out.
        reached = self._current(objective)
        return reached if bool(torch.isfinite(reached).all()) else good

    def next_size(self, objective: Objective) -> None:
        """Go on to the next size: what was counted at the last one is kept."""
        self.evaluations += objective.counts.evaluations
        self.stage, self.step = self.stage + 1, 0

    def save(self, objective: Objective) -> None:
        """Write the checkpoint.

        Raises:
            OptimizationError: it cannot be written; its ``result`` holds the picture reached.
        """
        assert self.checkpoint is not None
        assert self.optimizer is not None
        if not bool(torch.isfinite(self.optimizer.x).all()):
            return  # the next loss will tell; the file keeps a picture
        try:
            self.checkpoint.save({
                "fingerprint": self.fingerprint, "stage": self.stage, "step": self.step,
                "history": self.history, "evaluations": self.evaluations, "average": self.average,
                "counts": dict(vars(objective.counts)), "optimizer": self.optimizer.state(),
            })  # fmt: skip
        except OptimizationError as error:
            error.result = Result(self.shown(self._current(objective)), self.settings, self.history)
            raise

    def shown(self, x: Tensor) -> Tensor:
        """The picture as it would be saved."""
        image = x.detach().clamp(0, 1).cpu().float()
        return image if self.finish is None else self.finish(image)

    def _current(self, objective: Objective) -> Tensor:
        """The picture as it stands: the average if one is taken, the content outside the masks."""
        assert self.optimizer is not None
        x = self.optimizer.x.detach()
        if self.average is not None and self.settings.averaging:
            x = self.average.to(x.device) / (1 - self.settings.averaging**self.step)
        return objective.canvas(x)  # the optimizer changes no tensor in place, so this one will not change

    def _averaged(self, x: Tensor) -> Tensor | None:
        """An exponential average of the iterates, from zero; dividing by 1 - d^n takes the zero out again."""
        decay = self.settings.averaging
        if not decay:
            return None
        before = torch.zeros_like(x) if self.average is None else self.average.to(x.device)
        return decay * before + (1 - decay) * x.detach()


def minimize(
    objective: Objective,
    image: Tensor,
    *,
    callback: Callback | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Result:
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
    run = Run(settings, settings.iterations, seed=seed, callback=callback, progress=progress)
    reached = run.minimize(objective, image, settings.iterations)
    return Result(run.shown(reached), settings, run.history, run.interrupted)
