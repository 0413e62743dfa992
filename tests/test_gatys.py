"""Gatys' method from pictures to picture, on small random networks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gatys_helpers import SHALLOW, left, shallow_net
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from nstlib.errors import ImageError, OptimizationError, SettingError
from nstlib.methods.gatys import (
    FIVE_BLOCKS,
    OPTIMIZERS,
    PLAIN,
    Gatys,
    Guide,
    Objective,
    Settings,
    initial_image,
    minimize,
    pyramid_sizes,
    stylize,
    transfer,
)
from nstlib.methods.gatys.transfer import NOISE_AMPLITUDE, iterations_per_size
from nstlib.nets.features import FeatureExtractor
from nstlib.pictures import color
from nstlib.pictures.files import resize

pytestmark = pytest.mark.usefixtures("one_thread")  # some compare bits


@pytest.fixture
def paint(net, picture):
    """``stylize`` on the shallow network, with pictures of 20×24 and 18×15 unless others are given."""

    def run(content=..., style=..., **options):
        content = picture(20, 24, 1) if content is ... else content
        style = picture(18, 15, 2) if style is ... else style
        return stylize(content, style, SHALLOW, extractor=net, progress=False, **options)

    return run


@pytest.fixture(scope="module")
def deep(weights):
    return FeatureExtractor(
        "vgg19", [*FIVE_BLOCKS, "relu4_2"], precision="float32", device="cpu", tensors=weights["vgg19"]
    )


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


# --------------------------------------------------------------------------------------------- the outcome


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("init", ["content", "noise", "style"])
def test_the_loss_falls(paint, optimizer, init):
    # Annealing tries one change at a time and asks for no gradient: it needs many more, and gets less far.
    slow = optimizer == "annealing"
    result = paint(optimizer=optimizer, init=init, iterations=80 if slow else 20)
    totals = [row["total"] for row in result.history]
    assert totals[-1] < (0.97 if slow else 0.8) * totals[0]
    assert min(totals) == pytest.approx(totals[-1], rel=0.2)


def test_the_loss_falls_in_bfloat16(weights, picture):
    net = shallow_net(weights["vgg16"], "bfloat16")
    result = stylize(
        picture(16, 16, 1), picture(16, 16, 2), SHALLOW, extractor=net, progress=False, iterations=10
    )
    assert result.history[-1]["total"] < 0.8 * result.history[0]["total"]
    assert result.image.dtype == torch.float32


def test_a_texture_needs_no_content(paint, picture):
    style = picture(18, 14, 2)
    result = paint(content=None, style=style, iterations=15)
    assert result.image.shape == style.shape
    assert result.settings.init == "noise"
    assert all(row["content"] == 0 for row in result.history)
    assert result.history[-1]["style"] < 0.2 * result.history[0]["style"]
    assert paint(content=None, style=style, size=(9, 31), iterations=1).image.shape == (1, 3, 9, 31)
    from_style = paint(content=None, style=style, init="style", iterations=1)
    assert from_style.history[0]["style"] == pytest.approx(0, abs=1e-9)


def test_a_reconstruction_needs_no_style(paint, picture):
    content = picture(16, 16, 1)
    result = paint(content=content, style=None, init="noise", iterations=25)
    assert all(row["style"] == 0 and "style/relu1_1" not in row for row in result.history)
    assert result.history[-1]["content"] < 0.1 * result.history[0]["content"]
    start = initial_image("noise", content, None, generator=torch.Generator().manual_seed(0))
    assert (result.image - content).norm() < 0.7 * (start - content).norm()


@pytest.mark.parametrize(("content", "style"), [(None, None), (..., [])])
def test_nothing_to_aim_at_is_one_sentence(paint, content, style):
    with pytest.raises(SettingError, match="nothing to aim at: give a content picture, a style picture, or"):
        paint(content=content, style=style)


# ------------------------------------------------------------------------------------------------ beginnings


def test_initial_images(picture):
    content, style = picture(12, 10, 1), picture(9, 20, 2)
    start = initial_image("content", content, style)
    assert torch.equal(start, content)
    assert start.data_ptr() != content.data_ptr()
    assert initial_image("style", content, style).shape == content.shape
    assert torch.equal(initial_image("style", None, style), style)
    noise = initial_image("noise", content, style, generator=torch.Generator().manual_seed(3))
    uniform = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(noise, 0.5 + NOISE_AMPLITUDE * (uniform - 0.5))
    assert initial_image("noise", content, style, (5, 6)).shape == (1, 3, 5, 6)
    with pytest.raises(SettingError, match=r"init='style' needs a style picture; give one or start from"):
        initial_image("style", content, None)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_seed_gives_the_same_pixels(paint, optimizer):
    first, second, other = (
        paint(init="noise", optimizer=optimizer, seed=seed, iterations=5) for seed in (1, 1, 2)
    )
    assert torch.equal(first.image, second.image)
    assert [row["total"] for row in first.history] == [row["total"] for row in second.history]
    assert not torch.allclose(first.image, other.image, atol=0.05)


# ------------------------------------------------------------------------------------------------- averaging


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_is_of_all_iterates_the_last_counting_most(net, picture, decay):
    start = picture(10, 10, 1) * 0.2 + 0.4  # gray, so that nothing is clamped when looked at
    iterates, averages = [], []
    for averaging, shown in ((0.0, iterates), (decay, averages)):
        settings = replace(SHALLOW, optimizer="adam", averaging=averaging, iterations=6)
        objective = Objective(net, start, picture(10, 10, 2) * 0.2 + 0.4, settings)
        result = minimize(
            objective, start, callback=lambda p, shown=shown: shown.append(p.image), progress=False
        )
        assert torch.equal(result.image, shown[-1])
    for n, average in enumerate(averages, start=1):
        shares = [decay ** (n - k) for k in range(1, n + 1)]
        expected = sum(share * x for share, x in zip(shares, iterates[:n], strict=True)) / sum(shares)
        torch.testing.assert_close(average, expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------- history and callback


def test_history_has_a_row_for_each_iteration(paint):
    result = paint(iterations=5, tv_weight=0.1)
    names = {"total", "content", "style", "tv", "style/relu1_1", "style/relu2_1"}
    names |= {"iteration", "seconds", "evaluations", "size"}
    assert [set(row) for row in result.history] == [names] * 5
    assert [row["iteration"] for row in result.history] == [1, 2, 3, 4, 5]
    assert {row["size"] for row in result.history} == {24}
    seconds = [row["seconds"] for row in result.history]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert result.seconds == seconds[-1]
    assert not result.interrupted
    for row in result.history:
        parts = row["content"] + result.settings.style_weight * row["style"] + 0.1 * row["tv"]
        assert row["total"] == pytest.approx(parts, rel=1e-5)
        layers = (row["style/relu1_1"] + row["style/relu2_1"]) / 2
        assert row["style"] == pytest.approx(layers, rel=1e-5)


def test_a_callback_is_told_everything(paint):
    told = []
    result = paint(iterations=4, callback=told.append)
    assert [p.iteration for p in told] == [1, 2, 3, 4]
    assert {p.iterations for p in told} == {4}
    for progress, row in zip(told, result.history, strict=True):
        counted = {name: getattr(progress, name) for name in ("iteration", "seconds", "evaluations")}
        assert {**counted, **progress.losses, "size": 24} == row
        assert progress.image.shape == result.image.shape
    assert torch.equal(told[-1].image, result.image)
    # Each picture is its own copy: the third is not overwritten by the fourth.
    assert not torch.equal(told[2].image, told[3].image)


# ----------------------------------------------------------------------------------- interruption and failure


@pytest.mark.parametrize("optimizer", ["lbfgs", "langevin"])
def test_a_loss_that_is_no_number_stops_with_the_last_good_picture(net, picture, optimizer):
    content = picture(12, 12, 1)
    settings = replace(SHALLOW, iterations=50, optimizer=optimizer)
    shown = []

    class Failing(Objective):
        def __call__(self, image):
            terms = super().__call__(image)
            return {**terms, "total": terms["total"] * (math.nan if self.evaluations == 4 else 1)}

    objective = Failing(net, content, picture(12, 12, 2), settings)
    with pytest.raises(
        OptimizationError, match=r"not a number at iteration 4: lower the learning rate"
    ) as caught:
        minimize(objective, content, callback=lambda p: shown.append(p.image), progress=False)
    result = caught.value.result
    assert len(result.history) == 3
    # The picture of the last finite loss, that is, before the step that led to the NaN.
    assert torch.equal(result.image, shown[1])


# ------------------------------------------------------------------------------------------------- sizes


def test_sizes_and_iterations_of_round_numbers():
    assert pyramid_sizes((512, 512), 256) == [(256, 256), (362, 362), (512, 512)]
    assert pyramid_sizes((65, 48), 64) == pyramid_sizes((65, 48), None) == [(65, 48)]
    assert [max(size) for size in pyramid_sizes((1, 2048), 256)] == [256, 362, 512, 724, 1024, 1448, 2048]
    assert all(min(size) == 1 for size in pyramid_sizes((1, 2048), 256))
    sizes = [(256, 200), (512, 400), (1024, 800), (2048, 1600)]
    assert iterations_per_size(sizes, PLAIN) == [300, 150, 75, 150]
    assert iterations_per_size(sizes, PLAIN.changed(coarse_iterations=10)) == [10, 5, 2, 150]
    assert iterations_per_size(sizes, PLAIN.changed(iterations=1)) == [2, 1, 1, 1]


def test_each_size_has_its_pictures(paint, picture, objectives):
    content, styles = picture(64, 48, 1), (picture(40, 80, 2), picture(100, 20, 3))
    mask = left(64, 48, 20)
    guide = Guide(styles, mask=mask)
    result = paint(content, [guide], smallest=16, iterations=3, coarse_iterations=2)
    sizes = pyramid_sizes((64, 48), 16)
    assert sizes == [(16, 12), (23, 17), (32, 24), (45, 34), (64, 48)]
    padded = [(height + height % 2, width + width % 2) for height, width in sizes]  # relu2_1 pools once
    assert [tuple(o.content.shape[-2:]) for o in objectives] == padded
    assert [row["size"] for row in result.history] == [16, 16, 24, 32, 46, 64, 64, 64]
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
        assert made.mask.shape == (1, 1, height + height % 2, width + width % 2)
    last = objectives[-1]
    assert torch.equal(last.content, content)
    assert torch.equal(last.given[2][0].styles[0], styles[0])
    assert result.image.shape == content.shape


def test_the_smallest_sizes_of_a_panorama_are_left_out(deep, picture, objectives):
    settings = PLAIN.changed(iterations=1, smallest=32)
    result = stylize(picture(40, 130, 1), picture(40, 40, 2), settings, extractor=deep, progress=False)
    assert pyramid_sizes((40, 130), 32)[0] == (10, 32)  # 16 pixels are what relu5_1 needs
    assert [tuple(o.content.shape[-2:]) for o in objectives] == [(32, 80), (32, 96), (48, 144)]
    assert result.image.shape == (1, 3, 40, 130)


@pytest.mark.parametrize(("height", "width"), [(48, 79), (79, 48), (63, 49), (48, 64)])
def test_a_deep_style_reaches_every_border(deep, picture, height, width):
    """Noise stays where a layer's pooling cuts pixels off; so it is looked for at the last ones."""
    settings = PLAIN.changed(style_layers=("relu5_1",), content_weight=0.0, iterations=8, init="noise")
    result = stylize(
        picture(height, width, 1), picture(64, 64, 2), settings, extractor=deep, progress=False, seed=3
    )
    assert result.image.shape == (1, 3, height, width)
    start = initial_image("noise", None, None, (height, width), torch.Generator().manual_seed(3))
    change = (result.image - start).abs().mean(1)[0]
    for last in (change[-4:], change[:, -4:]):
        assert last.mean() > 0.5 * change.mean()


@pytest.mark.parametrize("color_of", ["style", "luminance"])
def test_odd_sizes_keep_their_masks_and_colors(deep, picture, color_of):
    content, mask = picture(53, 71, 1), left(53, 71, 40)
    shown = []
    settings = PLAIN.changed(iterations=2, smallest=32, color=color_of)
    options = {"extractor": deep, "progress": False}
    guide = Guide((picture(64, 64, 2),), mask=mask)
    result = stylize(content, [guide], settings, callback=lambda p: shown.append(p.image), **options)
    assert [tuple(image.shape[-2:]) for image in shown][-1] == result.image.shape[-2:] == (53, 71)
    assert torch.equal(shown[-1], result.image)
    assert (result.image - content)[..., 42:].abs().max() < 1e-5
    assert (result.image - content)[..., :38].abs().mean() > 1e-3


# ------------------------------------------------------------------------------------------------- starts


def test_a_start_takes_the_place_of_init(paint, picture, objectives):
    content, start = picture(20, 24, 1), picture(20, 24, 7)
    before = start.clone()
    first = paint(content, start=start, init="noise").history[0]
    assert torch.equal(start, before)
    with torch.no_grad():
        expected = {name: term.item() for name, term in objectives[0](start).items()}
    assert {name: first[name] for name in expected} == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------------------- colors


def test_luminance_keeps_the_contents_colors(paint, picture):
    content = picture(24, 30, 1) * 0.4 + 0.3
    shown, plain = [], []
    result = paint(content, color="luminance", callback=lambda p: shown.append(p.image))
    luminance = color.prepare_style("luminance", picture(18, 15, 2), content)
    paint(content, luminance, callback=lambda p: plain.append(p.image))
    for image, before in zip(shown, plain, strict=True):
        assert torch.equal(image, color.luminance_only(before, content))
    assert torch.equal(result.image, shown[-1])


@pytest.mark.parametrize("how", ["coral", "luminance"])
def test_the_style_is_recolored_before_it_is_looked_at(paint, picture, objectives, how):
    content, style = picture(20, 24, 1) * 0.5, picture(18, 15, 2) * 0.3 + 0.7
    paint(content, [style, style.flip(2)], color=how, iterations=1)
    given_styles = objectives[0].given[2][0].styles
    assert len(given_styles) == 2
    for used, own in zip(given_styles, (style, style.flip(2)), strict=True):
        assert torch.equal(used, color.prepare_style(how, own, content))


# -------------------------------------------------------------------------------------- awkward pictures


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


def test_what_is_too_small_for_a_layer_is_said_at_once(deep, picture):
    told = []
    for content, style in (((64, 64), (15, 40)), ((15, 64), (40, 40))):
        with pytest.raises(SettingError, match=r"pixels is too small for relu5_1 of vgg19: it needs 16"):
            stylize(
                picture(*content, 1), picture(*style, 2), PLAIN.changed(smallest=32), extractor=deep,
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
    result = paint(content, smallest=16, iterations=2, coarse_iterations=2, callback=told.append)
    assert result.interrupted
    assert len(result.history) == len(told) == 3
    assert result.image.shape == content.shape
    assert (resize(result.image, told[-1].image.shape[-2:]) - told[-1].image).abs().mean() < 0.05
    made[:] = [None, None]
    with pytest.raises(KeyboardInterrupt):  # before anything is painted there is nothing to keep
        paint(content, smallest=16)


# ---------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize("name", ["content", "style", "start"])
@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 8, 8), torch.full((1, 3, 8, 8), math.nan)])
def test_what_is_no_picture_is_one_sentence(paint, name, bad):
    with pytest.raises(ImageError, match=f"{name} picture") as caught:
        paint(**{name: bad})
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_mask_that_does_not_fit_is_said_before_the_work_not_at_the_last_size(paint, picture):
    told = []
    with pytest.raises(ImageError, match=r"mask of a region is 1 of 64 × 50 pixels and its picture 1 of 50"):
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
    ],
)
def test_an_extractor_that_does_not_fit_is_one_sentence(paint, changes, sentence):
    with pytest.raises(SettingError, match=sentence):
        paint(**changes)


# -------------------------------------------------------------------------------------------------- settings

BAD = [
    ({"iterations": 0}, "iterations should be greater than or equal to 1, not 0"),
    ({"content_weight": math.nan}, "content_weight should be a finite number, not nan"),
    ({"optimizer": "LBFGS"}, "optimizer should be 'lbfgs', .* or 'annealing', not 'LBFGS'"),
    (
        {"style_distance": "wasserstein2", "style_normalization": "gatys_paper"},
        r"take style_distance='gram' with 'gatys_paper', or leave style_normalization 'relative'",
    ),
    ({"tile": 100}, "tile should be a multiple of 16, not 100"),
    ({"style_layers": ("relu1_1", "relu1_1")}, r"style_layers names a layer twice: name each once"),
    ({"style_normalization": "gram"}, r"There is no style normalization 'gram': choose one of as_printed"),
    ({"layer_weights": (1.0, 2.0)}, r"5 style layers need as many layer_weights, not 2"),
    ({"stile_weight": 3, "iteration": 4}, r"no setting 'iteration', 'stile_weight': they are network"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD, ids=[str(bad) for bad, _ in BAD])
def test_a_bad_setting_is_one_sentence(bad, sentence):
    for make in (Settings, Settings().changed):
        with pytest.raises(SettingError, match=sentence) as caught:
            make(**bad)
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)


def test_a_change_of_network_resets_the_layers(random_networks, picture):
    content, style = picture(33, 37, 1), picture(40, 35, 2)
    result = stylize(content, style, SHALLOW, network="alexnet", progress=False, device="cpu")
    assert random_networks == ["alexnet"]
    assert result.settings.content_layers == ("relu3",)
    assert result.settings.style_layers == ("relu1", "relu2", "relu3", "relu4", "relu5")
    assert {f"style/relu{i}" for i in range(1, 6)} < set(result.history[0])
    assert SHALLOW.changed(network="alexnet", content_layers=("relu2",)).content_layers == ("relu2",)
    assert SHALLOW.changed(network="vgg16").content_layers == SHALLOW.content_layers


def test_the_common_protocol(random_networks, picture):
    method = Gatys(replace(SHALLOW, iterations=2), device="cpu")
    assert method.fit([picture(8, 8)], [picture(8, 8)]).step == 0
    content, style = picture(11, 13, 1), picture(9, 8, 2)
    painted = method.stylize(content, style)
    assert painted.shape == content.shape
    assert torch.equal(
        painted, stylize(content, style, SHALLOW, iterations=2, progress=False, device="cpu").image
    )
    assert Gatys().settings == Settings()
