"""What notebook 05 stands on: a generator and its encoder at each preset."""

from __future__ import annotations

import pytest
import torch

from nstlib.course import dualstyle
from nstlib.errors import SettingError
from nstlib.methods.dualstylegan import AS_RELEASED
from nstlib.nets.dualstylegan import DualStyleGAN
from nstlib.nets.psp import PspEncoder


def test_smoke_reads_codes_of_its_own_generator_and_is_the_same_each_time():
    before = torch.get_rng_state()
    tiny, again, other = (dualstyle.ground("smoke", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    ours, theirs, others = (one.net.state_dict() for one in (tiny, again, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not torch.equal(ours["generator.conv1.conv.weight"], others["generator.conv1.conv.weight"])
    pictures = torch.rand(2, 3, 32, 32)
    codes = tiny.faces(pictures)
    assert torch.equal(codes, again.faces(pictures))
    assert codes.shape == (2, tiny.source.layers, 512)
    assert tiny.source(codes, space="w").shape == (2, 3, 32, 32)
    assert not any(p.requires_grad for p in tiny.source.parameters())


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
    method = dualstyle.ground("paper", tmp_path / "generator.pt", tmp_path / "encoder.pt")
    assert (method.space, method.settings.stages) == ("z", AS_RELEASED)
    path, theirs = method.net.extrinsic_state(), net.extrinsic_state()
    assert path.keys() == theirs.keys()
    assert not torch.equal(path["style.1.weight"], theirs["style.1.weight"])  # a new one
    pictures = torch.rand(1, 3, 32, 32)
    codes = method.faces(pictures)
    assert codes.shape == (1, 8, 512)
    assert torch.equal(codes, method.source.style(method.encoder(pictures)))  # z+ has passed the mapping


def test_paper_says_what_is_missing(tmp_path):
    with pytest.raises(SettingError, match="give its two files"):
        dualstyle.ground("paper")
    with pytest.raises(SettingError, match="There is no file"):
        dualstyle.ground("paper", tmp_path / "none.pt", tmp_path / "none.pt")
