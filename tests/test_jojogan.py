"""JoJoGAN: pairs of mixed codes, a generator that learns from them, kept, loaded, refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from conftest import rand, randn, refused
from safetensors import safe_open
from torch import Tensor

from nstlib.errors import ImageError, NstError, SettingError
from nstlib.methods.inversion import invert
from nstlib.methods.jojogan import (
    AS_RELEASED,
    SMALL,
    JoJoGAN,
    PairsTask,
    Settings,
)
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.mobilestylegan import FacePrior
from nstlib.nets.stylegan2 import Discriminator, Generator
from nstlib.pictures.color import luminance_only
from nstlib.training import Schedule, train

pytestmark = pytest.mark.usefixtures("random_networks")
QUICK = Settings(learning_rate=5e-3)
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


@pytest.fixture(scope="module")
def discriminator() -> Discriminator:
    torch.manual_seed(2)
    return Discriminator(32, (8, 8, 8, 8))


def read(pictures: Tensor) -> Tensor:
    """Stands in for an encoder: codes (N, 8, 512) that depend on each picture alone."""
    small = F.adaptive_avg_pool2d(pictures, (4, 4)).flatten(1)
    return (small @ randn(48, 8 * 512, seed=5)).unflatten(1, (8, 512)) / 4


@pytest.fixture
def method(generator, discriminator):
    """``method(**settings)``: not yet fitted."""
    return lambda **settings: JoJoGAN(
        QUICK.changed(**settings), generator=generator, encode=read, features=discriminator, **CPU
    )


@pytest.fixture
def task(generator, discriminator):
    def make(settings=QUICK, styles=1, identity=None):
        codes = read(portraits(styles))
        net, source = copy.deepcopy(generator), copy.deepcopy(generator)
        targets = 2 * portraits(styles) - 1
        return PairsTask(net, source, targets, codes, discriminator.features, settings, identity)

    return make


# ------------------------------------------------------------------------------------- what is mixed


@pytest.mark.parametrize(
    ("settings", "layers", "expected"),
    [
        (AS_RELEASED, 18, range(7, 18)),
        (AS_RELEASED, 12, (7, 8, 9, 10, 11)),
        (AS_RELEASED.changed(keep_colors=True), 18, (9, 11, 15, 16, 17)),
        (AS_RELEASED.changed(keep_colors=True), 12, (7, 8, 9, 10)),
        (AS_RELEASED.changed(mixed=(2, 5)), 12, (2, 5)),
        (AS_RELEASED.changed(mixed=(2, 5), keep_colors=True), 12, (2, 5)),
    ],
)
def test_which_codes_are_mixed(settings, layers, expected):
    mask = settings.mask(layers)
    assert mask.shape == (layers, 1)
    assert mask.flatten().tolist() == [float(code in expected) for code in range(layers)]
    assert torch.equal(settings.changed(mixing=0.25).mask(layers), mask / 4)


def test_mixed_codes_are_random_where_the_mask_says_so_and_the_styles_elsewhere(task, generator):
    learning = task(QUICK.changed(mixed=(3, 7)), styles=2)
    which = torch.tensor([1, 0, 1])
    made = learning.mixed(which, torch.Generator().manual_seed(4))
    w = generator.style(randn(3, 512, seed=4))
    for code in range(8):
        torch.testing.assert_close(made[:, code], w if code in (3, 7) else learning.codes[which][:, code])
    half = task(QUICK.changed(mixed=(3, 7), mixing=0.5), styles=2)
    other = half.mixed(which, torch.Generator().manual_seed(4))
    torch.testing.assert_close(other[:, 3], (w + learning.codes[which][:, 3]) / 2)
    mean = task(QUICK.changed(mixed=(3,), truncation=0.0)).mixed(torch.tensor([0, 0]), torch.Generator())
    torch.testing.assert_close(mean[0, 3], mean[1, 3])
    torch.testing.assert_close(mean[:1, 3], generator.mean_w(4096, torch.Generator().manual_seed(0)))


# ------------------------------------------------------------------------------------------- learning


def test_the_difference_is_the_mean_over_the_layers(task, discriminator):
    made, which = 2 * portraits(2, seed=3) - 1, torch.tensor([1, 0])
    learning = task(styles=2)
    wanted = discriminator.features(2 * portraits(2)[which] - 1)
    pairs = list(zip(discriminator.features(made), wanted, strict=True))
    assert len(pairs) == 2
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
    settings = QUICK.changed(compare="vgg", vgg_layers=("relu1_2",), learning_rate=1e-2)
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
    assert all(torch.equal(t, before[key]) for key, t in source.state_dict().items())
    assert all(torch.equal(t, before[key]) for key, t in method.source.state_dict().items())
    assert not any(p.requires_grad for p in source.parameters())


def test_everything_learns_but_the_mapping_network_and_the_discriminator(method, discriminator):
    judging = {key: t.clone() for key, t in discriminator.state_dict().items()}
    learned = method()
    learned.fit(None, portraits(), schedule=Schedule(steps=2, batch=1), progress=False)
    before = dict(learned.source.named_parameters())
    after = dict(learned.net.named_parameters())
    same = {key for key, t in after.items() if torch.equal(t, before[key])}
    assert same == {key for key in before if key.startswith("style.")}
    assert all(torch.equal(t, judging[key]) for key, t in discriminator.state_dict().items())
    assert not learned.net.training
    assert learned.about["steps"] == 2


def test_the_identity_is_that_of_the_face_before(task, generator):
    class Likeness:
        """Two numbers of a picture stand in for a face."""

        asked: list[Tensor] = []  # noqa: RUF012

        def embed(self, images, alignment):
            self.asked.append(images.detach())
            return F.normalize(images.mean((2, 3))[:, :2])

    plain = task()
    learning = task(QUICK.changed(identity_weight=2.0, noise="fixed"), identity=Likeness())
    options = {"progress": False, "device": "cpu", "precision": "float32"}
    row = train(learning, Schedule(steps=3, batch=1), **options).history[-1]
    assert row["total"] == pytest.approx(row["features"] + row["identity"], rel=1e-5)
    assert row["identity"] > 0
    made, before = Likeness.asked[:2]  # nothing has been learned in the first step
    torch.testing.assert_close(made, before)
    assert "identity" not in train(plain, Schedule(steps=1, batch=1), **options).history[0]


def test_a_training_that_was_interrupted_goes_on_to_the_same_end(method, tmp_path, one_thread):
    decay, styles, schedule = 0.1, portraits(2), Schedule(steps=6, batch=1, average=0.5)
    whole = method(decay=decay)
    whole.fit(None, styles, schedule=schedule, progress=False)
    first = method(decay=decay)
    first.fit(None, styles, schedule=schedule, folder=tmp_path, progress=False, callback=lambda p: p.step < 3)
    again = method(decay=decay)
    result = again.fit(None, styles, schedule=schedule, folder=tmp_path, progress=False)
    assert first.about["steps"] == 3
    assert result.step == 6
    state = whole.net.state_dict()
    assert all(torch.equal(t, state[key]) for key, t in again.net.state_dict().items())
    assert any(not torch.equal(t, state[key]) for key, t in first.net.state_dict().items())
    with pytest.raises(SettingError, match="holds a training with other settings"):
        method(decay=decay, mixing=0.5).fit(None, styles, schedule=schedule, folder=tmp_path)
    with pytest.raises(SettingError, match="holds a training with other settings"):
        method(decay=decay).fit(None, portraits(2, seed=9), schedule=schedule, folder=tmp_path)


# ------------------------------------------------------------------------------------------- painting


@pytest.fixture(scope="module")
def learned(generator, discriminator) -> JoJoGAN:
    method = JoJoGAN(QUICK, generator=generator, encode=read, features=discriminator, **CPU)
    method.fit(None, portraits(), schedule=STEPS, progress=False)
    return method


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


def test_codes_are_searched_for_where_that_is_wanted(method, generator):
    pictures = portraits(2, seed=11)
    found = invert(pictures, generator, start=read(pictures), steps=2, progress=False).codes
    torch.testing.assert_close(method(search=2).encode(pictures), found)
    assert (found - read(pictures)).abs().max() > 0.01


def test_a_painted_face_may_have_the_fine_codes_of_the_style(learned, monkeypatch):
    content, codes = portraits(2, seed=11), read(portraits(2, seed=11))
    for share in (1.0, 0.5):
        monkeypatch.setattr(learned, "settings", learned.settings.changed(style_codes=share))
        wanted = codes.clone()
        wanted[:, 7] = (1 - share) * codes[:, 7] + share * read(portraits())[:, 7]
        torch.testing.assert_close(learned.stylize(content), learned.draw(wanted))
        half = learned.stylize(content, strength=0.0)
        torch.testing.assert_close(half, learned.draw(codes, 0.0))


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
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["nstlib"])
        keys = set(file.keys())
        assert {file.get_tensor(key).dtype for key in keys} == {torch.float16}
    assert keys == {key for key in generator.state_dict() if not key.startswith("style.")} | {"style_codes"}
    assert about["method"] == "jojogan"
    assert about["name"] == "stripes"
    assert about["settings"]["learning_rate"] == 5e-3
    again = JoJoGAN.load(path, generator=generator, encode=read, **CPU)
    content = portraits(2, seed=11)
    torch.testing.assert_close(again.stylize(content), learned.stylize(content), rtol=0, atol=0.01)
    assert again.about["steps"] == 12
    with refused(SettingError, match="no style of this generator"):
        JoJoGAN.load(path, generator=prior, encode=read, **CPU)


def test_vgg_stands_in_for_a_discriminator_and_may_be_asked_for(generator, discriminator):
    short = {"vgg_layers": ("relu1_2",), "search": 0}
    options = {"generator": generator, "encode": read, **CPU}
    assert JoJoGAN(**options).settings == SMALL
    assert JoJoGAN(features=discriminator, **options).settings == AS_RELEASED
    schedule = Schedule(steps=1, batch=1)
    losses = [
        JoJoGAN(SMALL.changed(**short, **changed), features=features, **options)
        .fit(None, portraits(), schedule=schedule, progress=False).losses["total"]
        for features, changed in ((None, {}), (discriminator, {}), (discriminator, {"compare": "auto"}))
    ]  # fmt: skip
    assert losses[0] == losses[1] != losses[2]


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("work", "error", "said"),
    [
        (lambda m: m().fit(None, [], progress=False), SettingError, "list of styles is empty"),
        (lambda m: m().fit(None, rand(1, 3, 32, 40), progress=False), ImageError, "40×32.*align_portrait"),
        (lambda m: m().stylize(portraits()), SettingError, "No style has been learned yet"),
        (lambda m: m().save("nowhere.safetensors"), SettingError, "nothing to save"),
        (lambda m: m(mixed=(8,)).fit(None, portraits()), SettingError, r"of 8 codes cannot mix \(8,\)"),
        (lambda m: m(keep_colors=True).fit(None, portraits()), SettingError, "those that keep its colors"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(method, work, error, said):
    with refused(error, match=said):
        work(method)


def test_wrong_contents_strengths_codes_and_discriminators_are_refused(learned, generator):
    options = {"generator": generator, **CPU}
    tries = [
        (lambda: learned.stylize(rand(1, 3, 32, 24)), "24×32 pixels: cut the face out with align_portrait"),
        (lambda: learned.stylize(2 * rand(1, 3, 32, 32)), r"values in \[0, 1\]"),
        (lambda: learned.stylize(portraits(), strength=1.5), "strength is 1.5"),
        (lambda: learned.stylize(portraits(), masks=[rand(1, 1, 32, 32)]), "leave masks out"),
        (lambda: learned.draw(rand(1, 10, 512)), r"not \(1, 10, 512\)"),
        (lambda: JoJoGAN(features=Discriminator(64, (8,) * 5), **options), "takes 64 pixels"),
    ]
    for work, said in tries:
        with refused(NstError, match=said):
            work()
