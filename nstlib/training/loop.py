"""The loop: batches by number, steps by the task, averages, checkpoints, a log, and an orderly end.

Each step starts its own random numbers from (seed, step, process), and which pictures a step sees is a
function of its number. So nothing random has to be saved, and a training that was killed goes on as if it had
not been. Several processes (``accelerate launch``) share each batch, and their gradients are averaged: the
same training as one process with the whole batch, up to the rounding of sums.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import NstError, OptimizationError, SettingError
from ..nets.hardware import resolve_device, resolve_precision
from .checkpoint import Checkpoints, Saved, State
from .task import Callback, NotFiniteError, Progress, Schedule, Step, Task, TrainingResult


def train(
    task: Task,
    schedule: Schedule,
    folder: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "auto",
    precision: str | torch.dtype = "auto",
    callback: Callback | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a task's networks, from where the folder's last checkpoint stands.

    Args:
        task: what to train, see :class:`Task`. Its modules are trained in place, and moved to the device.
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
        OptimizationError: a loss is no longer a number, or a checkpoint cannot be written; its ``result``
            holds what was reached.
        SettingError: the folder holds another training, or the batch cannot be shared.
    """
    trainer = Trainer(task, schedule, folder, device, precision)
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    bar = tqdm(
        total=schedule.steps, initial=trainer.step, desc="training", unit="step",
        disable=not (progress and trainer.accelerator.is_main_process),
    )  # fmt: skip
    stop = False
    # The random numbers of whoever calls are theirs again afterwards.
    with (
        bar, _stop_signals() as asked, torch.random.fork_rng(devices), _restored(task),
        ThreadPoolExecutor(1) as ahead,
    ):  # fmt: skip
        coming = _submit(ahead, trainer)
        while coming is not None and not stop:
            batch = trainer.guarded(coming.result)
            coming = _submit(ahead, trainer, trainer.step + 1)
            losses = trainer.learn(batch, asked)
            bar.update()
            bar.set_postfix({name: f"{value:.4g}" for name, value in list(losses.items())[:1]}, refresh=False)
            stop = trainer.tell(callback, losses) or trainer.interrupted
    trainer.save()
    trainer.accelerator.wait_for_everyone()
    trainer.interrupted &= trainer.step < schedule.steps  # asked for in the last step, it came too late
    return trainer.result()


def _submit(ahead: ThreadPoolExecutor, trainer: Trainer, number: int | None = None) -> Future[Any] | None:
    """Have a batch loaded while the step before it is computed; None behind the last step."""
    number = trainer.step if number is None else number
    return ahead.submit(trainer.load_batch, number) if number < trainer.schedule.steps else None


class Trainer:
    """The state of one training: networks, optimizers, averages, history, and where it is saved.

    Arguments as for :func:`train`.

    Attributes:
        accelerator: Hugging Face's.
        modules: the task's, prepared for several processes.
        step: steps done.
        history: a row for each of them.
        interrupted: whether somebody has asked for an end.
    """

    def __init__(
        self, task: Task, schedule: Schedule, folder: str | os.PathLike[str] | None,
        device: str | torch.device, precision: str | torch.dtype,
    ) -> None:  # fmt: skip
        self.task, self.schedule = task, schedule
        self.accelerator = _accelerator(device, precision)
        several = self.accelerator.num_processes > 1
        self.device = self.accelerator.device if several else resolve_device(device)
        self.share, rest = divmod(schedule.batch, self.accelerator.num_processes)
        if rest:
            raise SettingError(
                f"{self.accelerator.num_processes} processes cannot share a batch of {schedule.batch} alike: "
                "take a multiple."
            )
        self.step, self.interrupted = 0, False
        self.history: list[dict[str, float]] = []
        self.averages: State = {}
        self.checkpoints: Checkpoints | None = None
        self._began = self._saved_at = time.monotonic()
        self._before = 0.0  # seconds of the runs this one goes on from
        saved = None if folder is None else self._open(folder)
        for module in task.modules.values():
            module.to(self.device).train()
        if saved is not None:
            self._load(saved)
        if schedule.average:
            for name, state in (saved.averages if saved is not None else self.weights()).items():
                self.averages[name] = {k: t.detach().to(self.device, copy=True) for k, t in state.items()}
        prepare = {"device_placement": several}
        self.modules = {k: self.accelerator.prepare_model(m, **prepare) for k, m in task.modules.items()}
        self.optimizers = {
            k: self.accelerator.prepare_optimizer(o, **prepare) for k, o in task.optimizers.items()
        }

    def _open(self, folder: str | os.PathLike[str]) -> Saved | None:
        """The training in the folder, for all processes: the first one makes it and begins the log."""
        description = {**self.task.describe(), **asdict(self.schedule)}
        for name in ("steps", "save_every"):  # a training may be made longer, and saved at other times
            description.pop(name)
        first = self.accelerator.is_main_process
        if first:
            self.checkpoints = Checkpoints(folder, description)
        self.accelerator.wait_for_everyone()
        if self.checkpoints is None:
            self.checkpoints = Checkpoints(folder, description)
        saved = self.checkpoints.load()
        if first:
            self.checkpoints.begin_log(saved.history if saved else [])
        return saved

    def _load(self, saved: Saved) -> None:
        try:
            for name, module in self.task.modules.items():
                module.load_state_dict(saved.weights[name])
            for name, optimizer in self.task.optimizers.items():
                optimizer.load_state_dict(saved.optimizers[name])
            if self.schedule.average and _shapes(saved.averages) != _shapes(self.weights()):
                raise ValueError
        except (KeyError, ValueError, RuntimeError) as error:
            assert self.checkpoints is not None
            raise SettingError(
                f"The training saved in '{self.checkpoints.latest()}' is of other networks: delete "
                f"'{self.checkpoints.folder}' to begin anew, or name another folder."
            ) from error
        self.step, self.history = saved.step, saved.history
        self._before = self.history[-1]["seconds"]

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

    def load_batch(self, number: int) -> Any:
        """This process's part of a step's batch."""
        first = number * self.schedule.batch + self.accelerator.process_index * self.share
        return self.task.batch(range(first, first + self.share))

    def learn(self, batch: Any, asked: threading.Event) -> dict[str, float]:
        """One step: the task's, then the average's, then the history's."""
        torch.manual_seed(self.seed_of(self.step))
        step = Step(self, self.step, _moved(batch, self.device))
        losses = self.guarded(lambda: dict(self.task.step(step)), step)
        row = self.mean({**losses, "stop": torch.tensor(float(asked.is_set()))})
        self.interrupted = row.pop("stop") > 0
        self.step += 1
        self._average()
        seconds = self._before + time.monotonic() - self._began
        self.history.append({"step": self.step, "seconds": round(seconds, 3), **row})
        return row

    def guarded(self, work: Any, step: Step | None = None) -> Any:
        """Do some work of a step; whatever ends it, what had been learned before the step is kept.

        Raises:
            OptimizationError: a loss or gradient is no number.
        """
        try:
            return work()
        except NotFiniteError as error:
            raise OptimizationError(
                f"The loss is not a number at step {self.step + 1}: lower the learning rate or a loss's "
                f"weight, or take precision float32. {self._kept(step)}",
                self.result(),
            ) from error
        except NstError as error:  # a picture that cannot be read
            raise type(error)(f"{error} {self._kept(step)}") from error
        except Exception:  # no memory
            self._kept(step)
            raise

    def _kept(self, step: Step | None) -> str:
        """Save the last step, unless another has begun to change it, and say what is kept."""
        if self.checkpoints is None:
            return "Nothing is kept, as no folder was named."
        if step is None or not step.learned:
            if step is not None:
                step.undo()
            with suppress(OptimizationError):  # then an earlier one is there, or none
                self.save()
        if not self.accelerator.is_main_process:  # which may be about to save
            return "What is kept, the first process says."
        kept = self.checkpoints.latest()
        if kept is None:
            return "No step had been saved yet."
        return f"Step {int(kept.name.removeprefix('step-'))} is kept in '{self.checkpoints.folder}'."

    def tell(self, callback: Callback | None, losses: Mapping[str, float]) -> bool:
        """Log, save if it is time to, and ask the callback.

        Returns:
            Whether the callback wants an end.

        Raises:
            OptimizationError: the log or a checkpoint cannot be written.
        """
        stop = False
        if self.accelerator.is_main_process:
            if self.checkpoints is not None:
                try:
                    self.checkpoints.log(self.history)
                except OptimizationError as error:  # not saved either: its losses would be missing
                    error.result = self.result()
                    raise
            if time.monotonic() - self._saved_at >= self.schedule.save_every:
                self.save()
            if callback is not None:
                seconds, steps = self.history[-1]["seconds"], self.schedule.steps
                told = Progress(self.step, steps, losses, seconds, self.task.modules, self.history)
                stop = callback(told) is False
        if self.accelerator.num_processes > 1:  # only the first process has asked
            stop = self.mean({"stop": torch.tensor(float(stop))})["stop"] > 0
        return stop

    def save(self) -> None:
        """Write a checkpoint, unless a weight is no number.

        Raises:
            OptimizationError: it cannot be written.
        """
        self._saved_at = time.monotonic()
        if self.checkpoints is None or not self.accelerator.is_main_process or not self.step:
            return
        weights = self.weights()
        if not all(bool(torch.isfinite(t).all()) for state in weights.values() for t in state.values()):
            return  # it must not take the place of one that is
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.task.optimizers.items()}
        try:
            self.checkpoints.save(self.step, weights, self.averages, optimizers)
        except OptimizationError as error:
            error.result = self.result()
            raise

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

    def result(self) -> TrainingResult:
        """What has been reached."""
        return TrainingResult(self.step, self.task.modules, self.averages, self.history, self.interrupted)


def _shapes(state: State) -> dict[tuple[str, str], torch.Size]:
    return {(name, key): t.shape for name, tensors in state.items() for key, t in tensors.items()}


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(_moved(value, device) for value in batch)
    return batch


def _accelerator(device: str | torch.device, precision: str | torch.dtype) -> Any:
    """Hugging Face's Accelerator: alone, or one of the processes that ``accelerate launch`` has started."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        # It remembers the device of an earlier training in this process, and would insist on it.
        AcceleratorState._reset_state(reset_partial_state=True)
    resolved = resolve_device(device)
    half = resolve_precision(precision, resolved) is torch.bfloat16
    return Accelerator(cpu=resolved.type == "cpu", mixed_precision="bf16" if half else "no")


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
