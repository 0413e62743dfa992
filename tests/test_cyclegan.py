"""CycleGAN: the published networks' numbers, the pool, the losses; trained tiny, kept, painted."""

from __future__ import annotations

import math

import parity
import pytest
import torch
import torch.nn.functional as F
from conftest import one_sentence, rand, randn, refused

from nstlib import assets, nets
from nstlib.errors import SettingError
from nstlib.methods.cyclegan import CycleGAN, CycleTask, Settings, discriminator_loss
from nstlib.nets.cyclegan import PatchDiscriminator, ResnetGenerator, generator_from_official
from nstlib.pictures.files import save_image
from nstlib.training import ReplayPool, Schedule

SMALL = Settings(size=32, width=4, blocks=1, pool=2)
OPTIONS = {"device": "cpu", "precision": "float32"}


def loud(net):
    """Weights for which a picture comes out, and not one gray."""
    for number, one in enumerate(net.parameters()):
        one.data = randn(*one.shape, seed=number) * (math.sqrt(2 / one[0].numel()) if one.ndim > 1 else 0.1)
    return net


def by_hand(tensors, x, blocks):
    """The published generator, from its description, one operation of torch after the other."""

    def layer(x, name, operation=F.conv2d, **more):
        return operation(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], **more)

    def norm(x):
        return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), False, keepdim=True) + 1e-5).sqrt()

    def mirrored(x, pixels):
        return F.pad(x, (pixels,) * 4, mode="reflect")

    x = norm(layer(mirrored(x, 3), "model.1")).relu()
    for name in ("model.4", "model.7"):
        x = norm(layer(x, name, stride=2, padding=1)).relu()
    for block in range(10, 10 + blocks):
        inner = norm(layer(mirrored(x, 1), f"model.{block}.conv_block.1")).relu()
        x = x + norm(layer(mirrored(inner, 1), f"model.{block}.conv_block.5"))
    up = {"operation": F.conv_transpose2d, "stride": 2, "padding": 1, "output_padding": 1}
    for number in (10 + blocks, 13 + blocks):
        x = norm(layer(x, f"model.{number}", **up)).relu()
    return layer(mirrored(x, 3), f"model.{17 + blocks}").tanh()


def test_the_generator_is_the_published_one_also_from_old_files_in_any_order():
    tensors = loud(ResnetGenerator(4, 2)).state_dict()
    old = {f"module.{key}": tensors[key] for key in sorted(tensors)}
    old |= {"module.model.2.running_mean": torch.ones(4), "module.model.2.running_var": torch.ones(4)}
    x = 2 * rand(2, 3, 20, 28) - 1
    made = generator_from_official(old).double()(x.double())
    expected = by_hand({key: one.double() for key, one in tensors.items()}, x.double(), 2)
    assert expected.std() > 0.05
    torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-9)


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


def test_the_commands_train_and_paint_with_ours_and_with_published_networks(
    nst, tmp_path, monkeypatch, picture
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").mkdir()
    save_image(picture(64, 64), tmp_path / "faces" / "0.png")
    torch.save(loud(ResnetGenerator(4, 2)).state_dict(), "theirs.pth")
    monkeypatch.setattr(
        assets, "fetch", lambda name: tmp_path / {"cyclegan_apple2orange": "theirs.pth"}[name]
    )
    run = ("train", "cyclegan", "sketch", "--preset", "smoke", "--pictures", "faces", "--device", "cpu")
    code, out, err = nst(*run, "--quiet")
    assert out.startswith("done: cyclegan_sketch.safetensors, 3 steps"), err
    for style in ("cyclegan_sketch.safetensors", "theirs.pth", "apple2orange"):
        code, out, err = nst("stylize", "faces/0.png", style, "--method", "cyclegan", "--size", "61")
        assert (code, out[:28]) == (0, "done: stylized.png (61×61), "), err
    said = one_sentence(*nst("stylize", "faces/0.png", "vangogh", "--method", "cyclegan"))
    assert "take one of ink, apple2orange, a file of weights, train one" in said


def test_what_has_learned_nothing_says_so():
    with refused(SettingError, match="No style has been learned yet"):
        CycleGAN(**OPTIONS).stylize(rand(1, 3, 20, 20))
    with refused(SettingError, match="list of styles is empty"):
        CycleGAN(SMALL, **OPTIONS).fit(rand(1, 3, 40, 40), [])
