"""The one door to networks with published weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import parity
import pytest
import torch
from torch import nn

from nstlib import nets
from nstlib.errors import SettingError
from nstlib.nets import adain, bisenet, dualstylegan, psp, stylegan2

# Small ones where the size is read off the weights.
KNOWN: dict[str, Callable[[], nn.Module]] = {
    "adain_decoder": adain.Decoder,
    "bisenet_faceparse19": bisenet.BiSeNet,
    "dsg_sampler_color": lambda: dualstylegan.Sampler(11),
    "dsg_sampler_structure": lambda: dualstylegan.Sampler(7),
    "dualstylegan": lambda: dualstylegan.DualStyleGAN(32, (4, 4, 4, 4)),
    "ir_se50": lambda: psp.IrSe50((16, 16, 16, 16)),
    "jojogan_discfeat": lambda: stylegan2.DiscriminatorFeatures(128, (4,) * 6),
    "jojogan_generator": lambda: stylegan2.Generator(64, (4,) * 5),
    "psp_encoder": lambda: psp.PspEncoder(8, (16, 16, 16, 16)),
    "stylegan2_disc": lambda: stylegan2.Discriminator(32, (4, 4, 4, 4)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_each_name_opens_its_network(name):
    torch.manual_seed(0)
    source = KNOWN[name]()
    state = source.state_dict()
    found = nets.from_official(name, state)
    assert type(found) is type(source)
    assert not found.training
    assert not any(one.requires_grad for one in found.parameters())
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(one, state[key]) for key, one in found.state_dict().items())
    own = {one.data_ptr() for one in source.parameters()}
    assert not own & {one.data_ptr() for one in found.parameters()}, "the weights are not copied"


@pytest.mark.parametrize("name", KNOWN)
def test_each_is_strict(name):
    with torch.device("meta"):
        state = KNOWN[name]().state_dict()
    key = next(reversed(state))
    for changed in (state | {"more": torch.zeros(1)}, {one: t for one, t in state.items() if one != key}):
        with pytest.raises(SettingError):
            nets.from_official(name, changed)


def test_no_name_is_registered_without_its_test():
    assert set(nets.OFFICIAL) - {"fns_transformer"} == set(KNOWN)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("dualstyleGAN", "dualstylegan"),
        ("stylegan2_discriminator", "stylegan2_disc"),
        ("dsg_sampler", "dsg_sampler_color"),
        ("psp", "psp_encoder"),
        ("bisenet", "bisenet_faceparse19"),
    ],
)
def test_an_unknown_name_gets_the_closest_one(name, near):
    with pytest.raises(SettingError, match=f"No network '{name}' .* did you mean '{near}', .*") as told:
        nets.from_official(name, {})
    assert str(told.value).count("\n") == 0
    assert "psp_encoder" in str(told.value)


@parity.needed
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("adain_decoder", "adain_decoder_keys"),
        ("dualstylegan", "dualstylegan_64_keys"),
        ("dualstylegan", "dualstylegan_256_keys"),
        ("dualstylegan", "dualstylegan_1024_keys"),
        ("stylegan2_disc", "stylegan2_disc_64_keys"),
        ("stylegan2_disc", "stylegan2_disc_keys_256"),
        ("stylegan2_disc", "stylegan2_disc_keys_1024"),
        ("dsg_sampler_color", "dsg_sampler_color_keys"),
        ("dsg_sampler_structure", "dsg_sampler_structure_keys"),
        ("psp_encoder", "psp_encoder_keys"),
        ("ir_se50", "ir_se50_keys"),
        ("jojogan_generator", "jojogan_generator_64_keys"),
        ("jojogan_discfeat", "jojogan_discfeat_256_keys"),
        ("bisenet_faceparse19", "bisenet_faceparse19_keys"),
    ],
)
def test_published_layouts_go_through(name, file):
    layout = parity.layout(file)
    state = parity.empty(layout)
    if name in ("adain_decoder", "bisenet_faceparse19"):  # these copy into memory of their own
        state = {key: torch.zeros((), dtype=one.dtype).expand(one.shape) for key, one in state.items()}
    assert parity.shapes(nets.from_official(name, state).state_dict()) == layout


def test_the_door_alone_loads_no_network():
    program = "import sys, nstlib.nets; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
