"""Paper E's method: its losses against plain formulas, training, and what it leaves alone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from conftest import rand, randn, refused

from nstlib.errors import ImageError, SettingError
from nstlib.faces import parse
from nstlib.methods.u2_local import Portraits, Settings, U2Local, local_style_loss
from nstlib.nets.u2_local import concatenated
from nstlib.pictures.color import match_histogram
from nstlib.training import Schedule

TINY = {"size": 64, "width": 2, "critic_width": 2, "learning_rate": 1e-3}
CPU = {"device": "cpu", "precision": "float32"}


def stripes(image, softness=0.0, **_):
    """Regions of any picture: hair above, then eyes, the face below; brows, nose and lips are not there."""
    masks = {name: torch.zeros_like(image[:, :1]) for name in parse.REGIONS}
    height = image.shape[2]
    for name, (top, bottom) in {"hair": (0, 0.25), "eye": (0.25, 0.5), "face": (0.5, 0.75)}.items():
        masks[name][:, :, round(height * top) : round(height * bottom)] = 1
    return masks


@pytest.fixture
def striped(monkeypatch, random_networks):
    """No parser: the regions are stripes. VGG has random weights."""
    monkeypatch.setattr(parse, "FaceParser", lambda *_: None)
    monkeypatch.setattr(parse, "region_masks", stripes)
    monkeypatch.setattr(parse, "portrait_masks", stripes)


# ------------------------------------------------------------------------------------------------- the losses


def test_the_local_style_loss_is_its_formula():
    layers = [(randn(2, 3, 4, 6), randn(2, 3, 5, 5, seed=1)), (randn(2, 4, 2, 3, seed=2), randn(2, 4, 2, 2))]
    masks, theirs = rand(2, 3, 4, 6), rand(2, 3, 5, 5, seed=4)
    masks[0, 1] = theirs[1, 2] = 0  # a region that one of both lacks
    of_each = []
    for n in range(2):
        found = []
        for here, there in layers:
            for m in range(3):
                grams = []
                for features, all_masks in ((here, masks), (there, theirs)):
                    size = tuple(features.shape[2:])
                    mask = torch.nn.functional.adaptive_avg_pool2d(all_masks, size)[n, m]
                    part = (features[n] * mask).flatten(1)
                    grams.append(part @ part.T / mask.square().sum().clamp_min(1e-6))
                if bool(masks[n, m].any() and theirs[n, m].any()):
                    sizes = [gram.square().sum() for gram in grams]
                    found.append(2 * (grams[0] - grams[1]).square().sum() / sum(sizes))
        of_each.append(torch.stack(found).mean())
    made = local_style_loss([a for a, _ in layers], [b for _, b in layers], masks, theirs)
    torch.testing.assert_close(made, torch.stack(of_each).mean())


def test_printed_and_mended_forms_are_their_formulas(striped):
    photos, artworks, made, back = (rand(2, 3, 64, 64, seed=n) for n in range(4))
    scores = randn(5)
    found = {}
    for form in ("printed", "mended"):
        method = U2Local(Settings(form=form, **TINY), **CPU)
        task = method.task(rand(2, 3, 80, 80, seed=0), rand(2, 3, 80, 80, seed=9), Schedule(steps=1))
        found[form] = task
        shown = task._shown(photos, artworks, made, back)
        for name, (real, fake) in shown.items():
            assert task.modules[name](real).shape == task.modules[name](fake).shape
    printed, mended = found["printed"], found["mended"]
    norms = (photos - made).flatten(1).norm(dim=1), (artworks - back).flatten(1).norm(dim=1)
    torch.testing.assert_close(
        printed.cycle_loss((photos, artworks), (made, back)), norms[0].mean() + norms[1].mean()
    )
    differences = (photos - made).abs().mean() + (artworks - back).abs().mean()
    torch.testing.assert_close(mended.cycle_loss((photos, artworks), (made, back)), differences)
    probability = torch.sigmoid(scores)
    torch.testing.assert_close(printed._fool(scores), (1 - probability).log().mean())
    torch.testing.assert_close(mended._fool(scores), -probability.log().mean())
    # (12) as printed compares the photograph with its stylized picture, through the content encoder.
    real, fake = printed._shown(photos, artworks, made, back)["photo_discriminator"]
    encoder = printed.modules["generator"].content_encoder
    assert torch.equal(real, concatenated(encoder(photos)))
    assert torch.equal(fake, concatenated(encoder(made)))
    real, fake = mended._shown(photos, artworks, made, back)["photo_discriminator"]
    assert torch.equal(real, 2 * photos - 1)
    assert torch.equal(fake, 2 * back - 1)


# --------------------------------------------------------------------------------------------------- training


def test_masks_go_with_the_crops(monkeypatch):
    def by_color(image, **_):
        bright = (image[:, :1] > 0.5).float()
        return {n: bright if n == "eye" else torch.zeros_like(bright) for n in parse.REGIONS}

    monkeypatch.setattr(parse, "portrait_masks", by_color)
    source = Portraits(rand(3, 3, 72, 72).round(), Settings(size=64), seed=1, parser=object())
    crops = source(range(6))
    assert crops.shape == (6, 10, 64, 64)
    eye = parse.REGIONS.index("eye")
    assert torch.equal(crops[:, 3 + eye], (crops[:, 0] > 0.5).float())
    assert torch.equal(crops[:, 3:].sum(1), torch.ones(6, 64, 64))
    again = Portraits(source.pictures._pictures / 255, Settings(size=64), 1, object())
    assert torch.equal(crops[2:5], again(range(2, 5)))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"form": "printed", "checkpointing": True},
        {"encoders": "plain", "fusion": "concat", "local": False},
    ],
    ids=["mended", "printed", "ablated"],
)
def test_what_was_learned_is_kept_and_paints(striped, tmp_path, more):
    whole = U2Local(Settings(**TINY, decay=0.1, cycle_every=2, **more), **CPU)
    schedule, artworks = Schedule(steps=4, batch=2, average=0.5), rand(4, 3, 80, 80, seed=9)
    result = whole.fit(rand(3, 3, 80, 80, seed=0), artworks, schedule=schedule, progress=False)
    assert [row["cycle"] > 0 for row in result.history] == [True, False, True, False]

    loaded = U2Local.load(whole.save(tmp_path / "one.safetensors"), **CPU)
    photo = rand(1, 3, 50, 70, seed=5)
    made = loaded.stylize(photo)
    assert made.shape == photo.shape
    assert (made - whole.stylize(photo, whole.style)).abs().max() < 0.02  # float16
    with refused(SettingError, match="no photographs to learn on"):
        whole.fit(None, artworks, schedule=schedule)


def test_one_picture_is_learned_in_a_few_steps(striped):
    method = U2Local(Settings(**TINY | {"learning_rate": 5e-3}, local_weight=1), **CPU)
    smooth = 0.4 + rand(1, 3, 80, 80, seed=0) / 50
    result = method.fit(
        smooth, rand(1, 3, 80, 80, seed=9), schedule=Schedule(steps=12, batch=1), progress=False
    )
    first, last = ([row["local"] for row in part] for part in (result.history[:3], result.history[-3:]))
    assert np.mean(last) < 0.9 * np.mean(first)


# --------------------------------------------------------------------------------------------------- pictures


@pytest.fixture
def method(striped):
    made = U2Local(Settings(**TINY), **CPU)
    torch.manual_seed(0)
    for decoder in (made.net.style_decoder, made.net.content_decoder):
        torch.nn.init.normal_(decoder.last.weight)
    return made


def test_outside_the_regions_the_histogram_is_matched_exactly(method):
    photos, artwork = rand(2, 3, 60, 44), rand(1, 3, 52, 64, seed=1) ** 2
    made = method.stylize(photos, artwork, regions=("eye", "face"))
    matched = torch.cat([match_histogram(one, artwork) for one in photos.split(1)])
    assert torch.equal(made[:, :, :15], matched[:, :, :15])
    assert torch.equal(made[:, :, 45:], matched[:, :, 45:])
    inside = slice(15, 45)
    assert (made - matched)[:, :, inside].abs().mean() > 0.05
    torch.testing.assert_close(made[:, :, inside], method.stylize(photos, artwork)[:, :, inside])
    area = torch.zeros(1, 1, 60, 44)
    area[..., :20] = 0.5
    own = method.stylize(photos, artwork, masks=[area])
    assert torch.equal(own[..., 20:], matched[..., 20:])
    half = method.stylize(photos, artwork, regions=("eye",), strength=0.5)
    torch.testing.assert_close(half[:, :, :15], (photos + matched)[:, :, :15] / 2)


def test_masks_of_ones_own_stand_in_for_the_parser(method, monkeypatch):
    monkeypatch.setattr(parse, "region_masks", None)
    photo, artwork = rand(1, 3, 60, 44), rand(1, 3, 52, 64, seed=1)
    mask, its = (stripes(one)["hair"] for one in (photo, artwork))
    made = method.stylize(photo, artwork, masks=[mask], regions=("hair",), style_masks=(its,))
    assert torch.equal(made[:, :, 15:], match_histogram(photo, artwork)[:, :, 15:])
    with refused(SettingError, match="2 regions need as many masks, not 1"):
        method.stylize(photo, artwork, masks=[mask], regions=("hair", "eye"), style_masks=(its, its))


def test_a_region_that_is_not_found_is_named_and_left_out(method, monkeypatch):
    photo, artwork = rand(1, 3, 60, 44), rand(1, 3, 52, 64, seed=1)
    with pytest.warns(UserWarning, match=r"^There is no lip to be seen in the photograph: it is left out.$"):
        made = method.stylize(photo, artwork, regions=("hair", "lip"))
    assert torch.equal(made, method.stylize(photo, artwork, regions=("hair",)))

    def no_face(image, **_):
        raise ImageError("No face was found.")

    monkeypatch.setattr(parse, "region_masks", no_face)  # the artwork's are looked for in its frame
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert method.stylize(photo, artwork).shape == photo.shape
    with refused(ImageError, match="No face was found"):
        method.stylize(photo, artwork, regions=("hair",))
    with refused(SettingError, match="no region 'ear'.*: choose one of eyebrow"):
        method.stylize(photo, artwork, regions=("ear",))
    with refused(SettingError, match="There is no style: give an artwork"):
        method.stylize(photo)
