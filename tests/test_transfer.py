"""From pictures to picture: sizes, starts, colors, and pictures of every awkward kind."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from nstlib.errors import ImageError, OptimizationError, SettingError
from nstlib.methods.gatys import (
    FIVE_BLOCKS,
    Guide,
    Objective,
    Settings,
    pyramid_sizes,
    stylize,
    transfer,
)
from nstlib.methods.gatys.transfer import iterations_per_size, scaled
from nstlib.nets.features import FeatureExtractor
from nstlib.pictures import color

pytestmark = pytest.mark.usefixtures("one_thread")  # some compare bits

SHALLOW = Settings(
    network="vgg16", content_layers=("relu1_2",), style_layers=("relu1_1", "relu2_1"), iterations=4
)


@pytest.fixture(scope="module")
def net(weights):
    return FeatureExtractor(
        "vgg16", ["relu1_1", "relu1_2", "relu2_1"], precision="float32", device="cpu",
        tensors=weights["vgg16"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def deep(weights):
    return FeatureExtractor(
        "vgg19", [*FIVE_BLOCKS, "relu4_2"], precision="float32", device="cpu", tensors=weights["vgg19"]
    )


@pytest.fixture
def paint(net, picture):
    """``stylize`` on the shallow network, with pictures of 20×24 and 18×15 unless others are given."""

    def run(content=..., style=..., **options):
        content = picture(20, 24, 1) if content is ... else content
        style = picture(18, 15, 2) if style is ... else style
        return stylize(content, style, SHALLOW, extractor=net, progress=False, **options)

    return run


@pytest.fixture
def objectives(monkeypatch):
    """Every objective that a run makes, in order."""
    made = []

    class Watched(Objective):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.given = arguments
            made.append(self)

    monkeypatch.setattr(transfer, "Objective", Watched)
    return made


def left(height, width, columns):
    mask = torch.zeros(1, 1, height, width)
    mask[..., :columns] = 1
    return mask


# ------------------------------------------------------------------------------------------------- sizes


@examples(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 5000), width=st.integers(1, 5000),
    smallest=st.one_of(st.none(), st.integers(16, 5000)),
    octaves=st.sampled_from([0.25, 0.5, 1, 2]),
)  # fmt: skip
def test_sizes_grow_by_their_factor_to_the_size_itself(height, width, smallest, octaves):
    sizes = pyramid_sizes((height, width), smallest, 2**octaves)
    assert sizes[-1] == (height, width)
    if smallest is None or smallest >= max(height, width):
        assert len(sizes) == 1
        return
    sides = [max(size) for size in sizes]
    # The first is at most one step above what was asked for, and never below it.
    assert smallest <= sides[0] + 0.5
    assert sides[0] - 0.5 < smallest * 2**octaves
    for (h, w), (taller, wider), step in zip(sizes, sizes[1:], range(len(sizes) - 1, 0, -1), strict=False):
        assert (h, w) <= (taller, wider)
        assert h == max(1, round(height * 2 ** (-step * octaves)))
        assert w == max(1, round(width * 2 ** (-step * octaves)))


def test_sizes_of_round_numbers():
    assert pyramid_sizes((512, 512), 256) == [(256, 256), (362, 362), (512, 512)]
    assert pyramid_sizes((512, 384), 64, 2) == [(64, 48), (128, 96), (256, 192), (512, 384)]
    assert pyramid_sizes((500, 500), 64, 2) == [(125, 125), (250, 250), (500, 500)]
    assert Settings().size_factor == math.sqrt(2)
    assert (
        pyramid_sizes((64, 48), 64)
        == pyramid_sizes((64, 48), 500)
        == pyramid_sizes((64, 48), None)
        == [(64, 48)]
    )
    assert pyramid_sizes((65, 48), 64) == [(65, 48)]
    assert [max(size) for size in pyramid_sizes((1, 2048), 256)] == [256, 362, 512, 724, 1024, 1448, 2048]
    assert all(min(size) == 1 for size in pyramid_sizes((1, 2048), 256))


def test_scaled_pictures_stay_pictures(picture):
    image = picture(30, 41, 1).round()  # hard edges, which bicubic weights overshoot
    assert scaled(image, (30, 41)) is image
    for shape in ((7, 100), (64, 9), (1, 1), (31, 40)):
        small = scaled(image, shape)
        assert small.shape == (1, 3, *shape)
        assert small.dtype == torch.float32
        assert 0 <= small.min() <= small.max() <= 1
    assert scaled(image, (10, 14)).mean().item() == pytest.approx(image.mean().item(), abs=0.02)
    # Antialiased: a checkerboard of single pixels becomes gray, not another checkerboard.
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
    assert (scaled(board, (24, 24))[..., 3:-3, 3:-3] - 0.5).abs().max() < 0.05


def test_iterations_are_fewer_where_they_cost_more():
    sizes = [(256, 200), (512, 400), (1024, 800), (2048, 1600)]
    assert iterations_per_size(sizes, Settings(iterations=100)) == [100, 50, 25, 100]
    assert iterations_per_size(sizes, Settings(iterations=100, coarse_iterations=10)) == [10, 5, 2, 100]
    assert iterations_per_size(sizes, Settings(iterations=1)) == [1, 1, 1, 1]
    assert iterations_per_size([(2048, 1600)], Settings(iterations=100, coarse_iterations=10)) == [100]


def test_iterations_may_be_named_for_each_size():
    sizes = [(128, 100), (256, 200), (512, 400)]
    settings = Settings(iterations=50, coarse_iterations=[70, 60])
    assert settings.coarse_iterations == (70, 60)
    assert iterations_per_size(sizes, settings) == [70, 60, 50]
    with pytest.raises(SettingError, match=r"2 numbers for .* before the last \(256 px\): give one for each"):
        iterations_per_size(sizes[1:], settings)
    with pytest.raises(SettingError, match=r"2 numbers for the sizes before the last \(none\)"):
        iterations_per_size(sizes[2:], settings)


def test_doubled_sizes_with_a_number_for_each(paint, picture):
    result = paint(picture(80, 64, 1), smallest=20, size_factor=2, coarse_iterations=(3, 2), iterations=1)
    assert [int(row["size"]) for row in result.history] == [20, 20, 20, 40, 40, 80]


def test_each_size_has_its_pictures(paint, picture, objectives):
    content, styles = picture(64, 48, 1), (picture(40, 80, 2), picture(100, 20, 3))
    mask = left(64, 48, 20)
    guide = Guide(styles, mask=mask)
    result = paint(content, [guide], smallest=16, iterations=3, coarse_iterations=2)
    sizes = pyramid_sizes((64, 48), 16)
    assert sizes == [(16, 12), (23, 17), (32, 24), (45, 34), (64, 48)]
    assert [tuple(o.content.shape[-2:]) for o in objectives] == sizes
    assert [row["size"] for row in result.history] == [16, 16, 23, 32, 45, 64, 64, 64]
    assert [row["iteration"] for row in result.history] == list(range(1, 9))
    counted = [row["evaluations"] for row in result.history]
    assert counted == sorted(set(counted)) == list(range(1, 9))
    seconds = [row["seconds"] for row in result.history]
    assert seconds == sorted(seconds)
    for objective, (height, width) in zip(objectives, sizes, strict=True):
        (made,) = objective.given[2]
        factor = height / 64
        # Style pictures keep step with the content, but are never made too small for the network.
        for small, whole in zip(made.styles, styles, strict=True):
            expected = [max(min(32, n), round(n * factor)) for n in whole.shape[-2:]]
            assert list(small.shape[-2:]) == expected
        assert made.mask.shape == (1, 1, height, width)
    last = objectives[-1]
    assert torch.equal(last.content, content)
    assert torch.equal(last.given[2][0].styles[0], styles[0])
    assert result.image.shape == content.shape


def test_a_callback_sees_each_size(paint, picture):
    told = []
    paint(picture(40, 30, 1), smallest=16, iterations=4, callback=told.append)
    steps = [((20, 15), 4), ((28, 21), 3), ((40, 30), 4)]  # fewer in between
    sizes = [size for size, count in steps for _ in range(count)]
    assert [tuple(p.image.shape[-2:]) for p in told] == sizes
    assert [p.iteration for p in told] == list(range(1, len(sizes) + 1))
    assert {p.iterations for p in told} == {len(sizes)}
    assert all(0 <= p.image.min() <= p.image.max() <= 1 for p in told)


def test_a_larger_size_begins_where_the_smaller_ended(paint, picture):
    # From noise: the first loss at full size is far below that of a run that begins there.
    content, style = picture(64, 64, 1), picture(60, 60, 2)
    options = {"init": "noise", "iterations": 15}
    alone = paint(content, style, **options)
    climbed = paint(content, style, smallest=32, **options)
    begun = next(row for row in climbed.history if row["size"] == 64)
    assert begun["total"] < 0.7 * alone.history[0]["total"]


def test_the_smallest_sizes_of_a_panorama_are_left_out(deep, picture, objectives):
    settings = Settings(iterations=1, smallest=32)
    result = stylize(picture(40, 130, 1), picture(40, 40, 2), settings, extractor=deep, progress=False)
    assert pyramid_sizes((40, 130), 32)[0] == (10, 32)  # 16 pixels are what relu5_1 needs
    assert [tuple(o.content.shape[-2:]) for o in objectives] == [(20, 65), (28, 92), (40, 130)]
    assert result.image.shape == (1, 3, 40, 130)


def test_a_size_of_its_own(paint, picture, objectives):
    content = picture(20, 24, 1)
    result = paint(content, [Guide((picture(18, 15, 2),), mask=left(20, 24, 9))], size=(30, 36))
    assert result.image.shape == (1, 3, 30, 36)
    assert objectives[-1].paint.shape == (1, 1, 30, 36)
    # What is not painted is the content, made larger.
    assert torch.equal(result.image[..., 20:], scaled(content, (30, 36))[..., 20:])
    assert paint(None, size=(9, 31)).image.shape == (1, 3, 9, 31)


# ------------------------------------------------------------------------------------------------- starts


@pytest.mark.parametrize("init", ["content", "noise", "style"])
def test_a_start_takes_the_place_of_init(paint, picture, objectives, init):
    content, start = picture(20, 24, 1), picture(20, 24, 7)
    before = start.clone()
    first = paint(content, start=start, init=init).history[0]
    assert torch.equal(start, before)
    with torch.no_grad():
        expected = {name: term.item() for name, term in objectives[0](start).items()}
    assert {name: first[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_a_start_of_another_size_is_resized(paint, picture):
    content = picture(20, 24, 1)
    for shape in ((9, 11), (40, 13)):
        for smallest in (None, 16):
            result = paint(content, start=picture(*shape, 7), smallest=smallest, iterations=2)
            assert result.image.shape == content.shape
    # A texture has no other size than its start's.
    assert paint(None, start=picture(11, 9, 7), iterations=1).image.shape == (1, 3, 11, 9)


# ------------------------------------------------------------------------------------------------- colors


def test_luminance_keeps_the_contents_colors(paint, picture):
    content = picture(24, 30, 1) * 0.4 + 0.3
    result = paint(content, color="luminance", iterations=10)
    shown = []
    paint(content, color="luminance", iterations=3, callback=lambda p: shown.append(p.image))
    for image in (result.image, *shown):
        chroma, own = (x - color.luminance(x) for x in (image, content))
        # The same hue, at most paler: a multiple between 0 and 1 of the content's color.
        scale = (chroma * own).sum(1) / own.square().sum(1).clamp_min(1e-9)
        assert (chroma - scale[:, None] * own).abs().max() < 1e-3
        assert scale.min() > -1e-3
        assert scale.max() < 1 + 1e-3
    assert (color.luminance(result.image) - color.luminance(content)).abs().mean() > 0.01
    assert not torch.equal(result.image, paint(content, iterations=10).image)


def test_luminance_coarse_to_fine_has_the_colors_of_each_size(paint, picture):
    content = picture(48, 40, 1) * 0.4 + 0.3
    shown = []
    result = paint(
        content, color="luminance", smallest=16, iterations=2, callback=lambda p: shown.append(p.image)
    )
    for image in (*shown, result.image):
        own = scaled(content, image.shape[-2:])
        chroma, own = (x - color.luminance(x) for x in (image, own))
        # Across the hue (in the plane of colors without luminance) there is nothing.
        across = chroma[:, 0] * own[:, 1] - chroma[:, 1] * own[:, 0]
        assert across.abs().max() < 1e-3


@pytest.mark.parametrize("how", ["histogram", "coral", "luminance"])
def test_the_style_is_recolored_before_it_is_looked_at(paint, picture, objectives, how):
    content, style = picture(20, 24, 1) * 0.5, picture(18, 15, 2) * 0.3 + 0.7
    paint(content, [style, style.flip(2)], color=how, iterations=1)
    given_styles = objectives[0].given[2][0].styles
    assert len(given_styles) == 2
    for used, own in zip(given_styles, (style, style.flip(2)), strict=True):
        assert torch.equal(used, color.prepare_style(how, own, content))
        assert used.mean().item() == pytest.approx(content.mean().item(), abs=0.05)


def test_a_texture_has_no_colors_to_keep(paint, picture):
    style = picture(18, 15, 2)
    assert torch.equal(paint(None, style, color="luminance").image, paint(None, style, color="style").image)


# ------------------------------------------------------------------------------------------ lists of styles


def test_a_list_of_styles_is_a_blend_of_all(paint, picture):
    styles = [picture(18, 15, 2), picture(30, 11, 4)]
    blend = paint(style=styles, iterations=6)
    assert torch.equal(blend.image, paint(style=tuple(styles), iterations=6).image)
    assert torch.equal(blend.image, paint(style=[Guide(tuple(styles), (5.0, 5.0))], iterations=6).image)
    assert torch.equal(blend.image, paint(style=Guide(tuple(styles)), iterations=6).image)
    assert all(not torch.equal(blend.image, paint(style=one, iterations=6).image) for one in styles)
    assert torch.equal(paint(style=styles[:1]).image, paint(style=styles[0]).image)


def test_the_first_style_is_the_start_and_the_size(paint, picture):
    styles = [picture(18, 15, 2), picture(30, 11, 4)]
    assert paint(None, styles, iterations=1).image.shape == styles[0].shape
    told = []
    paint(
        picture(18, 15, 1), styles, init="style", iterations=1, learning_rate=1e-12, optimizer="adam",
        callback=told.append,
    )  # fmt: skip
    torch.testing.assert_close(told[0].image, styles[0])


# -------------------------------------------------------------------------------------- awkward pictures


@pytest.mark.parametrize("gray", ["content", "style", "both"])
@pytest.mark.parametrize("how", color.COLOR_MODES)
def test_gray_pictures_are_painted_in_every_color_mode(paint, picture, gray, how):
    content, style = (
        picture(20, 24, seed, channels=1 if gray in (name, "both") else 3).expand(-1, 3, -1, -1)
        for name, seed in (("content", 1), ("style", 2))
    )
    result = paint(content, style, color=how, iterations=3)
    assert torch.isfinite(result.image).all()
    assert result.history[-1]["total"] < result.history[0]["total"]
    if how == "luminance" and gray != "style":  # what was gray stays gray
        torch.testing.assert_close(result.image, result.image[:, :1].expand(-1, 3, -1, -1))


@pytest.mark.parametrize("flat", [0.0, 1.0])
@pytest.mark.parametrize("how", color.COLOR_MODES)
@pytest.mark.parametrize("distance", ["gram", "wasserstein2"])
def test_flat_pictures_do_not_break_anything(paint, picture, flat, how, distance):
    plain = torch.full((1, 3, 17, 21), flat)
    for content, style in ((plain, plain), (plain, picture(18, 15, 2)), (picture(20, 24, 1), plain)):
        result = paint(content, style, color=how, style_distance=distance, iterations=3)
        assert torch.isfinite(result.image).all()
        assert all(math.isfinite(value) for row in result.history for value in row.values())


@examples(max_examples=25, deadline=None)
@given(
    content=st.tuples(st.integers(2, 70), st.integers(2, 70)),
    style=st.tuples(st.integers(2, 70), st.integers(2, 70)),
    smallest=st.one_of(st.none(), st.integers(16, 40)),
    init=st.sampled_from(["content", "noise", "style"]),
)
def test_any_size_with_any_other(net, picture, content, style, smallest, init):
    # Odd by a pixel, long and thin, the style smaller or larger than the content.
    result = stylize(
        picture(*content, 1), picture(*style, 2), SHALLOW, extractor=net, progress=False, iterations=2,
        smallest=smallest, init=init,
    )  # fmt: skip
    assert result.image.shape == (1, 3, *content)
    assert torch.isfinite(result.image).all()
    assert 0 <= result.image.min() <= result.image.max() <= 1


@pytest.mark.parametrize(("init", "style"), [("content", (32, 32)), ("noise", (33, 100))])
def test_thumbnails_with_all_five_blocks(deep, picture, init, style):
    result = stylize(
        picture(64, 63, 1), picture(*style, 2), Settings(init=init), extractor=deep, progress=False,
        iterations=2, smallest=32,
    )  # fmt: skip
    assert result.image.shape == (1, 3, 64, 63)
    assert {row["size"] for row in result.history} == {32, 45, 64}
    last = [row["total"] for row in result.history if row["size"] == 64]
    assert last[-1] < last[0]


def test_what_is_too_small_for_a_layer_is_said_at_once(deep, picture):
    told = []
    for content, style in (((64, 64), (15, 40)), ((15, 64), (40, 40))):
        with pytest.raises(SettingError, match=r"pixels is too small for relu5_1 of vgg19: it needs 16"):
            stylize(
                picture(*content, 1), picture(*style, 2), Settings(smallest=32), extractor=deep,
                progress=False, callback=told.append,
            )  # fmt: skip
    assert told == []


# ------------------------------------------------------------------------------------- stopped on the way


def test_a_run_stopped_at_a_small_size_is_given_at_full_size(paint, picture):
    content = picture(64, 50, 1)
    mask = left(64, 50, 20)
    guides = [Guide((picture(18, 15, 2),), mask=mask)]
    for options in (
        {"callback": lambda p: p.iteration < 3},
        {"callback": lambda p: (_ for _ in ()).throw(KeyboardInterrupt) if p.iteration == 3 else None},
    ):
        result = paint(content, guides, smallest=16, **options)
        assert len(result.history) == 3
        assert result.image.shape == content.shape
        # Nothing outside the mask is blurred by the way over a small picture.
        assert torch.equal(result.image[..., 20:], content[..., 20:])
        assert not torch.equal(result.image[..., :20], content[..., :20])
        assert 0 <= result.image.min() <= result.image.max() <= 1


def test_control_c_between_two_sizes_keeps_the_picture(paint, picture, monkeypatch):
    original, made = transfer._objective, []

    def interrupted(*arguments):
        made.append(None)
        if len(made) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(transfer, "_objective", interrupted)
    content, told = picture(64, 50, 1), []
    result = paint(content, smallest=16, iterations=2, callback=told.append)
    assert result.interrupted
    assert len(result.history) == len(told) == 3
    assert result.image.shape == content.shape
    assert (scaled(result.image, told[-1].image.shape[-2:]) - told[-1].image).abs().mean() < 0.05
    made[:] = [None, None]
    with pytest.raises(KeyboardInterrupt):  # before anything is painted there is nothing to keep
        paint(content, smallest=16)


def test_a_loss_that_is_no_number_at_a_small_size_gives_the_full_size_back(paint, picture, monkeypatch):
    content, original, asked = picture(64, 50, 1), Objective.__call__, []

    def failing(self, image):
        asked.append(None)
        terms = original(self, image)
        return {**terms, "total": terms["total"] * math.nan} if len(asked) == 6 else terms

    monkeypatch.setattr(Objective, "__call__", failing)
    with pytest.raises(OptimizationError, match="not a number at iteration 6") as caught:
        paint(content, smallest=16, color="luminance")
    image = caught.value.result.image
    assert len(caught.value.result.history) == 5
    assert image.shape == content.shape
    assert 0 <= image.min() <= image.max() <= 1


# ---------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize("name", ["content", "style", "start"])
@pytest.mark.parametrize(
    "bad", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8), torch.full((1, 3, 8, 8), math.nan)]
)
def test_what_is_no_picture_is_one_sentence(paint, name, bad):
    with pytest.raises(ImageError, match=f"{name} picture") as caught:
        paint(**{name: bad})
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_an_empty_list_of_styles_is_not_taken_for_none(paint):
    with pytest.raises(SettingError, match=r"The list of styles is empty: give a style picture, or None"):
        paint(style=[])


def test_a_mask_that_does_not_fit_is_said_before_the_work_not_at_the_last_size(paint, picture):
    told = []
    with pytest.raises(ImageError, match=r"mask of a region is 1 × 50 × 64 and its picture 1 × 64 × 50"):
        paint(
            picture(64, 50, 1), [Guide((picture(18, 15, 2),), mask=torch.ones(1, 1, 50, 64))], smallest=16,
            callback=told.append,
        )  # fmt: skip
    assert told == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": "vgg19", "content_layers": ("relu1_2",)}, r"not that of the settings \(vgg19, max pool"),
        ({"style_layers": ("relu3_1",)}, r"not that of the settings .*relu3_1\): make one with these"),
        ({"pooling": "average"}, r"not that of the settings \(vgg16, average pooling"),
    ],
)
def test_an_extractor_that_does_not_fit_is_one_sentence(paint, changes, sentence):
    with pytest.raises(SettingError, match=sentence):
        paint(**changes)
