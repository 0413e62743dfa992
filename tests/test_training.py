"""The training loop: what it computes, and that nothing that ends it changes or costs what was learned."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import in_two_processes, process_environment, rand, refused, timeless
from PIL import Image
from torch import nn

from nstlib.errors import ImageError, NstError, OptimizationError, SettingError
from nstlib.training import Checkpoints, Pictures, Schedule, Task, loop, shuffled, train

assert_same = partial(torch.testing.assert_close, rtol=0, atol=0)
STEPS = 12
KILLED_STEPS = 40
# How far two processes may be from one with the whole batch, whose sums are rounded in another order: ten
# times what was measured (2.4e-7 of the weights, 4e-7 of the losses).
WEIGHTS, LOSSES = 3e-6, 5e-6


class Toy(Task):
    """A network that learns from seven small pictures."""

    def __init__(self, *layers, middle=None):
        with torch.random.fork_rng([]):
            torch.manual_seed(6)
            self.net = nn.Sequential(*(make() for make in layers), nn.Flatten(), nn.Linear(64, 5))
            self.critic = nn.Linear(5, 1)
        self.modules = {"net": self.net}
        self.optimizers = {"main": torch.optim.Adam(self.net.parameters(), 0.01)}
        pictures = torch.rand(7, 3, 9, 8, generator=torch.Generator().manual_seed(1))
        self.faces = Pictures(pictures, 6, seed=3)
        self.middle = middle or (lambda step: None)  # called before the last descend

    def describe(self):
        return {"method": self.name, "size": (6, 6)}


class Noisy(Toy):
    """Two networks with dropout and batch normalization, two optimizers, noise, a loss now and then."""

    name = "noisy"

    def __init__(self, middle=None):
        layers = partial(nn.Conv2d, 3, 4, 3), partial(nn.BatchNorm2d, 4), nn.ReLU, partial(nn.Dropout, 0.3)
        super().__init__(*layers, middle=middle)
        self.modules["critic"] = self.critic
        self.optimizers["critic"] = torch.optim.SGD(self.critic.parameters(), 0.05, momentum=0.9)

    def batch(self, positions):
        return {"pictures": self.faces(positions), "said": ("x", [torch.tensor(positions)])}

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


class Smooth(Toy):
    """Nothing random and nothing that looks at the whole batch, so that it can be shared by processes.

    The convolution has no bias: instance normalization takes it out again, so that its gradient would be
    rounding and nothing else, which Adam turns into steps of full size.
    """

    name = "smooth"

    def __init__(self, middle=None, scale=lambda number: 1.0):
        convolution = partial(nn.Conv2d, 3, 4, 3, bias=False)
        super().__init__(convolution, partial(nn.InstanceNorm2d, 4, affine=True), nn.ReLU, middle=middle)
        self.scale, self.seen = scale, []  # what each step's batch was

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


def learned(task, result):
    """All that two trainings must have in common to be the same."""
    return {
        "weights": {name: module.state_dict() for name, module in task.modules.items()},
        "averages": result.averages,
        "optimizers": {name: optimizer.state_dict() for name, optimizer in task.optimizers.items()},
        "history": timeless(result.history),
        "step": result.step,
    }


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


def learned_by(make, **options):
    """The same of a new task's training."""
    task = make()
    return learned(task, run(task, **options))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture(scope="module")
def noisy():
    return learned_by(Noisy)


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
        "method": "smooth", "size": [6, 6], "batch": 4, "average": 0.9, "seed": 11,
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


def test_the_callers_random_state_is_left_alone(folder):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    run(folder=folder, steps=5)
    run(folder=folder)
    assert torch.equal(torch.get_rng_state(), before)


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


# --------------------------------------------------------------------------------- broken off, gone on


def saved_step(folder):
    return torch.load(folder / "checkpoint.pt")["step"]


def test_a_callback_that_returns_false_ends_it_and_a_finished_training_is_not_done_again(folder, noisy):
    for at in (2, 9):
        result = run(Noisy(), folder, callback=lambda p, at=at: p.step != at)
        assert (result.step, result.interrupted, saved_step(folder)) == (at, False, at)
    assert_goes_on(folder, noisy)
    told = []
    assert_goes_on(folder, noisy, callback=told.append)
    assert told == []


def test_a_training_may_be_made_longer_unless_its_rate_falls(folder, noisy):
    run(folder=folder, steps=5)
    run(folder=folder, steps=6)
    assert_goes_on(folder, noisy)
    falling = Smooth()
    falling.decay = 0.1
    run(falling, folder.with_name("falling"), steps=5)
    with pytest.raises(SettingError, match="steps 5 there, 6 here"):
        run(falling, folder.with_name("falling"), steps=6)


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

PLACES = ("middle", "half written", "before renaming", "after renaming")


def to_be_killed(step, place):
    """A task that has this process killed at the first chance of that kind once it is in that step."""
    now = [-1]

    def die_at(wanted):
        if place == wanted and now[0] >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    def middle(told):
        now[0] = told.number
        die_at("middle")

    save, move = torch.save, os.replace

    def dying_save(content, path):
        save(content, path)
        if place == "half written" and now[0] >= step:
            os.truncate(path, Path(path).stat().st_size // 2)
        die_at("half written")

    def dying_replace(source, target):
        die_at("before renaming")
        move(source, target)
        die_at("after renaming")

    torch.save, os.replace = dying_save, dying_replace
    return Noisy(middle)


def killed_trainings(path):
    """Train, be killed, train again, ...; at last to the end. And once without kills. Prints exit codes."""

    def fork(work, *args):
        child = os.fork()
        if not child:
            try:
                work(*args)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def killed(step, place):
        run(to_be_killed(step, place), path / "run", KILLED_STEPS, save_every=0)

    def kept(folder, name):
        task = Noisy()
        torch.save(learned(task, run(task, folder, KILLED_STEPS)), path / f"{name}.pt")

    torch.set_num_threads(1)
    loop._accelerator("cpu", "float32")  # imports half of Accelerate, once for all
    chance = random.Random(0)
    steps = sorted(chance.sample(range(KILLED_STEPS - 8), 12))
    kills = [fork(killed, step, PLACES[i % 4]) for i, step in enumerate(steps)]
    print(*kills, fork(kept, path / "run", "resumed"), fork(kept, None, "whole"))


@pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")
def test_killed_at_random_steps_it_ends_with_the_same_bits(tmp_path):
    script = "import pathlib, sys, test_training as t; t.killed_trainings(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], env=process_environment(), check=True, timeout=200,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert [int(code) for code in done.stdout.split()] == [*[-signal.SIGKILL] * 12, 0, 0]
    resumed, expected = (torch.load(tmp_path / f"{name}.pt") for name in ("resumed", "whole"))
    assert expected["step"] == len(expected["history"]) == KILLED_STEPS
    assert_same(resumed, expected)
    assert_same(timeless(logged(tmp_path / "run")), expected["history"])


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
    said = "The loss is not a number at step 8: lower .* Step 7 is kept"
    with refused(OptimizationError, match=said):
        run(bad, folder, save_every=0)
    assert_goes_on(folder, learned_by(Smooth), Smooth)


def test_a_full_disk_costs_no_step_that_was_saved(folder, noisy, monkeypatch):
    run(folder=folder, callback=lambda p: p.step < 3)

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nstlib.assets.writing.os.replace", full)
    with refused(OptimizationError, match="make room, then start the same training again"):
        run(folder=folder, save_every=0)
    monkeypatch.undo()
    assert names(folder) == {"run.json", "losses.csv", "checkpoint.pt"}
    assert_goes_on(folder, noisy)


def test_a_picture_that_cannot_be_read_is_named_and_what_was_saved_is_kept(tmp_path, folder, picture):
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        content = (255 * picture(9, 8, number)[0]).byte().permute(1, 2, 0).numpy()
        Image.fromarray(content).save(tmp_path / "pictures" / f"{number}.png")
    task = Smooth()
    task.faces = Pictures(tmp_path / "pictures", 6)
    bad = tmp_path / "pictures" / "2.png"  # damaged while the training runs
    bad.write_bytes(bad.read_bytes()[:60])
    with refused(ImageError, match=r"2\.png"):
        run(task, folder, save_every=0, batch=1)


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
    with refused(SettingError, match=words):
        run(folder=folder, **change)
    assert_goes_on(folder, noisy)


def test_a_folder_of_other_files_is_one_sentence(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for path, words in ((folder, "holds other files, and no"), (folder / "notes.txt", "can be kept in")):
        with refused(SettingError, match=words):
            run(folder=path)
    assert names(folder) == {"notes.txt"}


@pytest.mark.parametrize(
    ("name", "words"),
    [("run.json", "No training can be kept in"), ("checkpoint.pt", "checkpoint.pt' is damaged .*delete")],
)
def test_damaged_files_are_one_sentence(folder, name, words):
    run(folder=folder, steps=5)
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])
    with refused(SettingError, match=words):
        run(folder=folder)


def test_a_checkpoint_of_another_network_is_one_sentence(folder):
    class Wide(Smooth):
        def __init__(self):
            super().__init__()
            self.net[-1] = nn.Linear(64, 7)

    run(Smooth(), folder, steps=5)
    with refused(SettingError, match="holds a training of other networks"):
        run(Wide(), folder)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("average", 1.0), ("save_every", math.nan)])
def test_a_schedule_that_cannot_be_is_one_sentence(name, value):
    with refused(SettingError, match=f"^{name} should be .*, not {value}"):
        Schedule(**{"steps": 1, name: value})


# ------------------------------------------------------------------------------------------- positions


def test_every_picture_comes_once_an_epoch_in_an_own_order():
    epochs = [shuffled(7, 4, range(7 * e, 7 * e + 7)) for e in range(6)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert shuffled(7, 5, range(7)) != epochs[0]
    assert shuffled(1, 4, range(3)) == [0, 0, 0]


def test_the_order_is_the_same_on_every_machine():
    assert shuffled(7, 4, range(10)) == [1, 2, 0, 5, 4, 3, 6, 4, 1, 5]


# -------------------------------------------------------------------------------------------- pictures


def test_halves_of_a_batch_are_the_batch():
    pictures = Pictures(rand(5, 3, 30, 20), 8, seed=2)
    whole = pictures(range(12, 24))
    assert whole.shape == (12, 3, 8, 8)
    assert whole.dtype == torch.float32
    assert torch.equal(torch.cat([pictures(range(12, 18)), pictures(range(18, 24))]), whole)
    assert torch.equal(pictures([17]), whole[5:6])
    again = Pictures(rand(5, 3, 30, 20), 8, seed=2)
    assert torch.equal(again(range(23, 11, -1)).flip(0), whole)
    assert not torch.equal(Pictures(rand(5, 3, 30, 20), 8, seed=3)(range(12, 24)), whole)


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


def test_a_folder_is_read_with_its_subfolders(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (30, 24, 3), dtype=np.uint8)
    (tmp_path / "deeper").mkdir()
    Image.fromarray(values).save(tmp_path / "b.png")
    Image.fromarray(values[..., 0]).save(tmp_path / "deeper" / "gray.bmp")
    Image.fromarray(values).convert("RGBA").save(tmp_path / "deeper" / "clear.png")
    (tmp_path / ".hidden").mkdir()
    Image.fromarray(values).save(tmp_path / ".hidden" / "e.png")
    (tmp_path / "notes.txt").write_text("no picture")
    pictures = Pictures(tmp_path, 8)
    assert len(pictures) == 3
    gray = [(crop[0] - crop[1]).abs().max() < 1e-6 for crop in pictures(range(30))]
    assert gray == [index == 2 for index in shuffled(3, 0, range(30))]  # sorted: b, clear, gray
    held = torch.from_numpy(values).permute(2, 0, 1)[None] / 255
    assert torch.equal(Pictures([str(tmp_path / "b.png")], 8)(range(9)), Pictures(held, 8)(range(9)))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (torch.zeros(3, 9, 9), r"tensor \(N, 3, H, W\), not \(3, 9, 9\)"),
        (torch.full((1, 3, 9, 9), 255.0), r"\[0, 1\]"),
        ([], "list of pictures is empty"),
        ("nowhere", "There is no folder 'nowhere': name one"),
    ],
)
def test_what_are_no_pictures_is_one_sentence(source, words):
    with refused(ImageError, match=words):
        Pictures(source, 8)


# --------------------------------------------------------------------------------------- two processes


def two_processes(path):
    """What each of them does, and what came of it."""
    rank = int(os.environ["RANK"])
    found = {"two": learned_by(Smooth)}
    # One of the two is asked to end, and both do.
    stopped = run(Smooth(signalled(4, signal.SIGINT) if rank else None), path / "run")
    found["stopped"] = (stopped.interrupted, stopped.step)
    found["resumed"] = learned_by(Smooth, folder=path / "run")
    found["told"] = []
    run(Smooth(), callback=lambda p: found["told"].append(p.step) or p.step < 3)
    for name, task, options in (
        ("batch", Smooth(), {"batch": 5}),
        ("nan", Smooth(scale=lambda number: math.nan if rank and number == 3 else 1.0), {}),
    ):
        try:
            run(task, **options)
        except NstError as error:
            found[name] = f"{type(error).__name__}: {error}"
    seen = Smooth()
    run(seen, steps=2)
    return {**found, "seen": seen.seen}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return in_two_processes("test_training", tmp_path_factory.mktemp("two"))


def test_two_processes_learn_what_one_does_with_the_whole_batch(both):
    first, second = both
    task = Smooth()
    alone = learned(task, run(task))
    for kind in ("weights", "averages"):
        torch.testing.assert_close(first["two"][kind], alone[kind], rtol=0, atol=WEIGHTS)
    torch.testing.assert_close(first["two"]["history"], alone["history"], rtol=LOSSES, atol=0)
    for name in ("two", "resumed"):
        assert_same(second[name]["weights"], first[name]["weights"])
        assert_same(second[name]["history"], first[name]["history"])
    for number, batch in enumerate(task.seen[:2]):  # each sees its half
        assert torch.equal(torch.cat([first["seen"][number], second["seen"][number]]), batch)


def test_what_ends_one_of_two_processes_ends_both_and_they_go_on(both):
    first, second = both
    assert first["stopped"] == second["stopped"] == (True, 5)
    assert_same(first["resumed"], first["two"])
    assert (first["told"], second["told"]) == ([1, 2, 3], [])
    for one in both:
        assert one["batch"] == "SettingError: A batch of 5 is no multiple of 2 processes."
        assert one["nan"].startswith("OptimizationError: The loss is not a number at step 4: lower")
