"""What a training is told and tells: schedule, the task that a method brings, step, progress, result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import SettingError
from .checkpoint import State

if TYPE_CHECKING:
    from .loop import Trainer


@dataclass(frozen=True)
class Schedule:
    """How long and how a training runs; nothing about what is learned."""

    steps: int
    batch: int = 4  # pictures a step, of all processes together
    average: float = 0.0  # decay of the weights' exponential average; 0 takes none
    save_every: float = 60.0  # seconds between two checkpoints
    seed: int = 0

    def __post_init__(self) -> None:
        good = {
            "steps": self.steps >= 1,
            "batch": self.batch >= 1,
            "average": 0 <= self.average < 1,
            "save_every": self.save_every >= 0,
            "seed": self.seed >= 0,
        }
        for name in (name for name, fine in good.items() if not fine):
            raise SettingError(f"{name} cannot be {getattr(self, name)}: see Schedule for what it means.")


class Task(Protocol):
    """What a method brings along.

    Attributes:
        modules: the networks that learn, by name; they are saved, and averaged if that is wanted.
        optimizers: by name, over these networks' parameters.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def describe(self) -> dict[str, Any]:
        """What JSON can hold: everything that, changed, would make another training."""

    def batch(self, positions: Sequence[int]) -> Any:
        """The pictures at these positions, counted through the whole training: a tensor, or several.

        Called ahead of time, in another thread.
        """

    def step(self, step: Step) -> Mapping[str, Tensor]:
        """Learn from ``step.batch`` by :meth:`Step.descend`; the losses to log, the first one shown."""


class NotFiniteError(Exception):
    """A loss or gradient is no number."""


class Step:
    """One step, as a task sees it.

    Attributes:
        number: 0, 1, ...
        batch: what :meth:`Task.batch` gave for this process, on the device.
        modules: the networks, ready for several processes: call these, not the task's own.
        device: where they are.
        generator: random numbers of this step and process, on the CPU.
        learned: whether a weight has been changed yet.
    """

    def __init__(self, trainer: Trainer, number: int, batch: Any) -> None:
        self.number, self.batch = number, batch
        self.modules, self.device = trainer.modules, trainer.device
        self.generator = torch.Generator().manual_seed(trainer.seed_of(number, 1))
        self.learned = False
        self._buffers = [(b, b.clone()) for m in trainer.task.modules.values() for b in m.buffers()]
        self._trainer = trainer

    def descend(self, loss: Tensor, optimizer: str = "main", *, clip: float = math.inf) -> float:
        """Take one step of an optimizer down a loss.

        Args:
            loss: a scalar, the mean over this process's part of the batch.
            optimizer: the optimizer's name.
            clip: largest norm of the gradient; a longer one is shortened.

        Returns:
            The gradient's norm, before it was shortened.
        """
        trainer = self._trainer
        descending = trainer.optimizers[optimizer]
        descending.zero_grad(set_to_none=True)
        if not math.isfinite(trainer.mean({"loss": loss})["loss"]):  # in one process: then in all
            raise NotFiniteError
        trainer.accelerator.backward(loss)
        parameters = [p for group in descending.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if not bool(torch.isfinite(norm)):
            raise NotFiniteError
        if norm > clip:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        self.learned = True
        descending.step()
        return float(norm)

    def undo(self) -> None:
        """Put back what a forward pass alone changes: batch normalization's running means."""
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each step."""

    step: int  # steps done: 1, 2, ...
    steps: int
    losses: Mapping[str, float]
    seconds: float
    modules: Mapping[str, nn.Module]  # as they learn: not to be changed
    history: Sequence[Mapping[str, float]]


@dataclass
class TrainingResult:
    """What was learned, and how it went."""

    step: int
    modules: dict[str, nn.Module]
    averages: State  # of the weights, by module; empty if none was taken
    history: list[dict[str, float]] = field(default_factory=list)  # a row a step: "step", "seconds", losses
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        """Time the training took, that of earlier runs it went on from included."""
        return self.history[-1]["seconds"] if self.history else 0.0


Callback = Callable[[Progress], "bool | None"]
