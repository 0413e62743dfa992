"""JoJoGAN: pairs of mixed codes, a generator that learns from them, kept, loaded, refused."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import rand, randn, refused
from torch import Tensor

from nstlib.assets.weights import read_weights
from nstlib.errors import ImageError, SettingError
from nstlib.methods.jojogan import JoJoGAN, PairsTask, Settings
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.mobilestylegan import FacePrior
from nstlib.nets.stylegan2 import Generator
from nstlib.pictures.color import luminance_only
from nstlib.training import Schedule

pytestmark = pytest.mark.usefixtures("random_networks")
QUICK = Settings(learning_rate=5e-3, vgg_layers=("relu1_2", "relu2_2"))
STEPS = Schedule(steps=12, batch=1)
CPU = {"device": "cpu"}


def portraits(count=1, size=32, seed=7):
    return F.interpolate(rand(count, 3, 4, 4, seed=seed), (size, size), mode="bilinear")


@pytest.fixture(scope="module")
def generator() -> Generator:
    """StyleGAN2 for 32 pixels: 8 codes, of which 7 is color."""
    torch.manual_seed(0)
    return Generator(32, (8, 8, 8, 8)).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def prior() -> FacePrior:
    """The face prior's kind, for 64 pixels: 8 codes."""
    torch.manual_seed(1)
    prior = FacePrior((8, 8, 8, 8))
    with torch.no_grad():
        for level in prior.synthesis.levels:  # noise that is not 0, so that it shows if it is lost
            level.conv1.noise.normal_(0, 0.1)
    return prior.requires_grad_(False).eval()


def read(pictures: Tensor) -> Tensor:
    """Stands in for an encoder: codes (N, 8, 512) that depend on each picture alone."""
    small = F.adaptive_avg_pool2d(pictures, (4, 4)).flatten(1)
    return (small @ randn(48, 8 * 512, seed=5)).unflatten(1, (8, 512)) / 4


@pytest.fixture
def method(generator):
    """``method(**settings)``: not yet fitted."""
    return lambda **settings: JoJoGAN(QUICK.changed(**settings), generator=generator, encode=read, **CPU)


def maps(pictures: Tensor) -> list[Tensor]:
    """Stand in for VGG-16's features."""
    return [3 * pictures, F.avg_pool2d(pictures, 2).square()]


@pytest.fixture
def task(generator):
    def make(settings=QUICK, styles=1):
        net, source = copy.deepcopy(generator), copy.deepcopy(generator)
        targets = 2 * portraits(styles) - 1
        return PairsTask(net, source, targets, read(portraits(styles)), maps, settings)

    return make


# ------------------------------------------------------------------------------------- what is mixed


def test_mixed_codes_are_random_behind_the_structure_and_the_styles_in_it(task, generator):
    which, learning = torch.tensor([1, 0, 1]), task(styles=2)
    made = learning.mixed(which, torch.Generator().manual_seed(4))
    torch.testing.assert_close(made[:, :7], learning.codes[which, :7])
    torch.testing.assert_close(made[:, 7], generator.style(randn(3, 512, seed=4)))
    mean = task(QUICK.changed(truncation=0.0)).mixed(torch.tensor([0]), torch.Generator())
    torch.testing.assert_close(mean[:, 7], generator.mean_w(4096, torch.Generator().manual_seed(0)))


# ------------------------------------------------------------------------------------------- learning


def test_the_difference_is_the_mean_over_the_layers(task):
    made, which = 2 * portraits(2, seed=3) - 1, torch.tensor([1, 0])
    learning = task(styles=2)
    pairs = list(zip(maps(made), maps(2 * portraits(2)[which] - 1), strict=True))
    by_hand = sum((a - b).abs().mean() for a, b in pairs) / 2
    assert learning.difference(made, which).item() == pytest.approx(by_hand.item(), rel=1e-4)
    relative = task(QUICK.changed(relative_features=True), styles=2).difference(made, which)
    by_hand = sum((a - b).abs().mean() / b.abs().mean() for a, b in pairs) / 2
    assert relative.item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert learning.difference(2 * portraits(2) - 1, torch.tensor([0, 1])).item() < 1e-6


@pytest.mark.parametrize("kind", ["generator", "prior"])
def test_mixed_codes_come_closer_to_the_style_and_the_source_stays(kind, request):
    source = request.getfixturevalue(kind)
    before = {key: t.clone() for key, t in source.state_dict().items()}
    settings = QUICK.changed(vgg_layers=("relu1_2",), learning_rate=1e-2)
    settings = settings.changed(relative_features=True, relative_rates=True)
    method = JoJoGAN(settings, generator=source, encode=read, **CPU)
    style = portraits()
    result = method.fit(None, style, schedule=Schedule(steps=16, batch=2), progress=False)
    totals = [row["total"] for row in result.history]
    assert len(totals) == 16
    assert sum(totals[-3:]) < 0.93 * sum(totals[:3])
    codes = read(F.interpolate(style, (source.size,) * 2)).repeat(4, 1, 1)
    codes[:, 7] = source.style(randn(4, 512, seed=21))
    wanted = F.interpolate(style, (source.size,) * 2, mode="bilinear", antialias=True)
    seen = FeatureExtractor("vgg16", ["relu1_2"], device="cpu", precision="float32")

    def far(strength):
        made = method.draw(codes, strength)
        return (seen(made)["relu1_2"] - seen(wanted)["relu1_2"]).abs().mean()

    assert far(1.0) < 0.93 * far(0.0)
    for one in (source, method.source):
        assert all(torch.equal(t, before[key]) for key, t in one.state_dict().items())
    assert not any(p.requires_grad for p in source.parameters())
    assert not method.net.training
    same = {key for key, t in method.net.named_parameters() if torch.equal(t, before[key])}
    assert same == {key for key, _ in source.named_parameters() if key.startswith("style.")}


def test_another_style_is_another_training(method, tmp_path):
    options = {"schedule": Schedule(steps=1, batch=1, average=0.5), "folder": tmp_path, "progress": False}
    method().fit(None, portraits(2), **options)
    for changed, styles in ((method(truncation=0.5), portraits(2)), (method(), portraits(2, seed=9))):
        with refused(SettingError, match="holds a training with other settings"):
            changed.fit(None, styles, **options)


# ------------------------------------------------------------------------------------------- painting


@pytest.fixture
def learned(method) -> JoJoGAN:
    made = method()
    made.fit(None, portraits(), schedule=STEPS, progress=False)
    return made


def test_a_portrait_is_drawn_from_its_codes(learned, generator):
    content = portraits(2, seed=11)
    made = learned.stylize(content)
    by_hand = ((learned.net(read(content), space="w") + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(made, by_hand)
    assert made.shape == (2, 3, 32, 32)
    assert torch.equal(learned.stylize(content, portraits()), made)  # one style, whatever is given
    torch.testing.assert_close(learned.draw(read(content)), made)
    large = F.interpolate(content, (64, 64), mode="nearest")
    torch.testing.assert_close(learned.stylize(large), made, atol=0.02, rtol=0)


def test_a_painted_face_may_have_the_fine_codes_of_the_style(learned, monkeypatch):
    content, codes = portraits(2, seed=11), read(portraits(2, seed=11))
    monkeypatch.setattr(learned, "settings", learned.settings.changed(style_codes=0.5))
    wanted = codes.clone()
    wanted[:, 7:] = 0.5 * codes[:, 7:] + 0.5 * learned.style[:, 7:]
    torch.testing.assert_close(learned.stylize(content), learned.draw(wanted))
    torch.testing.assert_close(learned.stylize(content, strength=0.0), learned.draw(codes, 0.0))


def test_strength_leads_from_the_generator_to_the_style(learned, generator):
    content = portraits(1, seed=11)
    before = ((generator(read(content), space="w") + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(learned.stylize(content, strength=0.0), before)
    style = learned.stylize(content)
    half = learned.stylize(content, strength=0.5)
    apart = (style - before).abs().mean()
    assert 0.1 * apart < (half - before).abs().mean() < 0.95 * apart


def test_colors_are_kept_where_that_is_wanted(learned):
    content = portraits(2, seed=11)
    kept, made = learned.stylize(content, keep_colors=True), learned.stylize(content)
    for index in range(2):
        expected = luminance_only(made[index : index + 1], content[index : index + 1])
        torch.testing.assert_close(kept[index : index + 1], expected)
    assert (kept - made).abs().mean() > 0.01


def test_what_was_learned_is_kept_and_loaded(learned, generator, prior, tmp_path):
    path = learned.save(tmp_path / "style.safetensors", name="stripes")
    keys = read_weights(path)[0].keys()
    assert keys == {key for key in generator.state_dict() if not key.startswith("style.")} | {"style_codes"}
    again = JoJoGAN.load(path, generator=generator, encode=read, **CPU)
    content = portraits(2, seed=11)
    torch.testing.assert_close(again.stylize(content), learned.stylize(content), rtol=0, atol=0.01)
    assert (again.about["steps"], again.about["name"]) == (12, "stripes")
    with refused(SettingError, match="not those of a style of this generator"):
        JoJoGAN.load(path, generator=prior, encode=read, **CPU)


def test_what_cannot_be_done_is_said_in_one_sentence(method, learned):
    tries = [
        (lambda: method().fit(None, rand(1, 3, 32, 40), progress=False), ImageError, "40×32.*align_portrait"),
        (lambda: method().stylize(portraits()), SettingError, "No style has been learned yet"),
        (lambda: method().save("nowhere.safetensors"), SettingError, "nothing to save"),
        (lambda: learned.stylize(portraits(), strength=1.5), SettingError, "not 1.5"),
        (lambda: learned.stylize(portraits(), masks=[rand(1, 1, 32, 32)]), SettingError, "leave masks out"),
        (lambda: learned.draw(rand(1, 10, 512)), SettingError, r"not \(1, 10, 512\)"),
    ]
    for work, error, said in tries:
        with refused(error, match=said):
            work()


def test_the_released_loss_compares_by_other_features_than_vggs(generator):
    made = JoJoGAN(generator=generator, encode=read, features=maps, **CPU)
    assert made.settings == Settings()  # as released
    task = made.task(None, portraits(), Schedule(1, 1))
    torch.testing.assert_close(task.targets, maps(2 * portraits() - 1))
