"""The training loop: batches by number, steps by the task, moving averages, checkpoints, an orderly end.

Each step seeds its random numbers from (seed, step, process), and which pictures a step gets is a function of
its number. So no random state has to be saved, and a training that was killed goes on as if it had not been.
Several processes (``accelerate launch``) share each batch, and their gradients are averaged: the same
training as one process with the whole batch, up to the rounding of sums.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import Count, Decay, NotNegative, OptimizationError, SettingError, Settings, settings
from ..nets.hardware import resolve_device, resolve_precision
from .checkpoint import Checkpoints

State = dict[str, dict[str, Tensor]]  # module -> its state dict


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
    """What a method brings to :func:`train`: networks, optimizers, batches, and one step.

    Attributes:
        modules: the networks that learn, by name; they are saved, and averaged if that is wanted.
        optimizers: by name, over these networks' parameters.
        settings: what is learned, and how.
        faces: where :meth:`batch` takes its pictures.
        decay: the last step's learning rates as a part of the first's.
        sources: what it learns from, as JSON can hold it: numbers of pictures, digests.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    settings: Any = None
    faces: Any
    decay: float = 1.0
    sources: Mapping[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """What JSON can hold: everything that, changed, would make another training."""
        settings = asdict(self.settings) if self.settings else {}
        return {"task": type(self).__name__, **settings, **self.sources}

    def batch(self, positions: Sequence[int]) -> Any:
        """The pictures at these positions, counted through the whole training: a tensor, or several."""
        return self.faces(positions)

    def rate(self, progress: float) -> float:
        """The factor of all learning rates when this part of the steps is done, from 1 to ``decay``."""
        return cosine_decay(progress, self.decay)

    def step(self, step: Step) -> Mapping[str, Tensor]:
        """Learn from ``step.batch`` by :meth:`Step.descend`; the losses to log, the first one shown."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What else has to be resumed: a replay pool, for example. Tensors, numbers, containers of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""


@dataclass
class Step:
    """One step, as a task sees it."""

    number: int  # 0, 1, ...
    batch: Any  # what the task's batch gave for this process, on the device
    modules: Mapping[str, nn.Module]  # ready for several processes: call these, not the task's own
    device: torch.device
    generator: torch.Generator  # random numbers of this step and process, on the CPU
    descend: Callable[..., float]
    """``descend(loss, optimizer="main", clip=inf)``: one step of an optimizer down a scalar loss, the mean
    over this process's part of the batch. ``clip`` is the largest norm of the gradient. Returns the norm."""


@dataclass(frozen=True)
class Progress:
    """What a callback gets after each step."""

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
    modules: Mapping[str, nn.Module]
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


def train(
    task: Task, schedule: Schedule, folder: str | os.PathLike[str] | None = None, *,
    device: str | torch.device = "auto", precision: str | torch.dtype = "auto",
    callback: Callback | None = None, progress: bool = True,
) -> TrainingResult:  # fmt: skip
    """Train a task's networks, from where the folder's last checkpoint stands.

    Args:
        task: what to train. Its modules are trained in place, and moved to the device.
        schedule: how long.
        folder: where to keep checkpoints and the log; None keeps nothing, and cannot be resumed.
        device: see :func:`nstlib.nets.hardware.resolve_device`; of several processes each has its own.
        precision: of the modules' convolutions, see :func:`nstlib.nets.hardware.resolve_precision`; weights
            and sums are float32.
        callback: called after each step; returning False stops, with everything up to then kept.
        progress: show a progress bar with rate and remaining time on standard error.

    Returns:
        The result; after Ctrl-C (or a termination signal) what was reached, with ``interrupted=True``: the
        same call with the same folder goes on from there. A second Ctrl-C does not wait for the step's end.

    Raises:
        OptimizationError: a loss is no longer a number, or a checkpoint cannot be written.
        SettingError: the folder holds another training, or the batch cannot be shared.
    """
    run = _Run(task, schedule, folder, device, precision)
    devices = [run.device] if run.device.type == "cuda" else []
    bar = tqdm(total=schedule.steps, initial=run.step, desc="training", unit="step",
        disable=not (progress and run.first))  # fmt: skip
    # The random numbers of whoever calls are theirs again afterwards.
    with bar, _stop_signals() as asked, torch.random.fork_rng(devices), _restored(task):
        stop, saved_at = False, time.monotonic()
        while run.step < schedule.steps and not stop:
            losses = run.learn(asked)
            bar.update()
            bar.set_postfix({name: f"{value:.4g}" for name, value in list(losses.items())[:1]}, refresh=False)
            if time.monotonic() - saved_at >= schedule.save_every:
                run.save()
                saved_at = time.monotonic()
            if callback is not None and run.first:
                seconds = run.history[-1]["seconds"]
                now = Progress(run.step, schedule.steps, losses, seconds, task.modules, run.history)
                stop = callback(now) is False
            stop = run.mean({"stop": torch.tensor(float(stop))})["stop"] > 0 or run.interrupted
    run.save()
    run.accelerator.wait_for_everyone()
    run.interrupted &= run.step < schedule.steps  # asked for in the last step, it came too late
    return TrainingResult(run.step, task.modules, run.averages, run.history, run.interrupted)


class _Run:
    """The state of one training: networks, optimizers, averages, history, and where it is saved."""

    def __init__(
        self, task: Task, schedule: Schedule, folder: str | os.PathLike[str] | None,
        device: str | torch.device, precision: str | torch.dtype,
    ) -> None:  # fmt: skip
        self.task, self.schedule = task, schedule
        self.accelerator = _accelerator(device, precision)
        self.first = bool(self.accelerator.is_main_process)
        several = self.accelerator.num_processes > 1
        self.device = self.accelerator.device if several else resolve_device(device)
        processes = self.accelerator.num_processes
        self.share, rest = divmod(schedule.batch, processes)
        if rest:
            raise SettingError(f"A batch of {schedule.batch} is no multiple of {processes} processes.")
        self.step, self.interrupted = 0, False
        self.history: list[dict[str, float]] = []
        self.averages: State = {}
        self.rates = [[g["lr"] for g in o.param_groups] for o in task.optimizers.values()]
        for module in task.modules.values():
            module.to(self.device).train()
        if schedule.average:
            self.averages = {name: _copied(state, self.device) for name, state in self.weights().items()}
        self.checkpoints = None if folder is None else self._opened(folder)
        self._began = time.monotonic() - (self.history[-1]["seconds"] if self.history else 0.0)
        ready = self.accelerator.prepare_model
        self.modules = {k: ready(module, device_placement=several) for k, module in task.modules.items()}

    def _opened(self, folder: str | os.PathLike[str]) -> Checkpoints:
        """The folder, and what it holds; the first of several processes makes it."""
        description = {**self.task.describe(), **asdict(self.schedule)}
        del description["save_every"]
        if self.task.rate(1.0) == 1:  # it may be made longer, unless the rate falls towards the end
            del description["steps"]
        with self.accelerator.main_process_first():
            checkpoints = Checkpoints(folder, description)
        saved = checkpoints.load()
        if saved is None:
            return checkpoints
        try:
            for name, module in self.task.modules.items():
                module.load_state_dict(saved["weights"][name])
            for name, optimizer in self.task.optimizers.items():
                optimizer.load_state_dict(saved["optimizers"][name])
            self.averages = {name: _copied(saved["averages"][name], self.device) for name in self.averages}
            self.task.load_state_dict(saved["task"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise SettingError(f"'{folder}' holds a training of other networks: name another.") from error
        self.step, self.history = saved["step"], saved["history"]
        return checkpoints

    def seed_of(self, number: int, stream: int = 0) -> int:
        """Of the random numbers of one step of this process, of which there are two streams."""
        one = 2 * self.accelerator.process_index + stream
        return ((self.schedule.seed * 1_000_003 + number) * 1_009 + one) % 2**62

    def mean(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """The losses of all processes, averaged."""
        values = torch.stack([torch.as_tensor(loss).detach().float().cpu() for loss in losses.values()])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values.to(self.device), "mean").cpu()
        return dict(zip(losses, values.tolist(), strict=True))

    def learn(self, asked: threading.Event) -> dict[str, float]:
        """One step: the task's, then the average's, then the history's."""
        from accelerate.utils import send_to_device

        factor = self.task.rate(self.step / self.schedule.steps)
        for optimizer, rates in zip(self.task.optimizers.values(), self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        start = self.step * self.schedule.batch + self.accelerator.process_index * self.share
        torch.manual_seed(self.seed_of(self.step))
        generator = torch.Generator().manual_seed(self.seed_of(self.step, 1))
        batch = send_to_device(self.task.batch(range(start, start + self.share)), self.device)
        losses = self.task.step(Step(self.step, batch, self.modules, self.device, generator, self._descend))
        row = self.mean({**losses, "stop": torch.tensor(float(asked.is_set()))})
        self.interrupted = row.pop("stop") > 0
        self.step += 1
        self._average()
        seconds = round(time.monotonic() - self._began, 3)
        self.history.append({"step": self.step, "seconds": seconds, **row})
        return row

    def _descend(self, loss: Tensor, optimizer: str = "main", clip: float = math.inf) -> float:
        descending = self.task.optimizers[optimizer]
        descending.zero_grad(set_to_none=True)
        norm = torch.tensor(math.nan)
        if math.isfinite(self.mean({"loss": loss})["loss"]):  # not in one process: then in none
            self.accelerator.backward(loss)
            parameters = [p for group in descending.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, clip)
        if not bool(torch.isfinite(norm)):
            saved = self.checkpoints and self.checkpoints.load()
            kept = f" Step {saved['step']} is kept." if saved else ""
            raise OptimizationError(
                f"The loss is not a number at step {self.step + 1}: lower the learning rate or a loss's "
                f"weight, or take precision float32.{kept}"
            )
        descending.step()
        return float(norm)

    def weights(self) -> State:
        """Those of the task's own modules, which the prepared ones wrap."""
        return {name: module.state_dict() for name, module in self.task.modules.items()}

    @torch.no_grad()
    def _average(self) -> None:
        # At the beginning less is kept, or the average would hold on to the random start.
        decay = min(self.schedule.average, (1 + self.step) / (10 + self.step))
        for name, averages in self.averages.items():
            for key, tensor in self.task.modules[name].state_dict().items():
                if tensor.is_floating_point():
                    averages[key].lerp_(tensor, 1 - decay)
                else:  # batch normalization counts its batches
                    averages[key].copy_(tensor)

    def save(self) -> None:
        """Write a checkpoint, unless a weight is no number: it must not take the place of one that is."""
        if self.checkpoints is None or not self.first or not self.step:
            return
        weights = self.weights()
        if all(bool(torch.isfinite(t).all()) for state in weights.values() for t in state.values()):
            optimizers = {name: optimizer.state_dict() for name, optimizer in self.task.optimizers.items()}
            content = {"step": self.step, "weights": weights, "averages": self.averages}
            content |= {"optimizers": optimizers, "task": self.task.state_dict()}
            self.checkpoints.save(content, self.history)


def _copied(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {key: tensor.detach().to(device, copy=True) for key, tensor in state.items()}


def _accelerator(device: str | torch.device, precision: str | torch.dtype) -> Any:
    """Hugging Face's Accelerator: alone, or one of the processes that ``accelerate launch`` has started."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        # It remembers the device of an earlier training in this process, and would insist on it.
        AcceleratorState._reset_state(reset_partial_state=True)
    resolved = resolve_device(device)
    half = resolve_precision(precision, resolved) is torch.bfloat16
    parts = DistributedDataParallelKwargs(find_unused_parameters=True)  # a step may leave out half a network
    return Accelerator(
        cpu=resolved.type == "cpu", mixed_precision="bf16" if half else "no", kwargs_handlers=[parts]
    )


@contextmanager
def _restored(task: Task) -> Iterator[None]:
    """Afterwards the networks compute in their own precision again, not in Accelerate's autocast."""
    try:
        yield
    finally:
        for module in task.modules.values():
            if vars(module).pop("_original_forward", None) is not None:
                del module.forward


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a termination sets, so that the step can end; the second one interrupts."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield asked
        return

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
