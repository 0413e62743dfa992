"""What a training is told and tells: schedule, the task that a method brings, step, progress, result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import Count, Decay, NotNegative, Settings, settings
from .checkpoint import State

if TYPE_CHECKING:
    from .loop import Trainer


@settings
class Schedule(Settings):
    """How long and how a training runs; nothing about what is learned."""

    steps: Count = Field(default=1000, description="Steps.")
    batch: Count = Field(default=4, description="Pictures a step, of all processes together.")
    average: Decay = 0.0  # of the weights' exponential moving average; 0 takes none
    save_every: NotNegative = 60.0  # seconds between two checkpoints
    seed: Annotated[int, Field(ge=0)] = 0


def cosine_decay(progress: float, end: float) -> float:
    """A learning rate's factor: from 1 to ``end`` along half a cosine, as ``progress`` goes from 0 to 1."""
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


class Task:
    """What a method brings along.

    Attributes:
        modules: the networks that learn, by name; they are saved, and averaged if that is wanted.
        optimizers: by name, over these networks' parameters.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def describe(self) -> dict[str, Any]:
        """What JSON can hold: everything that, changed, would make another training."""
        return {}

    def batch(self, positions: Sequence[int]) -> Any:
        """The pictures at these positions, counted through the whole training: a tensor, or several.

        Called ahead of time, in another thread.
        """
        raise NotImplementedError

    def step(self, step: Step) -> Mapping[str, Tensor]:
        """Learn from ``step.batch`` by :meth:`Step.descend`; the losses to log, the first one shown."""
        raise NotImplementedError


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

    @property
    def losses(self) -> dict[str, float]:
        """Those of the last step, with four digits."""
        return {k: float(f"{v:.4g}") for k, v in self.history[-1].items() if k not in ("step", "seconds")}


Callback = Callable[[Progress], "bool | None"]
