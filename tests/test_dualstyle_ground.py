"""What notebook 05 stands on: a generator and its encoder at each preset."""

from __future__ import annotations

import pytest
import torch

from nstlib.course import dualstyle
from nstlib.errors import SettingError
from nstlib.methods.dualstylegan import AS_RELEASED
from nstlib.nets.dualstylegan import DualStyleGAN
from nstlib.nets.psp import PspEncoder


@pytest.fixture(scope="module")
def tiny() -> dualstyle.PresetModels:
    return dualstyle.ground("smoke", device="cpu")


def test_smoke_reads_codes_of_its_own_generator(tiny):
    assert tiny.source.size == 32
    codes = tiny.codes(torch.rand(2, 3, 32, 32))
    assert codes.shape == (2, tiny.source.layers, 512)
    assert tiny.source(codes, space="w").shape == (2, 3, 32, 32)
    assert tiny.discriminator() is None  # it learns from VGG-16's features
    assert not any(p.requires_grad for net in (tiny.source, tiny.reader) for p in net.parameters())


def test_smoke_is_the_same_each_time_and_leaves_the_callers_random_numbers_alone(tiny):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    again = dualstyle.ground("smoke")
    assert torch.equal(torch.get_rng_state(), before)
    ours, theirs = tiny.source.state_dict(), again.source.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    other = dualstyle.ground("smoke", seed=1).source.state_dict()
    assert not torch.equal(ours["conv1.conv.weight"], other["conv1.conv.weight"])


def test_quick_has_few_steps_but_all_stages():
    preset = dualstyle.quick()
    structure, style = preset.schedules()
    first = preset.destylization
    steps = [first.tuning_steps, first.steps, structure.steps, style.steps, preset.latent.steps]
    assert min([*steps, preset.sampler.steps]) >= 1
    shown = first.tuning_steps * first.tuning_batch + (structure.steps + style.steps) * preset.batch
    assert shown <= 90  # pictures with gradients: a laptop draws three a second
    assert [kept for kept, _ in preset.structure.mixing] == [7, 6, 5]


def test_paper_reads_the_published_files(tmp_path):
    with torch.random.fork_rng([]):
        net = DualStyleGAN(32, (8, 8, 8, 8))
        encoder = PspEncoder(8, (16, 16, 16, 512))
    torch.save({"g_ema": net.state_dict()}, tmp_path / "generator.pt")
    inside = {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}
    torch.save({"state_dict": inside | {"decoder.input": torch.zeros(1)}}, tmp_path / "encoder.pt")
    ground = dualstyle.ground("paper", tmp_path / "generator.pt", tmp_path / "encoder.pt")
    assert ground.net is not None
    assert ground.net.generator is ground.source
    assert (ground.space, ground.bottleneck_channels, ground.preset) == ("z", None, AS_RELEASED)
    pictures = torch.rand(1, 3, 32, 32)
    codes = ground.codes(pictures)
    assert codes.shape == (1, 8, 512)
    assert torch.equal(codes, ground.source.style(ground.reader(pictures)))  # z+ has passed the mapping
    discriminator = ground.discriminator()
    assert discriminator is not None
    assert discriminator(torch.zeros(1, 3, 32, 32)).shape == (1, 1)


def test_paper_says_what_is_missing(tmp_path):
    with pytest.raises(SettingError, match="give its two files"):
        dualstyle.ground("paper")
    with pytest.raises(SettingError, match="There is no file"):
        dualstyle.ground("paper", tmp_path / "none.pt", tmp_path / "none.pt")
