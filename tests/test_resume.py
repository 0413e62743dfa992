"""Checkpoints: a run that was broken off, however, goes on to the pixels it would have had."""

from __future__ import annotations

import pytest
import torch
from conftest import Broken, Killed, rand, refused, timeless
from gatys_helpers import SHALLOW, left

from nstlib.errors import OptimizationError, SettingError
from nstlib.methods.gatys import OPTIMIZERS, Anchor, Checkpoint, Guide, Objective, stylize

pytestmark = pytest.mark.usefixtures("one_thread")  # some compare bits

# Two sizes, 17×14 and 24×20, five iterations at each.
SETTINGS = SHALLOW.changed(iterations=5, coarse_iterations=5, smallest=16)


PHOTOGRAPH, PAINTING = rand(1, 3, 24, 20, seed=1), rand(1, 3, 18, 15, seed=2)


@pytest.fixture
def paint(net):
    """``stylize`` with two sizes, from noise, and pictures of 24×20 and 18×15 unless others are given."""

    def run(checkpoint=None, content=PHOTOGRAPH, style=PAINTING, **options):
        options = {"init": "noise", "seed": 3, "extractor": net, "progress": False, **options}
        return stylize(content, style, SETTINGS, checkpoint=checkpoint, **options)

    return run


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.checkpoint"


def breaking(at, error=Broken):
    def callback(progress):
        if progress.iteration == at:
            raise error

    return callback


def assert_same(result, whole):
    assert torch.equal(result.image, whole.image)
    assert timeless(result.history) == timeless(whole.history)
    seconds = [row["seconds"] for row in result.history]
    assert seconds == sorted(seconds)


# --------------------------------------------------------------------------------------- the same pixels


@pytest.mark.parametrize("averaging", [0.0, 0.7])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_broken_off_by_errors_ends_with_the_same_pixels(paint, file, optimizer, averaging):
    options = {"optimizer": optimizer, "averaging": averaging}
    whole = paint(**options)
    assert len(whole.history) == 10
    # In the first size, at its end, right at the beginning of the second, and before the end.
    for at in (2, 5, 6, 9):
        with pytest.raises(Broken):
            paint(Checkpoint(file, every=0), callback=breaking(at), **options)
    assert_same(paint(Checkpoint(file, every=0), **options), whole)


@pytest.mark.parametrize(
    "options",
    [
        {"coarse_iterations": 2, "restart_every": 2},
        {"tile": 64, "style_distance": "wasserstein2"},
        {"color": "luminance", "init": "content"},
        {"content": None, "size": (19, 33)},
        {"start": rand(1, 3, 11, 30, seed=7)},
        {
            "style": [
                Guide((PAINTING, rand(1, 3, 30, 11, seed=4)), (1.0, 2.0), mask=left(24, 20, 9)),
                Guide((PAINTING,), mask=0.5 * (1 - left(24, 20, 9))),
            ],
            "anchor": Anchor(rand(1, 3, 24, 20, seed=5), left(24, 20, 9)), "temporal_weight": 3.0,
        },
    ],
    ids=["restarts", "tiles", "colors", "texture", "start", "guides"],
)  # fmt: skip
def test_whatever_the_settings(paint, file, options):
    whole = paint(**options)
    for at in (1, 3, 4):
        with pytest.raises(Killed):
            paint(Checkpoint(file, every=0), callback=breaking(at, Killed), **options)
    assert_same(paint(Checkpoint(file, every=0), **options), whole)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_control_c_in_the_middle_of_a_step(paint, file, optimizer, monkeypatch):
    whole = paint(optimizer=optimizer, averaging=0.5)
    left, original = [], Objective.__call__

    def interrupting(self, image):
        left.pop()
        if not left:
            raise KeyboardInterrupt
        return original(self, image)

    monkeypatch.setattr(Objective, "__call__", interrupting)
    for at in (2, 4, 5):
        left[:] = [None] * at
        stopped = paint(Checkpoint(file, every=0), optimizer=optimizer, averaging=0.5)
        assert stopped.interrupted
        assert torch.isfinite(stopped.image).all()
    monkeypatch.undo()
    assert_same(paint(Checkpoint(file, every=0), optimizer=optimizer, averaging=0.5), whole)


def test_work_since_the_last_saving_is_done_again(paint, file, monkeypatch):
    whole = paint()
    iterations = []
    monkeypatch.setattr(Checkpoint, "due", lambda self: len(iterations) % 3 == 2)

    def callback(progress):
        iterations.append(progress.iteration)
        if len(iterations) == 8:
            raise Broken

    with pytest.raises(Broken):
        paint(Checkpoint(file), callback=callback)
    assert_same(paint(Checkpoint(file), callback=callback), whole)
    # Saved after 3, at the end of the first size (5), and after 6; broken off after 8.
    assert iterations == [1, 2, 3, 4, 5, 6, 7, 8, 7, 8, 9, 10]


def test_a_finished_run_is_not_run_again(paint, file):
    told = []
    first = paint(Checkpoint(file))
    second = paint(Checkpoint(file), callback=told.append)
    assert told == []
    assert_same(second, first)
    for _ in range(2):  # the second time nothing is there, and nothing to say
        Checkpoint(file).remove()
    assert paint(Checkpoint(file), callback=told.append).image.equal(first.image)
    assert len(told) == 10


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "changed",
    [
        {"iterations": 6},
        {"seed": 4},
        {"content": rand(1, 3, 24, 20, seed=9)},
        {"style": [PAINTING, PAINTING]},
        {"style": [Guide((PAINTING,), mask=torch.ones(1, 1, 24, 20))]},
        {"start": PHOTOGRAPH},
        {"anchor": Anchor(PHOTOGRAPH, torch.ones(1, 1, 24, 20))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_runs_checkpoint_is_refused_and_kept(paint, file, changed):
    with pytest.raises(Broken):
        paint(Checkpoint(file, every=0), callback=breaking(3))
    before = file.read_bytes()
    sentence = r"run\.checkpoint' is no checkpoint of these pictures and settings: give those"
    with refused(SettingError, match=sentence):
        paint(Checkpoint(file, every=0), **changed)
    assert file.read_bytes() == before


@pytest.mark.parametrize("how", ["cut", "no fingerprint"])
def test_a_broken_file_is_one_sentence(paint, file, how):
    torch.save({"x": 1}, file)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:100])
    sentence = r"'.*run\.checkpoint' is no checkpoint of these .* or delete it to begin anew"
    with refused(SettingError, match=sentence):
        paint(Checkpoint(file, every=0))
    assert file.exists()  # whose it is, we do not know


# ------------------------------------------------------------------------------------------ half a checkpoint


def test_a_checkpoint_that_is_half_written_costs_neither_the_picture_nor_the_last_one(
    paint, file, monkeypatch
):
    save, left = torch.save, [4]

    def fails(content, target):
        left[0] -= 1
        if not left[0]:
            target.write(b"the first half")
            raise KeyboardInterrupt
        save(content, target)

    monkeypatch.setattr(torch, "save", fails)
    result = paint(Checkpoint(file, every=0))
    assert result.interrupted
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    # The picture after the fourth iteration, at its full size, is not lost with it.
    assert result.image.shape == (1, 3, 24, 20)
    assert len(result.history) == 4
    monkeypatch.undo()
    assert_same(paint(Checkpoint(file, every=0)), paint())


def test_a_picture_of_nans_is_not_saved(paint, file, monkeypatch):
    class Exploding(OPTIMIZERS["adam"]):
        def _move(self, problem, total, gradient):
            super()._move(problem, total, gradient * (torch.nan if self.steps == 3 else 1))

    monkeypatch.setitem(OPTIMIZERS, "adam", Exploding)
    results = []
    for _ in range(2):  # the second time from the file, where no NaNs are
        with pytest.raises(OptimizationError, match="not a number at iteration 5") as caught:
            paint(Checkpoint(file, every=0), optimizer="adam", smallest=None)
        results.append(caught.value.result.image)
    assert torch.isfinite(results[0]).all()
    assert torch.equal(*results)
