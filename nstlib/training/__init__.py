"""One training loop for every method that learns: resumed exactly, saved whole, stopped without a loss.

A method brings a :class:`Task` (its networks, its optimizers, one step); :func:`train` brings the rest.

    >>> result = train(task, Schedule(steps=1000), folder="runs/starry_night")   # doctest: +SKIP
"""

from .checkpoint import Checkpoints, digest, means
from .data import Pictures, shuffled
from .loop import Callback, Progress, Schedule, State, Step, Task, TrainingResult, cosine_decay, train
from .pool import ReplayPool

__all__ = [
    "Callback", "Checkpoints", "Pictures", "Progress", "ReplayPool", "Schedule", "State", "Step", "Task",
    "TrainingResult", "cosine_decay", "digest", "means", "shuffled", "train",
]  # fmt: skip
