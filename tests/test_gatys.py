"""Gatys' method: does it go down, stop, fail and report as it says, on small random networks."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import asdict, fields, replace

import pytest
import torch

from nstlib.errors import OptimizationError, SettingError
from nstlib.losses import STYLE_NORMALIZATIONS, total_variation
from nstlib.methods.gatys import (
    OPTIMIZERS,
    Gatys,
    Objective,
    Settings,
    initial_image,
    minimize,
    stylize,
)
from nstlib.methods.gatys.transfer import NOISE_AMPLITUDE
from nstlib.nets.features import FeatureExtractor
from nstlib.pictures import files as images

pytestmark = pytest.mark.usefixtures("one_thread")  # some compare bits

SHALLOW = Settings(
    network="vgg16", content_layers=("relu1_2",), style_layers=("relu1_1", "relu2_1"), iterations=4
)


@pytest.fixture(scope="module")
def net(weights):
    return FeatureExtractor(
        "vgg16",
        ["relu1_1", "relu1_2", "relu2_1"],
        precision="float32",
        device="cpu",
        tensors=weights["vgg16"],
    )


@pytest.fixture
def paint(net, picture):
    """``stylize`` on the shallow network, with pictures of 20×24 and 18×15 unless others are given."""

    def run(content=..., style=..., **options):
        content = picture(20, 24, 1) if content is ... else content
        style = picture(18, 15, 2) if style is ... else style
        return stylize(content, style, SHALLOW, extractor=net, progress=False, **options)

    return run


class Pixels:
    """In place of a network: the pixels themselves are the features, one pixel a position."""

    device = torch.device("cpu")

    def __call__(self, image):
        return {"relu1_1": image, "relu4_2": image}


class Acting(Objective):
    """An objective that changes its terms at the n-th evaluation."""

    def __init__(self, *arguments, at=0, action=None):
        super().__init__(*arguments)
        self.at, self.action, self.count = at, action, 0

    def __call__(self, image):
        self.count += 1
        terms = super().__call__(image)
        return self.action(terms) if self.count == self.at else terms


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


@pytest.mark.parametrize("name", STYLE_NORMALIZATIONS)
def test_the_loss_falls_in_every_published_scale(paint, name):
    # Millions in one scale, a millionth in another: the weight that makes the first style loss 1.
    first = paint(style_normalization=name, iterations=1).history[0]["style"]
    result = paint(style_normalization=name, style_weight=1 / first, content_weight=0.01, iterations=8)
    assert result.history[-1]["total"] < 0.9 * result.history[0]["total"]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("weight", [1e-6, 1e3])
def test_the_loss_falls_however_small_or_large_it_is(paint, optimizer, weight):
    # The minimum is the same; a picture that silently stays where it is would be reported as done.
    result = paint(content_weight=0.05 * weight, style_weight=weight, optimizer=optimizer, iterations=20)
    assert result.history[-1]["total"] < 0.8 * result.history[0]["total"]


def test_the_loss_falls_in_bfloat16(weights, picture):
    net = FeatureExtractor(
        "vgg16", SHALLOW.style_layers + SHALLOW.content_layers, precision="bfloat16", device="cpu",
        tensors=weights["vgg16"],
    )  # fmt: skip
    result = stylize(
        picture(16, 16, 1), picture(16, 16, 2), SHALLOW, extractor=net, progress=False, iterations=10
    )
    assert result.history[-1]["total"] < 0.8 * result.history[0]["total"]
    assert result.image.dtype == torch.float32


@pytest.mark.parametrize(("height", "width"), [(17, 23), (5, 41), (2, 2)])
def test_the_result_has_the_contents_size(paint, picture, height, width):
    result = paint(content=picture(height, width, 3), iterations=2)
    assert result.image.shape == (1, 3, height, width)
    assert result.image.dtype == torch.float32
    assert result.image.device.type == "cpu"
    assert result.image.min() >= 0
    assert result.image.max() <= 1
    assert not result.image.requires_grad


def test_the_pictures_given_are_not_changed(paint, picture):
    content, style = picture(12, 12, 1), picture(12, 12, 2)
    before = content.clone(), style.clone()
    for init in ("content", "style"):
        result = paint(content=content, style=style, init=init)
        assert not torch.equal(result.image, before[0])
        assert torch.equal(content, before[0])
        assert torch.equal(style, before[1])


def test_more_style_weight_means_less_style_loss(paint):
    little, much = (paint(style_weight=weight, iterations=15).history[-1] for weight in (0.1, 1000.0))
    assert much["style"] < 0.5 * little["style"]
    assert much["content"] > 2 * little["content"]


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


def test_nothing_to_aim_at_is_one_sentence(paint):
    with pytest.raises(
        SettingError, match=r"nothing to aim at: give a content picture, a style picture, or both"
    ):
        paint(content=None, style=None)


# ------------------------------------------------------------------------------------------------ beginnings


def test_initial_images(picture):
    content, style = picture(12, 10, 1), picture(9, 20, 2)
    start = initial_image("content", content, style)
    assert torch.equal(start, content)
    assert start.data_ptr() != content.data_ptr()
    resized = initial_image("style", content, style)
    assert resized.shape == content.shape
    assert 0 <= resized.min() <= resized.max() <= 1
    assert (resized.mean() - style.mean()).abs() < 0.02
    assert torch.equal(initial_image("style", None, style), style)
    noise = initial_image("noise", content, style, generator=torch.Generator().manual_seed(3))
    assert noise.shape == content.shape
    uniform = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(noise, 0.5 + NOISE_AMPLITUDE * (uniform - 0.5))
    assert 0 <= noise.min() < 0.4 < 0.6 < noise.max() <= 1  # faint around gray, but noise
    assert initial_image("noise", None, style).shape == style.shape
    assert initial_image("noise", content, style, (5, 6)).shape == (1, 3, 5, 6)
    assert initial_image("content", content, style, (24, 30)).shape == (1, 3, 24, 30)


@pytest.mark.parametrize(("init", "content", "style"), [("style", True, False), ("content", False, True)])
def test_a_missing_start_is_one_sentence(picture, init, content, style):
    pair = [picture(8, 8) if there else None for there in (content, style)]
    with pytest.raises(
        SettingError, match=rf"init='{init}' needs a {init} picture; give one or start from 'noise'"
    ):
        initial_image(init, *pair)


@pytest.mark.parametrize("init", ["content", "style", "noise"])
def test_the_first_evaluation_is_at_the_start(paint, picture, net, init):
    content, style = picture(16, 14, 1), picture(12, 13, 2)
    row = paint(content=content, style=style, init=init, seed=5, iterations=1).history[0]
    start = initial_image(init, content, style, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = Objective(net, content, style, SHALLOW)(start)
    for name, value in expected.items():
        assert row[name] == pytest.approx(value.item(), rel=1e-5, abs=1e-9), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_seed_gives_the_same_pixels(paint, optimizer):
    first, second, other = (
        paint(init="noise", optimizer=optimizer, seed=seed, iterations=5) for seed in (1, 1, 2)
    )
    assert torch.equal(first.image, second.image)
    assert [row["total"] for row in first.history] == [row["total"] for row in second.history]
    assert not torch.allclose(first.image, other.image, atol=0.05)


# ------------------------------------------------------------------------------------------------- optimizer


def test_lbfgs_has_learning_rate_one_and_keeps_the_history_it_is_told(paint):
    plain = paint(iterations=6)
    assert torch.equal(paint(iterations=6, learning_rate=1.0).image, plain.image)
    assert not torch.equal(paint(iterations=6, learning_rate=0.5).image, plain.image)
    assert not torch.equal(paint(iterations=6, history_size=1).image, plain.image)
    assert not torch.equal(paint(iterations=6, smoothing=0.5).image, plain.image)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_one_iteration_is_one_evaluation(net, picture, optimizer):
    settings = replace(SHALLOW, optimizer=optimizer, iterations=6)
    objective = Acting(net, picture(8, 8, 1), picture(8, 8, 2), settings)
    result = minimize(objective, picture(8, 8, 1), progress=False)
    assert objective.count == 6
    assert [row["evaluations"] for row in result.history] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_pixels_are_free_inside_and_clamped_only_when_looked_at(net, picture, optimizer):
    content = picture(14, 14, 1).round()  # black and white: every second step leads outside
    seen, shown = [], []

    class Watched(Objective):
        def __call__(self, image):
            seen.append((image.min().item(), image.max().item()))
            return super().__call__(image)

    objective = Watched(net, content, picture(14, 14, 2), replace(SHALLOW, optimizer=optimizer, iterations=8))
    result = minimize(objective, content, callback=lambda p: shown.append(p.image), progress=False)
    assert min(low for low, _ in seen) < -0.005
    assert max(high for _, high in seen) > 1.005
    for image in [*shown, result.image]:
        assert 0 <= image.min() <= image.max() <= 1


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


def test_variation_is_computed_only_when_weighted(paint, picture):
    content = picture(16, 16, 1)
    assert paint(content=content, iterations=1).history[0]["tv"] == 0
    weighted = paint(content=content, iterations=1, tv_weight=3.0).history[0]
    assert weighted["tv"] == pytest.approx(total_variation(content).item(), rel=1e-5)
    smooth = paint(content=content, tv_weight=30.0, style_weight=0.0, optimizer="adam", iterations=20)
    assert smooth.history[-1]["tv"] < 0.7 * smooth.history[0]["tv"]


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


def test_false_stops_and_keeps_everything(paint):
    told = []

    def callback(progress):
        told.append(progress)
        return progress.iteration < 3

    result = paint(iterations=50, callback=callback)
    assert len(result.history) == len(told) == 3
    assert torch.equal(result.image, told[-1].image)
    assert not result.interrupted


def test_an_error_in_the_callback_is_not_swallowed(paint):
    def callback(progress):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        paint(callback=callback)


def test_the_progress_bar_can_be_left_out(paint, net, picture, capfd):
    paint()
    assert capfd.readouterr() == ("", "")
    stylize(picture(8, 8, 1), picture(8, 8, 2), SHALLOW, extractor=net, iterations=2)
    out, err = capfd.readouterr()
    assert out == ""
    assert "vgg16 lbfgs" in err
    assert "2/2" in err


# ----------------------------------------------------------------------------------- interruption and failure


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_control_c_in_the_callback_returns_the_picture_reached(paint, optimizer):
    told = []

    def callback(progress):
        told.append(progress.image)
        if progress.iteration == 2:
            raise KeyboardInterrupt

    result = paint(iterations=50, optimizer=optimizer, callback=callback)
    assert result.interrupted
    assert len(result.history) == 2
    assert torch.equal(result.image, told[-1])
    assert result.describe()["interrupted"] is True


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "gradient_descent", "langevin"])
def test_a_real_interrupt_in_the_middle_of_a_step(net, picture, optimizer):
    def interrupt(terms):
        signal.raise_signal(signal.SIGINT)  # what the terminal sends for Ctrl-C
        for _ in range(10**7):  # with other threads about, Python may see to it some instructions later
            pass
        return terms

    content = picture(12, 12, 1)
    settings = replace(SHALLOW, iterations=50, optimizer=optimizer)
    shown = []
    objective = Acting(net, content, picture(12, 12, 2), settings, at=4, action=interrupt)
    result = minimize(objective, content, callback=lambda p: shown.append(p.image), progress=False)
    assert result.interrupted
    assert objective.count == 4
    assert [row["iteration"] for row in result.history] == [1, 2, 3]
    assert torch.equal(result.image, shown[-1])  # the fourth step has not moved the picture


def test_an_interrupt_before_the_first_step_gives_the_start(net, picture):
    def interrupt(terms):
        raise KeyboardInterrupt

    content = picture(12, 12, 1)
    objective = Acting(net, content, picture(12, 12, 2), SHALLOW, at=1, action=interrupt)
    result = minimize(objective, content, progress=False)
    assert result.interrupted
    assert result.history == []
    assert result.seconds == 0
    assert torch.equal(result.image, content)
    assert json.loads(json.dumps(result.describe()))["interrupted"] is True


@pytest.mark.parametrize("optimizer", ["lbfgs", "langevin"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_the_last_good_picture(net, picture, optimizer, value):
    content = picture(12, 12, 1)
    settings = replace(SHALLOW, iterations=50, optimizer=optimizer)
    shown = []
    objective = Acting(
        net, content, picture(12, 12, 2), settings, at=4,
        action=lambda terms: {**terms, "total": terms["total"] * 0 + value},
    )  # fmt: skip
    with pytest.raises(
        OptimizationError, match=r"not a number at iteration 4: lower the learning rate"
    ) as caught:
        minimize(objective, content, callback=lambda p: shown.append(p.image), progress=False)
    result = caught.value.result
    assert len(result.history) == 3
    assert all(math.isfinite(number) for row in result.history for number in row.values())
    assert torch.isfinite(result.image).all()
    assert 0 <= result.image.min() <= result.image.max() <= 1
    # The picture of the last finite loss, that is, before the step that led to the NaN.
    assert torch.equal(result.image, shown[1])


def test_weights_too_large_for_the_format_give_the_start_back(paint, picture):
    content = picture(12, 12, 1)
    with pytest.raises(OptimizationError, match="iteration 1") as caught:
        paint(content=content, style_weight=3e38, style_normalization="as_printed")
    assert torch.equal(caught.value.result.image, content)
    assert caught.value.result.history == []


def test_a_step_into_nothing_at_the_very_end_is_not_shown(picture):
    # The loss is finite, its gradient is not: sqrt has an infinite slope at 0.
    target = picture(5, 5, 1)
    bad = Acting(
        Pixels(), target, None, Settings(optimizer="adam", iterations=3), at=3,
        action=lambda terms: {**terms, "total": (terms["total"] - terms["total"].detach()).sqrt()},
    )  # fmt: skip
    start = torch.full_like(target, 0.5)
    shown = []
    result = minimize(bad, start, callback=lambda p: shown.append(p.image), progress=False)
    assert len(result.history) == 3
    assert torch.isfinite(result.image).all()
    assert torch.equal(result.image, shown[1])


# -------------------------------------------------------------------------------------------------- settings

BAD = [
    ({"iterations": 0}, "iterations should be greater than or equal to 1, not 0"),
    ({"content_weight": math.nan}, "content_weight should be a finite number, not nan"),
    ({"tv_weight": "little"}, "tv_weight should be a valid number, .*not 'little'"),
    ({"optimizer": "LBFGS"}, "optimizer should be 'lbfgs', .* or 'annealing', not 'LBFGS'"),
    (
        {"style_distance": "wasserstein2", "style_normalization": "gatys_paper"},
        r"leave style_normalization 'relative' with style_distance='wasserstein2'",
    ),
    ({"smallest": 15}, "smallest should be greater than or equal to 16, not 15"),
    ({"coarse_iterations": (10, 0)}, "coarse_iterations should be .*"),
    ({"size_factor": 1.0}, r"size_factor should be greater than or equal to 1\.1, not 1\.0"),
    ({"tile": 100}, "tile should be a multiple of 16, not 100"),
    ({"style_layers": "relu1_1"}, "style_layers should be a valid tuple, not 'relu1_1'"),
    ({"style_layers": ("relu1_1", "relu1_1")}, r"style_layers names a layer twice: name each once"),
    ({"style_normalization": "gram"}, r"There is no style normalization 'gram': choose one of as_printed"),
    ({"layer_weights": (1.0, 2.0)}, r"5 style layers need as many layer_weights, not 2"),
    ({"layer_weights": (-1.0, 1.0, 1.0, 1.0, 1.0)}, r"layer_weights .*-1"),
    ({"learning_rate": 0.0}, r"learning_rate should be greater than 0, not 0\.0"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD, ids=[str(bad) for bad, _ in BAD])
def test_a_bad_setting_is_one_sentence(paint, bad, sentence):
    with pytest.raises(SettingError, match=sentence) as caught:
        Settings(**bad)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    changes = {"layer_weights": (1.0,)} if "layer_weights" in bad else bad
    with pytest.raises(SettingError):
        paint(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": "vgg13"}, r"network should be 'vgg19', 'vgg16' or 'alexnet', not 'vgg13'"),
        ({"pooling": "avg"}, r"pooling is 'max' or 'average', not 'avg'"),
        ({"style_layers": ("relu1_1", "relu3_5")}, r"vgg19 has no layer 'relu3_5'"),
        ({"content_layers": ("conv9_1",)}, r"vgg19 has no layer 'conv9_1'"),
        ({"precision": "int4"}, r"not 'int4'"),
        ({"device": "abacus"}, r"'abacus' is no device"),
    ],
)
def test_what_only_the_network_knows_is_one_sentence_too(random_networks, picture, changes, sentence):
    with pytest.raises(SettingError, match=sentence):
        stylize(picture(16, 16), picture(16, 16), progress=False, **changes)
    assert random_networks == []


def test_unknown_settings_are_named_together_with_the_known_ones(paint):
    with pytest.raises(
        SettingError, match=r"no setting 'iteration', 'stile_weight': they are network"
    ) as caught:
        paint(stile_weight=3, iteration=4)
    assert all(field.name in str(caught.value) for field in fields(Settings))


def test_layers_are_tuples_and_empty_means_the_networks_own():
    settings = Settings(content_layers=["relu3_1"], style_layers=[])
    assert settings.content_layers == ("relu3_1",)
    assert settings.style_layers == ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    weighted = Settings(layer_weights=[1.0, 2.0, 3.0, 4.0, 5.0])  # as JSON gives settings back
    assert hash(weighted) == hash(Settings(layer_weights=(1.0, 2.0, 3.0, 4.0, 5.0)))
    assert hash(settings) == hash(Settings(content_layers=("relu3_1",)))


def test_every_network_has_layers_of_its_own():
    # `nst stylize --network alexnet` makes its settings exactly so.
    settings = Settings(network="alexnet")
    assert settings.content_layers == ("relu3",)
    assert settings.style_layers == ("relu1", "relu2", "relu3", "relu4", "relu5")
    for network in ("vgg16", "vgg19"):
        assert Settings(network=network).content_layers == ("relu4_2",)


def test_a_change_of_network_resets_the_layers(random_networks, picture):
    content, style = picture(33, 37, 1), picture(40, 35, 2)
    options = {"network": "alexnet", "iterations": 1, "progress": False, "device": "cpu"}
    result = stylize(content, style, SHALLOW, **options)
    assert random_networks == ["alexnet"]
    assert result.settings.content_layers == ("relu3",)
    assert result.settings.style_layers == ("relu1", "relu2", "relu3", "relu4", "relu5")
    assert {f"style/relu{i}" for i in range(1, 6)} < set(result.history[0])
    mixed = stylize(content, style, SHALLOW, content_layers=("relu2",), **options)
    assert mixed.settings.content_layers == ("relu2",)
    same = stylize(content, style, SHALLOW, network="vgg16", iterations=1, progress=False, device="cpu")
    assert same.settings.content_layers == SHALLOW.content_layers


def test_changes_win_over_the_settings_and_leave_them_alone(paint):
    result = paint(iterations=2, style_weight=3.0)
    assert result.settings == replace(SHALLOW, iterations=2, style_weight=3.0)
    assert SHALLOW.iterations == 4


def test_describe_can_be_saved_with_the_picture(paint, tmp_path):
    result = paint(iterations=2, layer_weights=(1.0, 2.0))
    description = result.describe()
    text = json.dumps(description, allow_nan=False)
    assert json.loads(text)["style_layers"] == ["relu1_1", "relu2_1"]
    assert description["method"] == "gatys"
    assert description["final"] == result.history[-1]
    assert description["final"]["iteration"] == 2
    assert set(asdict(result.settings)) < set(description)
    images.save_image(result.image, tmp_path / "out.png", settings=description)
    assert images.read_settings(tmp_path / "out.png") == json.loads(text)


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
