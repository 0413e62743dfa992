"""The small generator's layers, the encoder's beginning, and that both learn."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_weights
from test_faces import tiny_tensors
from torch import nn

from nstlib.assets.weights import read_weights, save_weights
from nstlib.errors import SettingError
from nstlib.faces.generated import Faces
from nstlib.nets.dualstylegan import BottleneckModRes, DualStyleGAN
from nstlib.nets.face_encoder import FaceEncoder, from_state
from nstlib.nets.mobilefacenet import MobileFaceNet
from nstlib.nets.mobilestylegan import CUT, FacePrior
from nstlib.nets.style_generator import StyleGenerator
from nstlib.nets.stylegan2 import Discriminator, Generator
from nstlib.pictures.files import save_image
from nstlib.training import Schedule, train

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from face_networks import EncoderSettings, EncoderTask, PriorSettings, PriorTask, begin_with_recognizer


class Difference(nn.Module):
    """Stands in for LPIPS: the mean squared difference."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().mean((1, 2, 3))


@pytest.fixture(scope="module")
def faces() -> Faces:
    return Faces("cpu", tiny_tensors())


@pytest.fixture(scope="module")
def prior(faces: Faces) -> FacePrior:
    return faces.prior()


def new_encoder(prior: FacePrior) -> FaceEncoder:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = FaceEncoder(prior.layers, width=8)
        begin_with_recognizer(net, MobileFaceNet(), prior.mean_w(64))
        return net


# ---------------------------------------------------------------------------------------- the generator


def test_the_prior_draws_what_the_head_makes_of_the_features(faces, prior):
    w = faces.w(2, seed=3)
    features = faces.synthesis.features(w, CUT)
    expected = faces.distilled_head(features, faces.synthesis.w_plus(w)[:, 3 * CUT + 1])
    assert torch.allclose(prior(w, space="w"), expected, atol=1e-6)
    assert (prior.size, prior.layers, len(prior.structure_channels)) == (256, 12, 7)


def test_each_code_of_the_prior_has_its_own_place(prior):
    """Structure codes change features up to 32 pixels, color codes those behind; the last one the head's."""
    seen: dict[int, list[torch.Tensor]] = {}

    def drawn(w: torch.Tensor) -> torch.Tensor:
        return prior.synthesize(w, (), lambda i, x: seen.setdefault(i, []).append(x.clone()) or x)

    w = prior.w_plus(torch.randn(1, 12, 512, generator=torch.Generator().manual_seed(0)))
    before = drawn(w)
    assert [seen[i][0].shape[-1] for i in range(11)] == [4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128]
    for code in range(12):
        other = w.clone()
        other[:, code] += 1
        after = drawn(other)
        changed = [i for i in range(11) if not torch.equal(seen[i][0], seen[i][-1])]
        assert changed == list(range(code, 11))
        assert not torch.equal(before, after)


def test_a_path_over_any_generator_begins_with_its_faces(prior):
    torch.manual_seed(0)
    for source in (prior, Generator(32, (8, 8, 8, 8)).eval()):
        assert isinstance(source, StyleGenerator)
        net = DualStyleGAN.over(source, bottleneck_channels=4)
        w = torch.randn(1, net.layers, 512)
        art = torch.randn(1, net.layers, 512)
        plain = source(w, space="w")
        inside = net(w, art, space="w", extrinsic_space="w", interp_weights=0.0)
        assert torch.allclose(inside, plain, atol=1e-6)
        assert isinstance(net.res[0], BottleneckModRes)
        assert not any(key.startswith("generator.") for key in net.extrinsic_state())


# ------------------------------------------------------------------------------------------ the encoder


def test_the_encoder_refuses_other_pictures(prior):
    with pytest.raises(SettingError, match="cut the faces out"):
        new_encoder(prior)(torch.zeros(1, 3, 64, 64))


def test_an_encoder_comes_back_from_its_file(prior, tmp_path):
    net = new_encoder(prior).eval()
    save_weights(tmp_path / "net.safetensors", net.state_dict(), {})
    again = from_state(read_weights(tmp_path / "net.safetensors")[0])
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    assert torch.allclose(again(x), net(x), atol=2e-2)
    with pytest.raises(SettingError, match="not those of the face encoder"):
        from_state({"taps.0.weight": torch.zeros(3)})


# -------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kind", ["encoder", "prior"])
def test_both_learn(kind, prior, faces, tmp_path, picture):
    if kind == "encoder":
        settings = EncoderSettings(beginning=0, identity_weight=0.0)
        task = EncoderTask(new_encoder(prior), prior, settings, 3, lpips=Difference())
    else:
        files = [save_image(picture(256, 256, index), tmp_path / f"{index}.png") for index in range(3)]
        head, discriminator = type(faces.distilled_head)(8), Discriminator(256, (4, 4, 4, 4, 4, 4, 4))
        settings, weights = PriorSettings(layers=("relu1_1",)), make_weights("vgg16")
        task = PriorTask(head, discriminator, faces, files, faces.w(3), settings, 3, tensors=weights)
    before = {name: copy.deepcopy(module.state_dict()) for name, module in task.modules.items()}
    options = {"device": "cpu", "precision": "float32", "progress": False}
    result = train(task, Schedule(steps=3, batch=1, average=0.5), **options)
    assert all(math.isfinite(value) for row in result.history for value in row.values())
    for name, module in task.modules.items():
        assert any(not torch.equal(tensor, before[name][key]) for key, tensor in module.state_dict().items())
