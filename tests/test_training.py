"""The training loop: what it computes, and that nothing that ends it changes or costs what was learned."""

from __future__ import annotations

import csv
import errno
import gc
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nstlib.errors import ImageError, NstError, OptimizationError, SettingError
from nstlib.training import Checkpoints, Pictures, Schedule, Task, data, loop, shuffled, train

TESTS = Path(__file__).parent
STEPS = 12
KILLED_STEPS = 40
# How far two processes may be from one with the whole batch, whose sums are rounded in another order: ten
# times what was measured (2.4e-7 of the weights, 4e-7 of the losses).
WEIGHTS, LOSSES = 3e-6, 5e-6


class Noisy(Task):
    """Two networks with dropout and batch normalization, two optimizers, noise, a loss now and then."""

    def __init__(self, middle=None, name="noisy"):
        with torch.random.fork_rng([]):
            torch.manual_seed(5)
            self.net = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
                nn.Linear(64, 5),
            )  # fmt: skip
            self.critic = nn.Linear(5, 1)
        self.modules = {"net": self.net, "critic": self.critic}
        self.optimizers = {
            "main": torch.optim.Adam(self.net.parameters(), 0.01),
            "critic": torch.optim.SGD(self.critic.parameters(), 0.05, momentum=0.9),
        }
        pictures = torch.rand(7, 3, 9, 8, generator=torch.Generator().manual_seed(1))
        self.pictures = Pictures(pictures, 6, seed=3)
        self.middle = middle or (lambda step: None)  # called between the two descends
        self.name = name

    def describe(self):
        return {"method": self.name, "size": (6, 6)}

    def batch(self, positions):
        return {"pictures": self.pictures(positions), "said": ("x", [torch.tensor(positions)])}

    def step(self, step):
        pictures = step.batch["pictures"]
        seen = step.modules["net"](pictures + 0.1 * torch.randn(pictures.shape, generator=step.generator))
        other = torch.randn(seen.shape)  # of the global random numbers
        judged = step.modules["critic"](seen.detach()) - step.modules["critic"](other)
        critic = judged.mean() + judged.square().mean()
        step.descend(critic, "critic", clip=0.5)
        self.middle(step)
        total = (step.modules["net"](pictures) - 1).square().mean() - self.critic(seen).mean()
        step.descend(total)
        rare = {"rare": seen.mean()} if step.number % 4 == 2 else {}
        return {"total": total, "critic": critic, **rare}


class Smooth(Task):
    """Nothing random and nothing that looks at the whole batch, so that it can be shared by processes.

    The convolution has no bias: instance normalization takes it out again, so that its gradient would be
    rounding and nothing else, which Adam turns into steps of full size.
    """

    def __init__(self, middle=None, optimizer="adam", scale=lambda number: 1.0):
        with torch.random.fork_rng([]):
            torch.manual_seed(6)
            self.net = nn.Sequential(
                nn.Conv2d(3, 4, 3, bias=False), nn.InstanceNorm2d(4, affine=True), nn.ReLU(), nn.Flatten(),
                nn.Linear(64, 5),
            )  # fmt: skip
        self.modules = {"net": self.net}
        make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
        self.optimizers = {"main": make(self.net.parameters(), 0.01)}
        pictures = torch.rand(7, 3, 9, 8, generator=torch.Generator().manual_seed(1))
        self.pictures = Pictures(pictures, 6, seed=3)
        self.middle, self.scale = middle or (lambda step: None), scale
        self.seen = []  # what each step's batch was

    def describe(self):
        return {"method": "smooth", "optimizer": type(self.optimizers["main"]).__name__}

    def batch(self, positions):
        return self.pictures(positions)

    def step(self, step):
        self.seen.append(step.batch)
        loss = self.scale(step.number) * (step.modules["net"](step.batch) - 1).square().mean()
        self.middle(step)
        step.descend(loss)
        return {"loss": loss}


def run(task=None, folder=None, steps=STEPS, **options):
    schedule = {"batch": 4, "average": 0.9, "save_every": 1e9, "seed": 11}
    schedule |= {key: options.pop(key) for key in list(options) if key in schedule}
    options = {"device": "cpu", "precision": "float32", "progress": False, **options}
    return train(task or Noisy(), Schedule(steps, **schedule), folder, **options)


def timeless(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def learned(task, result):
    """All that two trainings must have in common to be the same."""
    return {
        "weights": {name: module.state_dict() for name, module in task.modules.items()},
        "averages": result.averages,
        "optimizers": {name: optimizer.state_dict() for name, optimizer in task.optimizers.items()},
        "history": timeless(result.history),
        "step": result.step,
    }


def assert_same(found, expected, where=""):
    assert type(found) is type(expected), where
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype, where
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    else:
        assert found == expected, where


def whole(make=Noisy, **options):
    """What an uninterrupted training without a folder gives."""
    task = make()
    return learned(task, run(task, **options))


def assert_goes_on(folder, expected, make=Noisy, **options):
    """The training in the folder, gone on with, ends as the uninterrupted one has."""
    task = make()
    result = run(task, folder, **options)
    assert not result.interrupted
    assert_same(learned(task, result), expected)
    seconds = [row["seconds"] for row in result.history]
    assert seconds == sorted(seconds)
    assert_same(timeless(logged(folder)), expected["history"])
    assert names(folder) == {"run.json", "losses.csv", "checkpoint.pt"}


def logged(folder):
    with open(folder / "losses.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: int(v) if k == "step" else float(v) for k, v in row.items() if v} for row in rows]


def names(folder):
    return {path.name for path in folder.iterdir()}


def one_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture(scope="module")
def noisy():
    return whole()


class Broken(Exception):
    """What breaks a run off that is not an error of ours."""


def breaking(at, error=Broken):
    def work(told):
        if getattr(told, "step", None) == at or getattr(told, "number", None) == at:
            raise error

    return work


# ------------------------------------------------------------------------------------ what it computes


def test_a_training_learns_and_says_how_it_went(folder):
    told = []
    task = Smooth()
    result = run(task, folder, steps=40, callback=lambda p: told.append((p.step, p.steps, dict(p.losses))))
    assert result.step == 40
    assert not result.interrupted
    assert result.modules is task.modules
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    assert told == [(row["step"], 40, {"loss": row["loss"]}) for row in result.history]
    assert result.seconds == result.history[-1]["seconds"] > 0
    assert_same(logged(folder), result.history)
    assert json.loads((folder / "run.json").read_text()) == {
        "method": "smooth", "optimizer": "Adam", "batch": 4, "average": 0.9, "seed": 11,
    }  # fmt: skip


def test_the_steps_are_those_of_the_optimizer_alone():
    """A loop written by hand, without averages, several processes or folders, gives the same numbers."""
    task = Smooth()
    result = run(task)
    by_hand = Smooth()
    losses = []
    averages = {key: tensor.clone() for key, tensor in by_hand.net.state_dict().items()}
    for number in range(STEPS):
        loss = (by_hand.net(by_hand.batch(range(4 * number, 4 * number + 4))) - 1).square().mean()
        by_hand.optimizers["main"].zero_grad()
        loss.backward()
        by_hand.optimizers["main"].step()
        losses.append(loss.item())
        decay = min(0.9, (number + 2) / (number + 11))
        for key, tensor in by_hand.net.state_dict().items():
            averages[key] = decay * averages[key] + (1 - decay) * tensor
    assert [row["loss"] for row in result.history] == losses
    assert_same(dict(task.net.state_dict()), dict(by_hand.net.state_dict()))
    for key, tensor in averages.items():
        torch.testing.assert_close(result.averages["net"][key], tensor)
        assert not torch.allclose(result.averages["net"][key], task.net.state_dict()[key], rtol=1e-3)


def test_averages_of_batch_normalization_count_its_batches(noisy):
    averages = noisy["averages"]["net"]
    assert averages["1.num_batches_tracked"] == noisy["weights"]["net"]["1.num_batches_tracked"] == 2 * STEPS
    assert averages["1.running_var"].dtype == torch.float32
    assert run(average=0.0).averages == {}


def test_long_gradients_are_shortened():
    def descended(clip):
        norms = []

        class Task(Smooth):
            def step(self, step):
                loss = (step.modules["net"](step.batch) - 1).square().mean()
                norms.append(step.descend(loss, clip=clip))
                return {"loss": loss}

        task = Task(optimizer="sgd")
        before = torch.cat([p.detach().flatten().clone() for p in task.net.parameters()])
        run(task, steps=1)
        return norms[0], torch.cat([p.detach().flatten() for p in task.net.parameters()]) - before

    norm, moved = descended(math.inf)
    shortened_norm, shortened = descended(norm / 4)
    assert norm == shortened_norm
    assert moved.norm().item() == pytest.approx(0.01 * norm, rel=1e-4)
    torch.testing.assert_close(shortened, moved / 4, rtol=1e-3, atol=1e-7)


def test_random_numbers_are_of_the_step_and_the_seed_alone():
    def drawn(**options):
        found = []
        run(
            Noisy(lambda step: found.append((torch.rand(3), torch.rand(3, generator=step.generator)))),
            **options,
        )
        return found

    once = drawn()
    assert_same(drawn(), once)
    numbers = torch.cat([torch.stack(pair) for pair in once] + [torch.stack(p) for p in drawn(seed=12)])
    assert len(numbers.unique()) == numbers.numel()  # no two of them alike, also not those of both sources


def test_both_sources_of_random_numbers_are_not_one():
    class Task(Smooth):
        def step(self, step):
            assert not torch.equal(torch.rand(5), torch.rand(5, generator=step.generator))
            return super().step(step)

    run(Task())


def test_the_callers_random_state_is_left_alone(folder):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    run(folder=folder, steps=5)
    run(folder=folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_twice_in_one_process_is_twice_the_same(noisy):
    assert_same(whole(), noisy)
    assert whole(seed=12)["history"] != noisy["history"]


def test_bfloat16_and_float32_after_each_other(folder):
    """Accelerate would keep the first training's precision, and leave its mark on the networks."""
    task = Smooth()
    forward = type(task.net).forward
    half = run(task, folder, precision="bfloat16")
    assert "forward" not in vars(task.net) or task.net.forward.__func__ is forward
    assert all(p.dtype == torch.float32 for p in task.net.parameters())
    assert half.history != run(Smooth()).history
    found = run(Smooth(), folder, precision="bfloat16")
    assert timeless(found.history) == timeless(half.history)
    assert task.net(torch.rand(1, 3, 6, 6)).dtype == torch.float32
    assert task.net.bfloat16()(torch.rand(1, 3, 6, 6).bfloat16()).dtype == torch.bfloat16


def test_in_another_thread_there_are_no_signals_but_the_same_numbers(folder, noisy):
    found = []

    def work():
        task = Noisy()
        found.append(learned(task, run(task, folder)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert_same(found[0], noisy)


def test_batches_are_moved_whole():
    seen = []

    class Task(Smooth):
        def batch(self, positions):
            return {"x": self.pictures(positions), "y": [torch.zeros(2), ("name", torch.ones(1))], "z": None}

        def step(self, step):
            seen.append(step.batch)
            step.batch = step.batch["x"]
            return super().step(step)

    run(Task(), steps=1)
    assert list(seen[0]) == ["x", "y", "z"]
    assert isinstance(seen[0]["y"], list)
    assert seen[0]["y"][1][0] == "name"
    assert seen[0]["z"] is None


def test_the_progress_bar_goes_to_standard_error(capsys):
    run(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{STEPS}/{STEPS}" in err
    assert "total=" in err
    run()
    assert capsys.readouterr().err == ""


# --------------------------------------------------------------------------------- broken off, gone on


def saved_step(folder):
    return torch.load(folder / "checkpoint.pt")["step"]


def test_broken_off_by_errors_it_goes_on_to_the_same_numbers(folder, noisy):
    for at in (1, 2, 7, 11):
        with pytest.raises(Broken):
            run(Noisy(), folder, callback=breaking(at), save_every=0)
    with pytest.raises(Broken):
        run(Noisy(breaking(STEPS - 1)), folder, save_every=0)
    assert_goes_on(folder, noisy)


def test_a_callback_that_returns_false_ends_it_and_a_finished_training_is_not_done_again(folder, noisy):
    for at in (2, 9):
        result = run(Noisy(), folder, callback=lambda p, at=at: p.step != at)
        assert (result.step, result.interrupted, saved_step(folder)) == (at, False, at)
    assert_goes_on(folder, noisy)
    told = []
    assert_goes_on(folder, noisy, callback=told.append)
    assert told == []


def test_a_training_may_be_made_longer(folder, noisy):
    run(folder=folder, steps=5)
    run(folder=folder, steps=6)
    assert_goes_on(folder, noisy)


def test_the_seconds_of_all_runs_are_counted(folder, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def callback(progress):
        now[0] += 10
        return progress.step != 3

    run(folder=folder, callback=callback, steps=5)
    now[0] = 7000.0  # another day
    result = run(folder=folder, callback=callback, steps=5)
    assert [row["seconds"] for row in result.history] == [0, 10, 20, 20, 30]


def test_it_is_saved_every_so_often(folder, monkeypatch):
    now, saved = [100.0], []
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Checkpoints, "save", lambda self, content, history: saved.append(content["step"]))

    def middle(step):
        now[0] += 10

    run(Noisy(middle), folder, save_every=30.0, steps=8)
    assert saved == [3, 6, 8]


def test_what_a_task_keeps_besides_is_resumed(folder):
    class Counting(Smooth):
        count = 0

        def step(self, step):
            self.count += 1
            return super().step(step)

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    run(Counting(), folder, callback=lambda p: p.step < 5)
    task = Counting()
    run(task, folder)
    assert task.count == STEPS


# ------------------------------------------------------------------------------------------ real kills

PLACES = ("callback", "middle", "half written", "before renaming", "after renaming")


def kill_from(step, place, delay):
    """Have this process killed at the first chance of that kind once it is in that step; returns the task."""
    now = [-1]

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def die_at(wanted):
        if place == wanted and now[0] >= step:
            die()

    class Dying(Noisy):
        def step(self, step):
            now[0] = step.number
            return super().step(step)

    save, move = torch.save, os.replace

    def dying_save(content, path):
        save(content, path)
        if place == "half written" and now[0] >= step:
            os.truncate(path, Path(path).stat().st_size // 2)
            die()

    def dying_replace(source, target):
        die_at("before renaming")
        move(source, target)
        die_at("after renaming")

    torch.save, os.replace = dying_save, dying_replace
    if place == "any time":
        threading.Timer(delay, die).start()
    return Dying(lambda _: die_at("middle")), lambda _: die_at("callback")


KILLS = {  # name -> seconds between two checkpoints, where it is killed
    "saved each step": (0, PLACES),
    "never saved": (1e9, ("middle", "callback")),
    "at any time": (0, ("any time",)),
}


def killed_trainings(path):
    """Train, be killed, train again, ...; at last to the end. And once without kills; exit codes by name."""

    def fork(work):
        child = os.fork()
        if not child:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def killed(folder, save_every, step, place, delay):
        task, callback = kill_from(step, place, delay)
        run(task, folder, KILLED_STEPS, save_every=save_every, callback=callback)

    def kept(folder, name):
        task = Noisy()
        torch.save(learned(task, run(task, folder, KILLED_STEPS)), path / f"{name}.pt")

    codes = {"whole": [fork(lambda: kept(None, "whole"))]}
    for seed, (name, (save_every, places)) in enumerate(KILLS.items()):
        chance, folder, codes[name] = random.Random(seed), path / name, []
        for step in sorted(chance.sample(range(KILLED_STEPS - 8), 10)):
            args = folder, save_every, step, chance.choice(places), chance.uniform(0, 0.1)
            codes[name].append(fork(lambda args=args: killed(*args)))
        codes[name].append(fork(lambda f=folder, n=name: kept(f, n)))
    return codes


def elsewhere(path):
    """In a process of its own, which has computed nothing: trainings in forks, which import nothing anew.

    Those of two processes are started as ``torch.distributed.run`` does it, but for the imports.
    """
    from accelerate.state import AcceleratorState
    from torch.distributed.launcher import LaunchConfig, elastic_launch

    torch.set_num_threads(1)
    loop._accelerator("cpu", "float32")  # imports half of Accelerate
    AcceleratorState._reset_state(reset_partial_state=True)
    (path / "codes.json").write_text(json.dumps(killed_trainings(path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, rdzv_backend="c10d", rdzv_endpoint=f"127.0.0.1:{port}",
        local_addr="127.0.0.1", max_restarts=0, start_method="fork",
    )  # fmt: skip
    elastic_launch(config, two_processes)(path)


def two_processes(path):
    """What each of them does; both write down how it went."""
    rank = int(os.environ["RANK"])
    gathered = {"two": learned(task := Smooth(), run(task))}
    gathered["sgd"] = learned(task := Smooth(optimizer="sgd"), run(task))
    # One of the two is asked to end, and both do.
    folder = path / "run"
    stopped = run(Smooth(signalled(4, signal.SIGINT) if rank else None), folder)
    gathered["stopped"] = (stopped.interrupted, stopped.step)
    gathered["resumed"] = learned(task := Smooth(), run(task, folder))
    told = []
    run(Smooth(), path / "told", callback=lambda p: told.append(p.step) or p.step < 3)
    gathered["told"] = told
    for name, task, options in (
        ("batch", Smooth(), {"batch": 5}),
        ("nan", Smooth(scale=lambda number: math.nan if rank and number == 3 else 1.0), {}),
    ):
        try:
            run(task, path / "nan", **options)
        except NstError as error:
            gathered[name] = f"{type(error).__name__}: {error}"
    seen = Smooth()
    run(seen, steps=2)
    gathered["seen"] = seen.seen
    torch.save(gathered, path / f"{rank}.pt")
    gc.collect()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """The folder where :func:`elsewhere` has left what it found."""
    if sys.platform != "linux":
        pytest.skip("forks and kills")
    path = tmp_path_factory.mktemp("apart")
    script = path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n\nimport test_training\n\n"
        "test_training.elsewhere(Path(sys.argv[1]))\n"
    )
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, script, path], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=200)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # two that wait for each other, if it comes to that
    assert process.returncode == 0, said
    return path


@pytest.mark.parametrize("name", KILLS)
def test_killed_at_ten_random_steps_it_ends_with_the_same_bits(apart, name):
    codes = json.loads((apart / "codes.json").read_text())
    *kills, end = codes[name]
    assert end == codes["whole"][0] == 0
    # A run may come to its end before its time has come; a kill at a place always does its work.
    assert set(kills) <= ({-signal.SIGKILL, 0} if name == "at any time" else {-signal.SIGKILL})
    resumed, expected = (torch.load(apart / f"{one}.pt") for one in (name, "whole"))
    assert expected["step"] == len(expected["history"]) == KILLED_STEPS
    assert_same(resumed, expected)
    assert_same(timeless(logged(apart / name)), expected["history"])


# ----------------------------------------------------------------------------------------- interrupted


def signalled(at, *numbers):
    """A task's middle that sends this process signals."""

    def middle(step):
        if step.number == at:
            for number in numbers:
                os.kill(os.getpid(), number)

    return middle


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_the_step_ends_and_is_saved(folder, noisy, number):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    for at in (3, 8):
        result = run(Noisy(signalled(at, number)), folder)
        assert result.interrupted
        assert result.step == len(result.history) == saved_step(folder) == at + 1
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert_goes_on(folder, noisy)


def test_a_signal_in_the_last_step_comes_too_late(folder, noisy):
    assert not run(Noisy(signalled(STEPS - 1, signal.SIGINT)), folder).interrupted
    assert_goes_on(folder, noisy)


def test_the_second_control_c_does_not_wait(folder, noisy):
    with pytest.raises(KeyboardInterrupt):
        run(Noisy(signalled(6, signal.SIGINT, signal.SIGINT)), folder, save_every=0)
    assert saved_step(folder) == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_goes_on(folder, noisy)


# ------------------------------------------------------------------------- not a number, full, damaged


def test_a_loss_of_nan_ends_it_with_what_was_saved_kept(folder):
    bad = Smooth(scale=lambda number: math.nan if number == 7 else 1.0)
    with pytest.raises(OptimizationError, match="The loss is not a number at step 8: lower") as caught:
        run(bad, folder, save_every=0)
    assert one_sentence(caught).endswith(f"Step 7 is kept in '{folder}'.")
    assert caught.value.result.step == 7
    assert_goes_on(folder, whole(Smooth), Smooth)


def test_a_gradient_of_nan_is_found_where_the_loss_is_a_number():
    class Rooted(Smooth):
        def step(self, step):
            found = step.modules["net"](step.batch).mean()
            loss = (0 * found).sqrt()
            step.descend(loss)
            return {"loss": loss}

    with pytest.raises(OptimizationError, match=r"at step 1.*Nothing is kept, as no folder"):
        run(Rooted())


def test_a_full_disk_costs_no_step_that_was_saved(folder, noisy, monkeypatch):
    run(folder=folder, callback=lambda p: p.step < 3)

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nstlib.assets.writing.os.replace", full)
    with pytest.raises(OptimizationError, match="make room, then start the same training again") as caught:
        run(folder=folder, save_every=0)
    one_sentence(caught)
    assert caught.value.result.step == 4
    monkeypatch.undo()
    assert names(folder) == {"run.json", "losses.csv", "checkpoint.pt"}
    assert_goes_on(folder, noisy)


def test_a_picture_that_cannot_be_read_is_named_and_what_was_saved_is_kept(tmp_path, folder, picture):
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        content = (255 * picture(9, 8, number)[0]).byte().permute(1, 2, 0).numpy()
        Image.fromarray(content).save(tmp_path / "pictures" / f"{number}.png")
    bad = tmp_path / "pictures" / "2.png"
    bad.write_bytes(bad.read_bytes()[:60])
    task = Smooth()
    task.pictures = Pictures(tmp_path / "pictures", 6)
    with pytest.raises(ImageError, match=r"2\.png.*(is kept in|No step had been saved yet)") as caught:
        run(task, folder, save_every=0, batch=1)
    one_sentence(caught)


def test_weights_that_are_no_numbers_do_not_take_the_last_ones_place(folder):
    def poison(step):
        if step.number == 5:
            with torch.no_grad():
                task.critic.weight.fill_(math.nan)

    task = Noisy(poison)
    with pytest.raises(OptimizationError):
        run(task, folder, save_every=0)
    assert saved_step(folder) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 2}, "batch 4 there, 2 here"),
        ({"average": 0.5}, r"average 0\.9 there, 0\.5 here"),
        ({"seed": 1}, "seed 11 there, 1 here"),
        ({"task": Smooth()}, "method 'noisy' there, 'smooth' here"),
    ],
)
def test_other_settings_are_named_and_the_training_is_kept(folder, noisy, change, words):
    run(folder=folder, steps=5)
    with pytest.raises(SettingError, match=words) as caught:
        run(folder=folder, **change)
    one_sentence(caught)
    assert_goes_on(folder, noisy)


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path, folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("x")
    for path, words in (
        (folder, "holds other files, and no training"),
        (tmp_path / "file", "can be kept in"),
    ):
        with pytest.raises(SettingError, match=words) as caught:
            run(folder=path)
        one_sentence(caught)
    assert names(folder) == {"notes.txt"}


@pytest.mark.parametrize("name", ["run.json", "checkpoint.pt"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"cut"])
def test_damaged_files_are_one_sentence(folder, name, content):
    run(folder=folder, steps=5)
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20] if content == b"cut" else content)
    with pytest.raises(SettingError, match=f"{name}' is damaged .*delete") as caught:
        run(folder=folder)
    one_sentence(caught)


def test_a_checkpoint_of_another_network_is_one_sentence(folder):
    class Wide(Smooth):
        def __init__(self):
            super().__init__()
            self.net[4] = nn.Linear(64, 7)

    run(Smooth(), folder, steps=5)
    with pytest.raises(SettingError, match="is of other networks") as caught:
        run(Wide(), folder)
    one_sentence(caught)


def test_the_log_has_all_columns_though_a_loss_comes_now_and_then(folder, noisy):
    run(folder=folder)
    assert_same(timeless(logged(folder)), noisy["history"])


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run()
    assert names(tmp_path) == set()


# ------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("steps", -3), ("batch", 0), ("average", -0.1), ("average", 1.0), ("average", math.nan),
        ("save_every", -1.0), ("save_every", math.nan), ("seed", -1),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_is_one_sentence(name, value):
    with pytest.raises(SettingError, match=f"^{name} should be .*, not {value}") as caught:
        Schedule(**{"steps": 1, name: value})
    one_sentence(caught)


# ------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("count", [1, 2, 7, 10])
def test_every_picture_comes_once_an_epoch_in_an_own_order(count):
    epochs = [shuffled(count, 4, range(count * e, count * e + count)) for e in range(6)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count > 6:
        assert len({tuple(epoch) for epoch in epochs}) == 6
        assert shuffled(count, 5, range(count)) != epochs[0]


def test_a_position_decides_alone():
    positions = list(range(100))
    straight = shuffled(7, 4, positions)
    random.Random(0).shuffle(positions)
    assert shuffled(7, 4, positions) == [straight[p] for p in positions]
    assert shuffled(7, 4, []) == []


def test_the_order_is_the_same_on_every_machine():
    assert shuffled(7, 4, range(10)) == [1, 2, 0, 5, 4, 3, 6, 4, 1, 5]


# -------------------------------------------------------------------------------------------- pictures


def random_pictures(count, height, width, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def eighths(pictures):
    """As they are kept: with 8 bits."""
    return pictures.mul(255).round() / 255


def test_halves_of_a_batch_are_the_batch():
    pictures = Pictures(random_pictures(5, 30, 20), 8, seed=2)
    whole = pictures(range(12, 24))
    assert whole.shape == (12, 3, 8, 8)
    assert whole.dtype == torch.float32
    assert torch.equal(torch.cat([pictures(range(12, 18)), pictures(range(18, 24))]), whole)
    assert torch.equal(pictures([17]), whole[5:6])
    again = Pictures(random_pictures(5, 30, 20), 8, seed=2)
    assert torch.equal(again(range(23, 11, -1)).flip(0), whole)
    assert not torch.equal(Pictures(random_pictures(5, 30, 20), 8, seed=3)(range(12, 24)), whole)


def test_pictures_come_in_the_order_of_shuffled():
    flat = (torch.arange(9.0) / 255).view(9, 1, 1, 1).expand(9, 3, 10, 12)
    pictures = Pictures(flat, 4, seed=6)
    assert len(pictures) == 9
    found = (255 * pictures(range(40))).round()
    assert found.flatten(1).amin(1).equal(found.flatten(1).amax(1))
    assert found[:, 0, 0, 0].int().tolist() == shuffled(9, 6, range(40))


def test_a_picture_of_the_crops_size_is_shown_as_it_is_or_mirrored():
    source = random_pictures(1, 8, 8)
    kept = eighths(source)
    straight = Pictures(source, 8, zoom=(1.0, 1.0), flip=False)(range(10))
    assert torch.equal(straight, kept.expand(10, -1, -1, -1))
    some = Pictures(source, 8, zoom=(1.0, 1.0))(range(200))
    mirrored = [torch.equal(crop, kept[0].flip(2)) for crop in some]
    assert all(m or torch.equal(crop, kept[0]) for m, crop in zip(mirrored, some, strict=True))
    assert 70 < sum(mirrored) < 130


def ramp(height, width):
    """Red says how far to the right a pixel is, green how far down."""
    x = torch.arange(width).expand(height, width)
    y = torch.arange(height)[:, None].expand(height, width)
    return torch.stack([x, y, torch.zeros(height, width)])[None] / 255


@pytest.mark.parametrize(("height", "width"), [(60, 60), (60, 110), (150, 60)])
@pytest.mark.parametrize("zoom", [(0.5, 1.0), (0.7, 0.8)])
def test_crops_are_squares_anywhere_in_the_picture_of_the_zoom_asked_for(height, width, zoom):
    crops = 255 * Pictures(ramp(height, width), 20, zoom=zoom, flip=False)(range(150))
    right, down = crops[:, 0].mean(1), crops[:, 1].mean(2)
    sides = [(axis[:, 15] - axis[:, 4]) / 11 * 20 for axis in (right, down)]
    torch.testing.assert_close(*sides, atol=0.7, rtol=0)  # squares stay squares
    assert sides[0].min() == pytest.approx(zoom[0] * 60, abs=2)
    assert sides[0].max() == pytest.approx(zoom[1] * 60, abs=2)
    for axis, side, extent in zip((right, down), sides, (width, height), strict=True):
        begins = axis.mean(1) - side / 2
        assert begins.min() >= -1.2
        assert begins.max() <= extent - side.min() + 0.2
        if extent > 60:
            assert begins.min() < 8
            assert begins.max() > extent - 60


def test_small_pictures_are_enlarged_by_two_at_most_or_shown_whole():
    crops = 255 * Pictures(ramp(40, 40), 40, zoom=(0.1, 0.2), flip=False)(range(20))
    sides = (crops[:, 0].mean(1)[:, 30] - crops[:, 0].mean(1)[:, 9]) / 21 * 40
    assert sides.min() > 19
    small = Pictures(ramp(5, 9), 40, flip=False)(range(20))
    assert small.shape == (20, 3, 40, 40)
    assert 0 <= small.min() <= small.max() <= 1
    assert Pictures(torch.ones(1, 3, 1, 1), 4)([3]).unique().tolist() == [1.0]
    assert Pictures(random_pictures(2, 7, 5), 1)(range(5)).shape == (5, 3, 1, 1)


@pytest.fixture
def gallery(tmp_path):
    """A folder with pictures of all sorts, some below it, and other files; gray and transparent ones too."""
    inner = tmp_path / "pictures" / "deeper"
    inner.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 256, (30, 24, 3), dtype=np.uint8)
    for index, name in enumerate(("b.png", "a.JPG", "deeper/c.webp")):
        Image.fromarray(values + np.uint8(index)).save(tmp_path / "pictures" / name)
    Image.fromarray(values[..., 0]).save(inner / "gray.bmp")
    Image.fromarray(values).convert("RGBA").save(inner / "clear.png")
    Image.fromarray(values[:4, :, 0]).convert("1").save(inner / "flat.tif")
    (inner / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def test_a_folder_is_read_with_its_subfolders(gallery):
    pictures = Pictures(gallery, 8)
    assert len(pictures) == 6
    crops = pictures(range(30))
    assert crops.shape == (30, 3, 8, 8)
    assert 0 <= crops.min() <= crops.max() <= 1
    order = shuffled(6, 0, range(30))
    # Sorted: a.JPG, b.png, deeper/c.webp, clear.png, flat.tif, gray.bmp
    gray = [(crop[0] - crop[1]).abs().max() < 1e-6 for crop in crops]
    listed = sorted(p.name for p in gallery.rglob("*") if p.suffix != ".txt" and p.is_file())
    assert listed == ["a.JPG", "b.png", "c.webp", "clear.png", "flat.tif", "gray.bmp"]
    kept = sorted(p for p in gallery.rglob("*") if p.suffix != ".txt" and p.is_file())
    assert gray == [kept[i].name in ("flat.tif", "gray.bmp") for i in order]


def test_files_by_name_and_pictures_in_memory_give_the_same_crops(gallery):
    names = sorted(gallery.glob("*.png")) * 2
    from_files = Pictures([str(name) for name in names], 8, seed=1)(range(9))
    values = torch.from_numpy(np.array(Image.open(names[0]))).permute(2, 0, 1)[None] / 255
    assert torch.equal(Pictures(values.expand(2, -1, -1, -1), 8, seed=1)(range(9)), from_files)


def test_files_are_decoded_once_as_long_as_they_fit(gallery, monkeypatch):
    read, load = [], data.load_image

    def counted(path, **options):
        read.append(path)
        return load(path, **options)

    monkeypatch.setattr(data, "load_image", counted)
    kept = Pictures(gallery, 8)(range(30))
    assert len(read) == len(set(read)) == 6
    monkeypatch.setattr(data, "_KEPT", 30 * 24 * 3)
    assert torch.equal(Pictures(gallery, 8)(range(30)), kept)
    assert 6 + 6 < len(read) < 6 + 30


def test_large_files_are_kept_small(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((200, 300, 3), np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(data, "_KEPT", 3 * 64 * 43)
    pictures = Pictures(tmp_path, 8)
    pictures(range(3))
    assert list(pictures._kept) == [0]


def test_the_pictures_are_copied_when_given(picture):
    source = picture(12, 12)
    pictures = Pictures(source, 8)
    before = pictures(range(4))
    source.zero_()
    assert torch.equal(pictures(range(4)), before)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (torch.zeros(3, 9, 9), r"shape \(N, 3, H, W\), not \(3, 9, 9\)"),
        (torch.zeros(2, 1, 9, 9), r"not \(2, 1, 9, 9\)"),
        (torch.zeros(0, 3, 9, 9), r"not \(0, 3, 9, 9\)"),
        (torch.full((1, 3, 9, 9), 255.0), r"\[0, 1\]"),
        (torch.full((1, 3, 9, 9), -0.1), r"\[0, 1\]"),
        (torch.full((1, 3, 9, 9), math.nan), r"\[0, 1\]"),
        ([], "no pictures in"),
        ("nowhere", "'nowhere' is no folder: name one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_are_no_pictures_is_one_sentence(source, words):
    with pytest.raises(ImageError, match=words) as caught:
        Pictures(source, 8)
    one_sentence(caught)


def test_an_empty_folder_and_a_file_are_no_folders_of_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for source in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(
            ImageError, match=r"'.*' is no folder|no pictures in '.*': give a folder with \.jpg"
        ):
            Pictures(source, 8)
    with pytest.raises(ImageError, match=r"gone\.png"):
        Pictures([tmp_path / "gone.png"], 8)([0])


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0}, {"zoom": (0.0, 1.0)}, {"zoom": (0.8, 0.5)}, {"zoom": (0.5, 1.1)},
        {"zoom": (math.nan, 1.0)}, {"seed": -1},
    ],
    ids=str,
)  # fmt: skip
def test_crops_that_cannot_be_are_one_sentence(options):
    with pytest.raises(SettingError) as caught:
        Pictures(torch.zeros(1, 3, 9, 9), **{"size": 8, **options})
    one_sentence(caught)


# --------------------------------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def shared(apart):
    """The folder, and what each of the two processes has written down."""
    return apart, *(torch.load(apart / f"{rank}.pt") for rank in (0, 1))


@pytest.fixture(scope="module")
def alone():
    return whole(Smooth)


def assert_near(found, expected, weights, losses):
    for key, tensor in expected["weights"]["net"].items():
        for kind in ("weights", "averages"):
            torch.testing.assert_close(
                found[kind]["net"][key], expected[kind]["net"][key], rtol=0, atol=weights
            )
        assert found["weights"]["net"][key].dtype == tensor.dtype
    assert [row["step"] for row in found["history"]] == [row["step"] for row in expected["history"]]
    curves = [[row["loss"] for row in one["history"]] for one in (found, expected)]
    assert curves[0] == pytest.approx(curves[1], rel=losses)


def test_two_processes_learn_what_one_does_with_the_whole_batch(shared, alone):
    _, first, second = shared
    assert_near(first["two"], alone, WEIGHTS, LOSSES)
    assert_near(first["sgd"], whole(lambda: Smooth(optimizer="sgd")), WEIGHTS, LOSSES)
    for name in ("two", "sgd", "resumed"):
        assert_same(second[name]["weights"], first[name]["weights"])
        assert timeless(second[name]["history"]) == timeless(first[name]["history"])


def test_each_of_two_processes_sees_its_half_of_the_batch(shared):
    _, first, second = shared
    task = Smooth()
    run(task, steps=2)
    for number, batch in enumerate(task.seen):
        assert torch.equal(torch.cat([first["seen"][number], second["seen"][number]]), batch)


def test_a_signal_to_one_of_two_processes_ends_both_and_they_go_on(shared, alone):
    path, first, second = shared
    assert first["stopped"] == second["stopped"] == (True, 5)
    assert_same(first["resumed"], first["two"])
    assert_same(timeless(logged(path / "run")), timeless(first["resumed"]["history"]))


def test_the_first_of_two_processes_tells_and_ends_both(shared):
    path, first, second = shared
    assert first["told"] == [1, 2, 3]
    assert second["told"] == []
    assert saved_step(path / "told") == 3


def test_what_two_processes_began_one_goes_on_with(shared, alone, tmp_path):
    path, *_ = shared
    shutil.copytree(path / "told", tmp_path / "told")
    task = Smooth()
    result = run(task, tmp_path / "told")
    assert_near(learned(task, result), alone, WEIGHTS, LOSSES)


def test_both_of_two_processes_say_what_is_wrong(shared):
    _, *both = shared
    for one in both:
        assert one["batch"] == "SettingError: 2 processes cannot share a batch of 5 alike: take a multiple."
        assert one["nan"].startswith("OptimizationError: The loss is not a number at step 4: lower")
        assert one["nan"].endswith(" No step had been saved yet.")
