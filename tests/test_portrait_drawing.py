"""Portrait drawing: the style code, edges and losses by plain formulas; trained tiny, resumed, drawn."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import rand, refused
from test_cyclegan import OPTIONS, loud

from nstlib.errors import SettingError
from nstlib.faces import parse
from nstlib.methods import portrait_drawing as module
from nstlib.methods.portrait_drawing import DrawingTask, PortraitDrawing, Settings, edges, outside_white
from nstlib.nets.cyclegan import DrawingGenerator, PatchDiscriminator
from nstlib.training import Pictures, Schedule

SMALL = Settings(size=32, width=4, blocks=1, pool=2)


@pytest.fixture
def ground(random_networks, monkeypatch):
    """Masks at fixed places instead of the parser's; AlexNet of random weights."""

    def masks(portraits, names, parser):
        found = torch.zeros(len(names), len(portraits), 1, *portraits.shape[-2:])
        for number in range(len(names)):
            found[number, :, :, 8 + 4 * number : 12 + 4 * number, 10:16] = 1
        return dict(zip(names, found, strict=True))

    monkeypatch.setattr(module, "FaceParser", lambda device: None)
    monkeypatch.setattr(module, "portrait_masks", masks)


def fit(steps=6, folder=None, callback=None, sets=2):
    method = PortraitDrawing(SMALL, **OPTIONS)
    result = method.fit(
        rand(3, 3, 40, 40), [rand(2, 3, 36, 36, seed=n) for n in range(sets)],
        schedule=Schedule(steps=steps, batch=1), folder=folder, callback=callback, progress=False,
    )  # fmt: skip
    return method, result


def test_every_place_of_the_middle_gets_the_code_and_a_classifier_tells_styles_apart():
    net = loud(DrawingGenerator(4, 1, 2)).eval()
    x, code = 2 * rand(1, 3, 24, 20) - 1, torch.tensor([[0.25, 0.75]])
    features = net.model0(x)
    assert features.shape == (1, 16, 6, 5)
    joined = torch.cat([features, torch.full((1, 1, 6, 5), 0.25), torch.full((1, 1, 6, 5), 0.75)], 1)
    torch.testing.assert_close(net(x, code), net.model(joined))
    assert net(x, code).shape == (1, 1, 24, 20)
    assert (net(x, code) - net(x, code.flip(1))).abs().max() > 1e-3
    judge = loud(PatchDiscriminator(4, inputs=1, classes=3))
    scores, logits = judge(x[:, :1].repeat(2, 1, 2, 2))
    assert (scores.shape, logits.shape) == ((2, 1, 4, 3), (2, 3))
    torch.testing.assert_close(scores, judge.model(x[:, :1].repeat(2, 1, 2, 2)))


def test_edges_masks_and_truncation_are_their_formulas():
    ramp = (torch.arange(8.0) / 20).expand(1, 3, 8, 8)
    torch.testing.assert_close(edges(ramp)[..., 2:6], torch.full((1, 3, 8, 4), math.tanh(4 / 20)))
    assert edges(torch.full((1, 3, 8, 8), 0.5)).max() < 1e-3
    drawing = 2 * rand(1, 1, 4, 4) - 1
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    seen = outside_white(drawing, mask)
    torch.testing.assert_close(seen[:, :1, :2], drawing[:, :, :2])
    assert bool((seen[:, :1, 2:] == 1).all())
    assert torch.equal(seen[:, 1:], mask)
    grays = module.truncated(torch.linspace(-1, 1, 10_001).view(1, 1, 1, -1))
    assert len(grays.unique()) == 64
    assert grays.min() == -1


def test_the_cycles_are_weighted_as_the_training_goes_on():
    task = DrawingTask.__new__(DrawingTask)
    task.settings, task.perceptual = Settings(), lambda a, b: (a - b).abs().mean((1, 2, 3))
    p, back, rough = (2 * rand(2, 3, 16, 16, seed=n) - 1 for n in range(3))
    d, again = (2 * rand(2, 1, 16, 16, seed=n) - 1 for n in (5, 6))
    losses = task.cycles(p, (back, rough), d, again, 0.5)

    def distance(found):
        return (edges((found + 1) / 2) - edges((p + 1) / 2)).abs().mean().item()

    assert losses["relaxed"] == pytest.approx(5 * 0.55 * distance(back))
    assert losses["truncation"] == pytest.approx(5 * 0.45 * distance(rough))
    assert losses["strict"] == pytest.approx(5 * (again - d).abs().mean().item())


def test_a_portraits_masks_need_no_face_to_be_found():
    class Net:
        def labels(self, inputs, size):
            assert inputs.shape == (1, 3, 512, 512)
            nose = torch.full((1, *size), parse.LABELS.index("nose"))
            nose[:, :4] = parse.LABELS.index("lower lip")
            return nose

    parser = parse.FaceParser.__new__(parse.FaceParser)
    parser.device, parser.net = torch.device("cpu"), Net()
    found = parse.portrait_masks(rand(2, 3, 16, 16), ["lip", "nose", "eye"], parser)
    assert list(found) == ["lip", "nose", "eye"]
    assert [one.mean().item() for one in found.values()] == [0.25, 0.75, 0]
    assert found["lip"].shape == (2, 1, 16, 16)


def test_a_fit_goes_on_to_the_same_weights_with_the_pool(ground, one_thread, tmp_path):
    whole, expected = fit()
    assert set(expected.losses) == {
        "total", "adversarial", "local", "style", "relaxed", "truncation", "strict", "discriminator",
    }  # fmt: skip
    _, result = fit(folder=tmp_path / "run", callback=lambda p: p.step < 4)
    assert result.step == 4
    method, result = fit(folder=tmp_path / "run")
    for row, wanted in zip(result.history, expected.history, strict=True):
        assert {**row, "seconds": 0} == {**wanted, "seconds": 0}
    assert all(torch.equal(one, method.state()[key]) for key, one in whole.state().items())


def test_styles_are_named_by_number_or_mixed_and_drawings_are_gray(ground, tmp_path):
    method, _ = fit(1)
    loud(method.generator)
    content = rand(2, 3, 37, 50, seed=3)
    first, second, mixed = (method.stylize(content, style) for style in (None, 1, [0.5, 0.5]))
    assert first.shape == content.shape
    assert torch.equal(first[:, 0], first[:, 2])
    torch.testing.assert_close(first, method.stylize(content, [1.0, 0.0]))
    assert (first - second).abs().mean() > 0
    assert (first - mixed).abs().mean() > 0
    again = PortraitDrawing.load(method.save(tmp_path / "w.safetensors"), **OPTIONS)
    torch.testing.assert_close(again.stylize(content, 1), second, rtol=0, atol=0.02)
    for wrong in (2, -1, [1.0, 0.0, 0.0]):
        with refused(SettingError, match="are 2 styles: name one of 0 to 1"):
            method.stylize(content, wrong)
    with refused(SettingError, match="learns on whole faces"):
        method.fit(Pictures(content, 32), content, progress=False)
    with refused(SettingError, match="Give 2 sets, one for each style, not 1"):
        method.fit(content, content, progress=False)
