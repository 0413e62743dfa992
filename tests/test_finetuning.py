"""DualStyleGAN's second and third stage: the losses, what learns and what does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import in_two_processes, make_weights, randn, refused
from test_training import assert_same, learned

from nstlib import assets
from nstlib.errors import SettingError
from nstlib.losses import contextual_loss, feature_matching
from nstlib.methods.dualstylegan import (
    SMALL,
    Destylized,
    FineTuning,
    StyleSettings,
    extrinsic_weights,
    fine_tune,
)
from nstlib.methods.dualstylegan.destylization import augment
from nstlib.methods.dualstylegan.finetuning import FeatureDiscriminator
from nstlib.nets.dualstylegan import DualStyleGAN
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.stylegan2 import Generator
from nstlib.training import Schedule, train

pytestmark = pytest.mark.usefixtures("random_networks")
SIZE, LAYERS, CODES = 32, ("relu1_1", "relu2_1", "relu3_1"), 8
STRUCTURE = SMALL.structure.changed(mixing=((7, 1), (5, 3)), decay=1.0, adversarial_weight=0.1)
STYLE = SMALL.style.changed(phases=((2, 1.0, 0.01), (4, 2.0, 0.005)), resampled=7, decay=1.0)
PLAIN = {"adversarial_weight": 0.0, "contextual_weight": 0.0, "matching_weight": 0.0, "jitter": 0.0}


def make_net():
    """A small network with an extrinsic path, always the same."""
    with torch.random.fork_rng([]):
        torch.manual_seed(4)
        return DualStyleGAN.over(Generator(SIZE, (8, 8, 8, 8)).requires_grad_(False).eval(), 8)


def make_styles(net, count=3):
    codes = [0.5 * randn(count, net.layers, 512, seed=seed) for seed in (1, 2)]
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    return Destylized(*codes, F.interpolate(coarse, (net.size, net.size), mode="bilinear"))


class Faces:
    """Stands in for the identity: the directions of coarse pictures. Remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def embed(self, images, alignment):
        self.asked.append((images.detach().clone(), alignment))
        return F.normalize(F.adaptive_avg_pool2d(images, 4).flatten(1) - 0.5)


def make_task(settings, net=None, **options):
    net = net or make_net()
    if isinstance(settings, StyleSettings):
        options = {"styles": make_styles(net), **options}
    return FineTuning(net, settings, precision="float32", **options)


def run(task, steps=6, folder=None, **options):
    schedule = {"batch": 2, "average": 0.9, "save_every": 0, "seed": 0}
    schedule |= {key: options.pop(key) for key in list(options) if key in schedule}
    options = {"device": "cpu", "precision": "float32", "progress": False, **options}
    return train(task, Schedule(steps=steps, **schedule), folder, **options)


def losses_of(task, steps=6, **options):
    return run(task, steps, **options).history


def frozen(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


# ------------------------------------------------------------------------------------------------ losses


def test_feature_matching_is_its_definition():
    x, y = randn(2, 3, 4, 5), randn(2, 3, 2, 6, seed=1)
    expected = np.mean([[(x[n, c].mean() - y[n, c].mean()).item() ** 2 for c in range(3)] for n in range(2)])
    assert feature_matching(x, y).item() == pytest.approx(expected, rel=1e-5)
    assert feature_matching(x, x.flip(3)).item() == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------------------ what is learned


@pytest.mark.parametrize("settings", [STRUCTURE, STYLE], ids=["structure", "style"])
def test_the_path_and_the_discriminator_learn_and_the_generator_does_not(settings):
    task = make_task(settings, identity=Faces())
    generator, path, discriminator = (frozen(m) for m in (task.net.generator, task.path, task.discriminator))
    result = run(task, 2)
    assert_same(frozen(task.net.generator), generator)
    assert not any("generator" in key for key in task.path.state_dict())
    for module, before in ((task.path, path), (task.discriminator, discriminator)):
        for name, parameter in module.named_parameters():
            # A discriminator's last bias is moved up by the portraits as far as down by the drawn pictures.
            assert name.endswith("4.bias") or not torch.equal(parameter, before[name]), name
    assert {"total", "adversarial", "discriminator"} <= result.history[1].keys()


def goal(task, number, positions):
    """Codes of faces and others, and what the generator makes of both mixed, by hand."""
    w = task.center + task.settings.truncation * (
        task.net.generator.style(task.batch(positions)["z"]) - task.center
    )
    face, other = w[:, 0], w[:, 1]
    kept = task.settings.codes_kept(number)
    codes = torch.stack([face if layer < kept else other for layer in range(task.net.layers)], 1)
    return face, other, task.net.generator(codes, space="w")


def plain_perceptual(made, wanted, weights):
    seen = FeatureExtractor("vgg19", LAYERS, device="cpu", precision="float32")
    found = [list(seen((x + 1) / 2).values()) for x in (made, wanted)]
    return sum(w * (a - b).abs().mean() for w, a, b in zip(weights, *found, strict=True))


def test_the_goal_of_the_second_stage_is_what_the_generator_makes_of_both_codes_mixed():
    settings = STRUCTURE.changed(mixing=((6, 1), (2, 5)), adversarial_weight=0.0)
    task = make_task(settings)
    for number, positions in enumerate(([0, 1], [2, 3])):
        with torch.no_grad():
            face, other, wanted = goal(task, number, positions)
            made = task.net(face, other, space="w", extrinsic_space="w")
            expected = 0.5 * plain_perceptual(made, wanted, (1, 1, 1))
        row = losses_of(make_task(settings.changed(learning_rate=1e-30)), number + 1)[-1]
        assert row["total"] == row["perceptual"] == pytest.approx(expected.item(), rel=1e-5)
        assert row.keys() == {"step", "seconds", "total", "perceptual"}


def test_the_losses_of_a_pair_and_of_a_random_face_are_those_computed_by_hand():
    settings = STYLE.changed(learning_rate=1e-30, discriminator_rate=1e-30, jitter=0.3)
    net, faces = make_net(), Faces()
    styles = make_styles(net)
    task = make_task(settings, net=net, styles=styles, identity=faces)
    pair, other = losses_of(task, 2)
    w, wanted = task.batch([0, 1]), 2 * styles.portraits - 1
    chosen = w["chosen"]
    with torch.no_grad():
        made = net(styles.intrinsic[chosen], styles.extrinsic[chosen], space="w", extrinsic_space="w")
        expected = plain_perceptual(made, wanted[chosen], (0, 0.5, 1))
    # The portraits' features are kept in half precision.
    assert pair["perceptual"] == pytest.approx(expected.item(), rel=1e-3)
    norms = sum(p.norm() for block in list(net.res)[:7] for p in block.parameters()).item()
    assert pair["norms"] == pytest.approx(0.01 * norms, rel=1e-5)
    assert pair.keys() == {"step", "seconds", "total", "perceptual", "norms"}

    batch = task.batch([2, 3])
    chosen = batch["chosen"]
    with torch.no_grad():
        face, mate = (torch.lerp(task.center, net.generator.style(z), 0.7) for z in batch["z"].unbind(1))
        codes = torch.stack([*[face] * 7, mate], 1)
        style = styles.extrinsic[chosen] + 0.3 * task.deviation * batch["jitter"]
        made = net(codes, style, space="w", extrinsic_space="w")
        plain = net.generator(codes, space="w")
        seen = FeatureExtractor("vgg19", LAYERS, device="cpu", precision="float32")
        found, target = seen((made + 1) / 2), seen(styles.portraits[chosen])
        cosine = Faces().embed((made.clamp(-1, 1) + 1) / 2, 0) * Faces().embed(
            (plain.clamp(-1, 1) + 1) / 2, 0
        )
        expected = {
            "contextual": 0.25 * contextual_loss(found["relu3_1"], target["relu3_1"], 0.2),
            "matching": 0.25 * sum(feature_matching(found[k], target[k]) for k in LAYERS[1:]),
            "identity": 1 - cosine.sum(1).mean(),
        }
    for name, value in expected.items():
        assert other[name] == pytest.approx(value.item(), rel=5e-3), name
    parts = ("adversarial", "contextual", "matching", "identity", "norms")
    assert other["total"] == pytest.approx(sum(other[name] for name in parts), rel=1e-5)
    assert all(alignment.shape == (1, 2, 3) for _, alignment in faces.asked)
    assert all(images.min() >= 0 and images.max() <= 1 for images, _ in faces.asked)


# ------------------------------------------------------------------------------------------ discriminators


@pytest.mark.parametrize("kind", ["features", "stylegan2"])
def test_both_discriminators_learn_to_tell_portraits_from_drawn_pictures(kind):
    settings = STYLE.changed(
        discriminator=kind, discriminator_channels=(8, 8, 8, 8), pairs_every=0, learning_rate=1e-30,
        discriminator_rate=5e-3, r1_weight=0.1, r1_every=4, contextual_weight=0.0,
    )  # fmt: skip
    task = make_task(settings)
    rows = [row["discriminator"] for row in losses_of(task, 21)]
    quiet = [value for number, value in enumerate(rows) if number % 4]  # without the penalty
    assert sum(quiet[-5:]) < 0.85 * sum(quiet[:5])


def test_stylegan2s_way_has_its_two_regularizers():
    settings = STYLE.changed(
        discriminator="stylegan2", discriminator_channels=(8, 8, 8, 8), path_weight=2.0, path_every=4,
        pairs_every=2, r1_every=2, phases=((6, 0.0, 0.0),),
    )  # fmt: skip
    net = make_net()
    task = make_task(settings, net=net)
    rows = losses_of(task, 5)
    assert ["path" in row for row in rows] == [True, False, False, False, True]
    assert task.path.path_length > 0
    assert "style.1.weight" in extrinsic_weights(run(task, 1))
    # Once each step of the discriminator is penalized, once none is.
    with_it, without = (
        losses_of(make_task(settings.changed(r1_weight=weight, r1_every=1), net=make_net()), 2)
        for weight in (10.0, 0.0)
    )
    assert with_it[1]["discriminator"] > without[1]["discriminator"]
    assert with_it[1]["total"] == without[1]["total"]


def test_path_lengths_are_how_far_a_step_of_the_code_moves_the_picture():
    settings = STRUCTURE.changed(path_weight=1.0, path_every=1, adversarial_weight=0.0, learning_rate=1e-30)
    task = make_task(settings)
    row = losses_of(task, 1, batch=1)[0]
    mean = task.path.path_length.item()
    # The mean begins at 0 and takes a hundredth of the length.
    assert row["path"] == pytest.approx((100 * mean - mean) ** 2, rel=1e-4)


def test_augmentation_moves_mirrors_and_colors():
    x = randn(1, 3, 16, 16).clamp(-1, 1)
    for draws, expected in (
        ((0.0, 0, 0, 0, 0, 0), x),
        ((1.0, 0, 0, 0, 0, 0), x.flip(3)),
        ((0.0, 1 / 8, -1 / 8, 0, 0, 0), F.pad(x[..., :-2, 2:], (0, 2, 2, 0))),
        ((0.0, 0, 0, 0.2, 0, 0), x + 0.2),
        ((0.0, 0, 0, 0, -1.0, 0), x.mean(1, keepdim=True).expand_as(x)),
        ((0.0, 0, 0, 0, 0, -0.5), x.mean() + (x - x.mean()) / 2),
    ):
        torch.testing.assert_close(augment(x, torch.tensor([draws])), expected)


# --------------------------------------------------------------------------------------- the whole of a stage


def test_a_stage_ends_with_a_frozen_network_that_has_the_averages():
    net = make_net()
    options = {"progress": False, "precision": "float32"}
    discriminator, result = fine_tune(net, STRUCTURE, Schedule(steps=2, batch=2, average=0.5), **options)
    assert isinstance(discriminator, FeatureDiscriminator)
    assert not any(p.requires_grad for p in net.parameters())
    found = net.extrinsic_state()
    assert_same(found, extrinsic_weights(result))
    last = result.modules["net"].state_dict()
    assert result.averages["net"].keys() == last.keys()
    assert all(torch.equal(found[key], result.averages["net"][key]) for key in found)
    # The third stage goes on with network and discriminator.
    options |= {"styles": make_styles(net), "discriminator": discriminator}
    again, result = fine_tune(net, STYLE, Schedule(steps=2, batch=2), **options)
    assert again is discriminator
    assert result.step == 2


def test_the_transform_of_the_released_average_keeps_its_first_weights():
    found = {}
    for kept in (True, False):
        net = make_net()
        settings, schedule = STRUCTURE.changed(average_transform=kept), Schedule(2, batch=2, average=0.5)
        fine_tune(net, settings, schedule, progress=False, precision="float32")
        found[kept] = net.extrinsic_state()
    first = make_net().extrinsic_state()
    for key in first:
        same = torch.equal(found[True][key], found[False][key])
        assert same == (not key.startswith("style."))
        if key.startswith("style."):
            assert torch.equal(found[False][key], first[key])
            assert not torch.equal(found[True][key], first[key])


def test_another_style_set_is_another_training(tmp_path):
    net = make_net()
    run(make_task(STYLE, net=net), 1, tmp_path)
    with refused(SettingError, match="styles"):
        run(make_task(STYLE, net=net, styles=make_styles(net, 2)), 1, tmp_path)
    with refused(SettingError, match="jitter"):
        run(make_task(STYLE.changed(jitter=0.2), net=net), 1, tmp_path)


# ------------------------------------------------------------------------------------ in two processes


PUBLISHED = STYLE.changed(
    discriminator="stylegan2", discriminator_channels=(8, 8, 8, 8), path_weight=2.0, path_every=2, r1_every=1
)


def two_processes(path):
    """What each of them does, and how it went."""
    assets.load_tensors = lambda name: make_weights(name)
    found = {}
    for name, settings in {"style": STYLE, "published": PUBLISHED}.items():
        task = make_task(settings, identity=Faces())
        found[name] = learned(task, run(task, 2, batch=4))
    return found


def test_two_processes_learn_the_same(tmp_path):
    first, second = in_two_processes("test_finetuning", tmp_path)
    for name in first:
        assert_same(second[name]["weights"], first[name]["weights"])
    assert "path" in first["published"]["history"][0]
