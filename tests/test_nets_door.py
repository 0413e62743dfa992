"""Networks with published weights: layouts held to a digest and to the published files, and loading."""

from __future__ import annotations

from collections.abc import Callable

import parity
import pytest
import torch
from conftest import refused
from torch import nn

from nstlib import nets
from nstlib.errors import SettingError
from nstlib.nets import (
    adain,
    bisenet,
    cyclegan,
    dualstylegan,
    johnson,
    psp,
    puff_extractors,
    stylegan2,
    transformer_style,
    u2_local,
    u2net,
)

# Widths of U²-Net's stages, down and up.
U2NET = (
    [(32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)],
    [(16, 64), (32, 64), (64, 128), (128, 256), (256, 512)],
)

# File in ../shared/parity -> the network's name, how it is made, and the digest of its names and shapes.
PUBLISHED: dict[str, tuple[str, Callable[[], nn.Module], str]] = {
    "adain_decoder_keys": ("adain_decoder", adain.Decoder, "ea033323d8e2ee21"),
    "bisenet_faceparse19_keys": ("bisenet_faceparse19", bisenet.BiSeNet, "3fbee299cf8e9aea"),
    "cyclegan_patchgan_keys": ("cyclegan_patchgan", cyclegan.PatchDiscriminator, "0700eebba9cfa762"),
    "cyclegan_resnet6_keys": (
        "cyclegan_resnet6", lambda: cyclegan.ResnetGenerator(blocks=6), "6e60a3d63eacca20",
    ),
    "cyclegan_resnet9_keys": ("cyclegan_resnet9", cyclegan.ResnetGenerator, "00af584c762385af"),
    "dsg_sampler_color_keys": ("dsg_sampler_color", lambda: dualstylegan.Sampler(11), "ffb1ccd764a4664e"),
    "dsg_sampler_structure_keys": (
        "dsg_sampler_structure", lambda: dualstylegan.Sampler(7), "bd4defff2ef3d5cd",
    ),
    "dualstylegan_64_keys": ("dualstylegan", lambda: dualstylegan.DualStyleGAN(64), "3973e2a787ac4182"),
    "dualstylegan_256_keys": ("dualstylegan", lambda: dualstylegan.DualStyleGAN(256), "606883b8897bf9dd"),
    "dualstylegan_1024_keys": ("dualstylegan", dualstylegan.DualStyleGAN, "e98e7f03fdcf23e1"),
    "fns_transformer_keys": ("fns_transformer", johnson.TransformNet, "12a49b6a4cca3656"),
    "ir_se50_keys": ("ir_se50", psp.IrSe50, "471eb9bc30358c01"),
    "jojogan_discfeat_256_keys": (
        "jojogan_discfeat", lambda: stylegan2.DiscriminatorFeatures(256), "2da86571425a4de8",
    ),
    "jojogan_generator_64_keys": ("jojogan_generator", lambda: stylegan2.Generator(64), "317e223594ad9f02"),
    "psp_encoder_keys": ("psp_encoder", psp.PspEncoder, "4c588887e1d50b3f"),
    "puff_base_keys": ("puff_base", puff_extractors.StyleExtractor, "8fd0cb96899d5bc2"),
    "puff_detail_keys": ("puff_detail", puff_extractors.ContentExtractor, "4e37ff66d90e989e"),
    "puff_transformer_keys": ("puff_transformer", transformer_style.FusionTransformer, "3387ec65498b5ea3"),
    "rsu4_keys": ("rsu4", lambda: u2net.RSU(4, 8, 6, 10), "950afc1799e35f8e"),
    "rsu4f_keys": ("rsu4f", lambda: u2net.RSU(4, 8, 6, 10, True), "950afc1799e35f8e"),
    "rsu5_keys": ("rsu5", lambda: u2net.RSU(5, 8, 6, 10), "9ad809991568e498"),
    "rsu6_keys": ("rsu6", lambda: u2net.RSU(6, 8, 6, 10), "b572e9dffb2093c1"),
    "rsu7_keys": ("rsu7", lambda: u2net.RSU(7, 3, 12, 6), "eabf3e8fcb4f4e95"),
    "sanet_block64_keys": ("sanet_block", lambda: u2_local.SanetBlock(64), "5f5a466bf1b0b035"),
    "stylegan2_disc_64_keys": ("stylegan2_disc", lambda: stylegan2.Discriminator(64), "70a2abb7fd544226"),
    "stylegan2_disc_keys_256": ("stylegan2_disc", lambda: stylegan2.Discriminator(256), "7ee1488a382cd27f"),
    "stylegan2_disc_keys_1024": ("stylegan2_disc", stylegan2.Discriminator, "c2400ab2602d5098"),
    "stytr2_decoder_keys": ("stytr2_decoder", adain.Decoder, "ea033323d8e2ee21"),
    "stytr2_embedding_keys": ("stytr2_embedding", transformer_style.PatchEmbedding, "d523a353afc22a08"),
    "stytr2_transformer_keys": (
        "stytr2_transformer", transformer_style.Transformer, "c784455a65f12dfe",
    ),
    "u2net_keys": ("u2net", lambda: u2net.U2Net(*U2NET), "bc4da5825d16dca6"),
    "u2netp_keys": ("u2netp", lambda: u2net.U2Net([(16, 64)] * 6, [(16, 64)] * 5), "33d6979d83673620"),
    "updg_style2_resnet9_keys": ("updg_style2_resnet9", cyclegan.DrawingGenerator, "1a0672f90637894e"),
}  # fmt: skip

# The same networks, small: one for each function that reads sizes from weights.
SMALL: dict[str, Callable[[], nn.Module]] = {
    "adain_decoder": adain.Decoder,
    "bisenet_faceparse19": lambda: bisenet.BiSeNet(11),
    "cyclegan_patchgan": lambda: cyclegan.PatchDiscriminator(4, 2, 1),
    "cyclegan_resnet9": lambda: cyclegan.ResnetGenerator(4, 2, 1, 2),
    "dsg_sampler_color": lambda: dualstylegan.Sampler(11),
    "dualstylegan": lambda: dualstylegan.DualStyleGAN(32, (4, 4, 4, 4)),
    "fns_transformer": lambda: johnson.TransformNet(4, 2),
    "ir_se50": lambda: psp.IrSe50((16, 16, 16, 16)),
    "jojogan_discfeat": lambda: stylegan2.DiscriminatorFeatures(128, (4,) * 6),
    "jojogan_generator": lambda: stylegan2.Generator(64, (4,) * 5),
    "psp_encoder": lambda: psp.PspEncoder(8, (16, 16, 16, 16)),
    "puff_base": puff_extractors.StyleExtractor,
    "puff_detail": puff_extractors.ContentExtractor,
    "puff_transformer": lambda: transformer_style.FusionTransformer(8, 2),
    "rsu4": lambda: u2net.RSU(4, 3, 2, 4),
    "rsu4f": lambda: u2net.RSU(4, 3, 2, 4, True),
    "sanet_block": lambda: u2_local.SanetBlock(4),
    "stylegan2_disc": lambda: stylegan2.Discriminator(32, (4, 4, 4, 4)),
    "stytr2_embedding": lambda: transformer_style.PatchEmbedding(8),
    "stytr2_transformer": lambda: transformer_style.Transformer(8, 2),
    "u2net": lambda: u2net.U2Net([(2, 4)] * 6, [(2, 4)] * 5),
    "updg_style2_resnet9": lambda: cyclegan.DrawingGenerator(4, 1, 2),
}


@pytest.mark.parametrize("file", PUBLISHED)
def test_layouts_are_the_published_ones(file):
    name, make, digest = PUBLISHED[file]
    with torch.device("meta"):
        state = make().state_dict()
    layout = parity.shapes(state)
    if parity.FOLDER.is_dir():
        assert layout == parity.layout(file)
    assert parity.digest(layout) == digest
    assert parity.shapes(nets.from_official(name, state).state_dict()) == layout  # sizes are read from it


def test_every_network_is_tested_here():
    assert {name for name, _, _ in PUBLISHED.values()} == set(nets.OFFICIAL)
    assert {nets.OFFICIAL[name] for name in SMALL} == set(nets.OFFICIAL.values())


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_copied_and_frozen(name):
    torch.manual_seed(0)
    source = SMALL[name]()
    state = source.state_dict()
    found = nets.from_official(name, state)
    assert type(found) is type(source)
    assert not found.training
    assert not any(one.requires_grad for one in found.parameters())
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(one, state[key]) for key, one in found.state_dict().items())
    own = {one.data_ptr() for one in source.parameters()}
    assert not own & {one.data_ptr() for one in found.parameters()}, "the weights are not copied"


@pytest.mark.parametrize("name", SMALL)
def test_other_weights_are_refused_in_one_sentence(name):
    with torch.device("meta"):
        state = SMALL[name]().state_dict()
    key = next(reversed(state))
    wrong = {
        f"they lack '{key}'": {one: t for one, t in state.items() if one != key},
        f"they have another shape of '{key}' .1 such": state | {key: torch.zeros(512, 1)},
        "they have, beyond what it takes, 'more'": state | {"more": torch.zeros(1)},
        "they lack .*g_ema": {},
    }
    for words, weights in wrong.items():
        with refused(SettingError, match=f"These weights are not those of .*: {words}"):
            nets.from_official(name, weights)


def test_weights_stored_in_half_the_bytes_are_computed_with_in_float32():
    state = {key: one.half() for key, one in SMALL["stylegan2_disc"]().state_dict().items()}
    found = nets.from_official("stylegan2_disc", state)
    assert {one.dtype for one in found.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "near"), [("dualstyleGAN", "dualstylegan"), ("psp", "psp_encoder"), ("bisenet", "bisenet_face")]
)
def test_an_unknown_name_gets_the_closest_one(name, near):
    with pytest.raises(SettingError, match=rf"network '{name}' \(did you mean '{near}.*'\?\): .* fns_tra"):
        nets.from_official(name, {})
