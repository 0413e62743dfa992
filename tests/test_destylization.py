"""Destylization: the source's style is learned, colors come back, the face is a photograph, work goes on."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import in_two_processes, make_weights, refused
from test_training import assert_same

from nstlib import assets
from nstlib.errors import ImageError, OptimizationError, SettingError
from nstlib.methods.dualstylegan.destylization import (
    StyleDistance,
    destylize,
    fine_tune_source,
    initial_codes,
    optimized_codes,
    photographic,
)
from nstlib.methods.dualstylegan.settings import AS_RELEASED, SMALL
from nstlib.nets.stylegan2 import Discriminator, Generator

pytestmark = pytest.mark.usefixtures("random_networks")
CHANNELS = (8, 8, 8, 8)
TINY = SMALL.destylization.changed(
    tuning_steps=3, steps=2, inversion=SMALL.destylization.inversion.changed(identity_weight=0.0)
)


@pytest.fixture(scope="module")
def source():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Generator(32, CHANNELS).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def portraits():
    """Three pictures in one style: stripes of a few colors."""
    generator = torch.Generator().manual_seed(1)
    colors = torch.rand(3, 3, 1, 8, generator=generator).repeat_interleave(4, 3)
    return colors.expand(3, 3, 32, 32).contiguous()


class Encoder:
    """Stands in for the encoder: codes that depend on the picture; breaks off at a given call."""

    def __init__(self, layers, breaks=0):
        self.weight = torch.randn(3, layers * 512, generator=torch.Generator().manual_seed(2)) / 2
        self.layers, self.calls, self.breaks = layers, 0, breaks

    def __call__(self, pictures):
        self.calls += 1
        if self.calls == self.breaks:
            raise KeyboardInterrupt
        return (pictures.mean((2, 3)) @ self.weight).unflatten(1, (self.layers, 512))


# --------------------------------------------------------------------------------- the fine-tuned source


def test_the_source_stays_and_its_copy_learns_the_style(source, portraits):
    before = copy.deepcopy(source.state_dict())
    settings = TINY.changed(tuning_steps=20, content_weight=0.0, contextual_weight=0.0, tuning_rate=5e-3)
    tuned, result = fine_tune_source(source, portraits, settings, progress=False)
    assert_same(source.state_dict(), before)
    assert not any(p.requires_grad for p in [*tuned.parameters(), *source.parameters()])
    assert result.step == 20
    after = tuned.state_dict()
    frozen = {key for key in before if key.startswith("style.")}
    assert frozen
    assert all(torch.equal(after[key], before[key]) for key in frozen)
    distance = StyleDistance(portraits, settings, "cpu")
    z = torch.randn(4, 512, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        old, new = source(z), tuned(z)
        wanted = 2 * portraits[[0, 1, 2, 0]] - 1
        assert distance(new, wanted, old)["moments"] < 0.5 * distance(old, wanted, old)["moments"]


def test_a_discriminator_may_teach_it(source, portraits):
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        discriminator = Discriminator(32, CHANNELS)
    before, judged = (copy.deepcopy(net.state_dict()) for net in (source, discriminator))
    settings = AS_RELEASED.destylization.changed(tuning_steps=2, tuning_batch=2)
    tuned, result = fine_tune_source(source, portraits, settings, discriminator=discriminator, progress=False)
    assert set(result.history[0]) == {"step", "seconds", "total", "adversarial", "discriminator"}
    assert any(not torch.equal(tensor, judged[key]) for key, tensor in discriminator.state_dict().items())
    changed = {key for key, tensor in tuned.state_dict().items() if not torch.equal(tensor, before[key])}
    assert any(key.startswith("style.") for key in changed)  # as released, the mapping network learns too


# --------------------------------------------------------------------------------------------- the steps


@pytest.mark.parametrize("restored", [0, 7, 8])
def test_the_colors_come_back_exactly(source, portraits, restored):
    encoder = Encoder(source.layers)
    start = initial_codes(portraits, encoder, source)
    assert start.shape == (3, source.layers, 512)
    settings = TINY.changed(restored=restored)
    codes = optimized_codes(portraits, source, start, settings, progress=False)
    assert torch.equal(codes[:, restored:], start[:, restored:])
    for index in range(restored):
        assert not torch.equal(codes[:, index], start[:, index])


@pytest.mark.parametrize("space", ["w", "z"])
def test_all_steps_together(source, portraits, space, tmp_path):
    settings = TINY.changed(inversion=TINY.inversion.changed(space=space))
    options = {"progress": False}
    encoder = Encoder(source.layers)
    tuned, _ = fine_tune_source(source, portraits, settings, tmp_path, progress=False)
    # A later step's setting does not refuse it.
    assert fine_tune_source(source, portraits, settings.changed(steps=9), tmp_path, **options)[1].step == 3
    found = destylize(portraits, source, encoder, settings, **options)
    start = initial_codes(portraits[1:2], encoder, source)
    codes = optimized_codes(portraits[1:2], tuned, start, settings, **options)
    face = initial_codes(photographic(codes, source, settings), encoder, source)
    torch.testing.assert_close(found.extrinsic[1:2], source.w_plus(codes, space))
    torch.testing.assert_close(found.intrinsic[1:2], source.w_plus(face, space))
    assert torch.equal(found.portraits, portraits)
    if space == "w":
        assert torch.equal(found.extrinsic[:, 7:], initial_codes(portraits, encoder, source)[:, 7:])


def test_what_was_broken_off_goes_on_with_the_same_codes(source, portraits, tmp_path):
    # Not to the bit: LPIPS' gradient differs by 1e-9 between a process's first call and the later ones,
    # and Adam makes 4e-5 of it.
    options = {"progress": False}
    whole = destylize(portraits, source, Encoder(source.layers), TINY, **options)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):  # each portrait asks twice: it dies in the second one
        destylize(portraits, source, Encoder(source.layers, breaks=4), TINY, folder, **options)
    assert (folder / "0000.safetensors").exists()
    assert not (folder / "0001.safetensors").exists()
    encoder = Encoder(source.layers)
    again = destylize(portraits, source, encoder, TINY, folder, **options)
    assert encoder.calls == 4
    for name in ("extrinsic", "intrinsic", "portraits"):
        torch.testing.assert_close(getattr(again, name), getattr(whole, name), rtol=0, atol=1e-3)
    (folder / "0000.safetensors").write_bytes(b"half")  # a damaged portrait is done again, and no other
    encoder = Encoder(source.layers)
    destylize(portraits, source, encoder, TINY, folder, **options)
    assert encoder.calls == 2
    for changed, values in ((portraits[1:2], TINY), (portraits, TINY.changed(truncation=0.5))):
        with refused(SettingError, match="other settings"):
            destylize(changed, source, encoder, values, folder, **options)


def test_a_loss_that_is_no_number_names_the_portrait(source, portraits):
    settings = TINY.changed(steps=5, inversion=TINY.inversion.changed(learning_rate=1e30))
    with refused(OptimizationError, match="Portrait 1: The loss is no number"):
        destylize(portraits, source, Encoder(source.layers), settings, tuned=source, progress=False)


def test_what_does_not_fit_is_refused(source, portraits):
    with refused(SettingError, match=r"not \(3, 3, 512\)"):
        initial_codes(portraits, Encoder(3), source)
    with pytest.raises(ImageError, match="square"):
        destylize(torch.zeros(1, 3, 32, 16), source, Encoder(source.layers), TINY)
    with pytest.raises(ImageError, match=r"\[0, 1\]"):
        fine_tune_source(source, 2 * portraits, TINY)


# ------------------------------------------------------------------------------------- several processes


def found_by(folder):
    """Three portraits destylized by this process, or by it and others through the folder."""
    torch.manual_seed(0)
    source = Generator(32, CHANNELS).requires_grad_(False).eval()
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = destylize(pictures, source, Encoder(8), TINY, folder, tuned=source, progress=False)
    return {"extrinsic": found.extrinsic, "intrinsic": found.intrinsic}


def two_processes(path):
    """The portraits by one of two processes, which share them through the folder."""
    assets.load_tensors = lambda name: make_weights(name)
    return found_by(path / "run")


def test_two_processes_share_the_portraits_and_find_what_one_finds(tmp_path):
    found = in_two_processes("test_destylization", tmp_path)
    with torch.random.fork_rng([]):
        wanted = found_by(None)
    for one in found:
        torch.testing.assert_close(one, wanted, rtol=0, atol=1e-3)
    names = sorted(path.name for path in (tmp_path / "run").glob("*.safetensors"))
    assert names == ["0000.safetensors", "0001.safetensors", "0002.safetensors"]
