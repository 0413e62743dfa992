"""CycleGAN: the published networks' numbers, the pool, the losses; trained tiny, kept, painted."""

from __future__ import annotations

import math

import parity
import pytest
import torch
from conftest import rand, randn, refused, waves

from nstlib import assets, nets
from nstlib.errors import SettingError
from nstlib.methods.cyclegan import CycleGAN, CycleTask, Settings, discriminator_loss
from nstlib.nets.cyclegan import PatchDiscriminator, ResnetGenerator, generator_from_official
from nstlib.training import ReplayPool, Schedule

SMALL = Settings(size=32, width=4, blocks=1, pool=2)
OPTIONS = {"device": "cpu", "precision": "float32"}


def loud(net):
    """Weights for which a picture comes out, and not one gray."""
    for number, one in enumerate(net.parameters()):
        one.data = randn(*one.shape, seed=number) * (math.sqrt(2 / one[0].numel()) if one.ndim > 1 else 0.1)
    return net


def test_the_output_is_that_recorded_also_from_old_files_in_any_order():
    """Of a small network, held to the published description one operation after the other."""
    tensors = loud(ResnetGenerator(4, 2)).state_dict()
    old = {f"module.{key}": tensors[key] for key in sorted(tensors)}
    old |= {"module.model.2.running_mean": torch.ones(4), "module.model.2.running_var": torch.ones(4)}
    made = generator_from_official(old).double()(waves(20, 28).double())
    assert made.shape == (1, 3, 20, 28)
    recorded = [[0.71852, 0.56712, 0.85607], [-0.09117, 0.86223, 0.91121], [0.74546, 0.41174, -0.40868]]
    found = [made[0, :, y, x].tolist() for y, x in ((0, 0), (9, 20), (19, 27))]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(recorded), rtol=0, atol=2e-5)


@parity.needed
def test_the_output_is_that_of_the_published_network():
    recorded = parity.recorded("cyclegan_resnet9")
    net = nets.from_official(
        "cyclegan_resnet9", parity.weights(parity.layout("cyclegan_resnet9_keys"), "fanin")
    )
    # In float64: processors of other kinds round nine blocks of float32 otherwise, by more than that.
    parity.assert_equal(net.double()(recorded["x"].double()).float(), recorded["y"], 1e-5)


def test_a_score_sees_seventy_pixels():
    net = loud(PatchDiscriminator(4)).double()
    for norm in [one for one in net.model if isinstance(one, torch.nn.InstanceNorm2d)]:
        norm.forward = lambda x: x  # it looks at the whole picture
    x = rand(1, 3, 128, 128).double().requires_grad_()
    scores = net(x)
    assert scores.shape == (1, 1, 14, 14)
    (gradient,) = torch.autograd.grad(scores[0, 0, 7, 7], x)
    touched = gradient.abs().sum((0, 1)) > 0
    assert (int(touched.any(1).sum()), int(touched.any(0).sum())) == (70, 70)


def test_the_pool_gives_half_of_the_pictures_from_earlier_and_keeps_the_new_ones():
    pool, generator = ReplayPool(3), torch.Generator().manual_seed(0)
    kept, old = [], 0
    for number in range(200):
        new = torch.full((1, 1, 2, 2), float(number))
        (given,) = pool.exchange(new, generator)[:, 0, 0, 0].tolist()
        if len(kept) < 3:
            assert given == number
            kept.append(given)
        elif given != number:
            kept[kept.index(given)] = float(number)
            old += 1
        assert pool.pictures[:, 0, 0, 0].tolist() == kept
    assert 75 < old < 125
    again = ReplayPool(3)
    again.load_state_dict(pool.state_dict())
    assert torch.equal(again.pictures, pool.pictures)


def test_the_losses_are_the_papers():
    x, y, found_x, found_y, same_y, same_x = (2 * rand(1, 3, 32, 32, seed=n) - 1 for n in range(6))
    scores = {"portrait": rand(1, 1, 2, 2), "face": rand(1, 1, 2, 2, seed=1)}
    task = CycleTask.__new__(CycleTask)
    task.settings = Settings()
    losses = task.losses(scores, (found_x, x), (found_y, y), (same_y, y), (same_x, x))
    assert losses["adversarial"] == pytest.approx(
        sum(((1 - one) ** 2).mean().item() for one in scores.values())
    )
    cycle = (found_x - x).abs().mean() + (found_y - y).abs().mean()
    identity = (same_y - y).abs().mean() + (same_x - x).abs().mean()
    assert losses["cycle"] == pytest.approx(10 * cycle.item())
    assert losses["identity"] == pytest.approx(5 * identity.item())
    loss = discriminator_loss(lambda picture: picture.mean((1, 2, 3)), found_x, x)
    assert loss == pytest.approx((found_x.mean().item() ** 2 + (x.mean().item() - 1) ** 2) / 2)
    assert [task.rate(part) for part in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]


def test_what_was_learned_paints_any_size_and_is_kept_in_the_published_layout(tmp_path):
    method = CycleGAN(SMALL, **OPTIONS)
    options = {"schedule": Schedule(steps=4, batch=1), "progress": False}
    given = rand(3, 3, 40, 40), rand(4, 3, 36, 36, seed=1)
    assert set(method.fit(*given, **options).losses) == {
        "total", "adversarial", "cycle", "identity", "discriminator",
    }  # fmt: skip
    content = rand(2, 3, 37, 50, seed=3)
    made = method.stylize(content)
    assert made.shape == content.shape
    assert 0 <= made.min() < made.max() <= 1
    torch.testing.assert_close(method.stylize(content, strength=0.25), content + 0.25 * (made - content))
    path = method.save(tmp_path / "w.safetensors")
    again = CycleGAN.load(path, **OPTIONS)
    assert again.generator.state_dict().keys() == ResnetGenerator(4, 1).state_dict().keys()
    torch.testing.assert_close(again.stylize(content), made, rtol=0, atol=0.01)
    assert again.fit(*given, **options).step == 4  # another style's weights are a beginning


def test_published_networks_paint(tmp_path, monkeypatch):
    path = tmp_path / "theirs.pth"
    torch.save(loud(ResnetGenerator(4, 2)).state_dict(), path)
    monkeypatch.setattr(assets, "fetch", lambda name: {"cyclegan_apple2orange": path}[name])
    content = rand(1, 3, 61, 40)
    made, named = (CycleGAN.load(style, **OPTIONS).stylize(content) for style in (path, "apple2orange"))
    assert made.shape == content.shape
    assert torch.equal(named, made)


def test_what_has_learned_nothing_says_so():
    with refused(SettingError, match="No style has been learned yet"):
        CycleGAN(**OPTIONS).stylize(rand(1, 3, 20, 20))
