"""Johnson's network: the published layout and numbers; trained at a tiny size, kept, loaded, refused."""

from __future__ import annotations

import json
import math
import os
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from conftest import make_weights
from safetensors import safe_open
from torch import Tensor, nn

from nstlib import assets, nets
from nstlib.assets.weights import read_weights
from nstlib.errors import AssetError, ImageError, OptimizationError, SettingError
from nstlib.methods.johnson import (
    AS_PRINTED,
    AS_RELEASED,
    SHIPPED,
    Johnson,
    Settings,
    TransferTask,
)
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.johnson import (
    ConvLayer,
    ResidualBlock,
    TransformNet,
    UpsampleConvLayer,
    from_official,
)
from nstlib.pictures import files as images
from nstlib.pictures.color import luminance_only
from nstlib.training import Pictures, Schedule, train

PARITY = Path(__file__).resolve().parents[2] / "shared/parity"


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def one_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def published_layout(width=32, blocks=5) -> dict[str, tuple[int, ...]]:
    """Name -> shape, in the published order; written down a second time, on purpose."""
    layout: dict[str, tuple[int, ...]] = {}

    def conv(name, inputs, outputs, kernel):
        layout[f"{name}.conv2d.weight"] = (outputs, inputs, kernel, kernel)
        layout[f"{name}.conv2d.bias"] = (outputs,)

    def norm(name, channels):
        layout[f"{name}.weight"] = layout[f"{name}.bias"] = (channels,)

    w = width
    for index, (inputs, outputs, kernel) in enumerate(((3, w, 9), (w, 2 * w, 3), (2 * w, 4 * w, 3)), 1):
        conv(f"conv{index}", inputs, outputs, kernel)
        norm(f"in{index}", outputs)
    for block in range(1, blocks + 1):
        for half in (1, 2):
            conv(f"res{block}.conv{half}", 4 * w, 4 * w, 3)
            norm(f"res{block}.in{half}", 4 * w)
    for index, (inputs, outputs) in enumerate(((4 * w, 2 * w), (2 * w, w)), 1):
        conv(f"deconv{index}", inputs, outputs, 3)
        norm(f"in{index + 3}", outputs)
    conv("deconv3", w, 3, 9)
    return layout


def drawn(key: str, shape: tuple[int, ...]) -> Tensor:
    """The weight that belongs to a key, whichever network asks: see ../shared/parity/README.md."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()) % (2**31 - 1))
    z = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return z * math.sqrt(2 / math.prod(shape[1:]))
    return 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z


def official(width=32, blocks=5) -> dict[str, Tensor]:
    return {key: drawn(key, shape) for key, shape in published_layout(width, blocks).items()}


def by_hand(tensors: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """The published network's forward pass, from its description, one layer of torch after the other."""

    def conv(x, name, stride=1, enlarge=False):
        weight = tensors[f"{name}.conv2d.weight"]
        if enlarge:
            x = nn.UpsamplingNearest2d(scale_factor=2)(x)
        x = nn.ReflectionPad2d(weight.shape[-1] // 2)(x)
        return F.conv2d(x, weight, tensors[f"{name}.conv2d.bias"], stride)

    def norm(x, name):
        mean = x.mean((2, 3), keepdim=True)
        variance = (x - mean).square().mean((2, 3), keepdim=True)
        weight, bias = (tensors[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = norm(conv(x, "conv1"), "in1").relu()
    x = norm(conv(x, "conv2", 2), "in2").relu()
    x = norm(conv(x, "conv3", 2), "in3").relu()
    for block in (f"res{index}" for index in range(1, blocks + 1)):
        inner = norm(conv(x, f"{block}.conv1"), f"{block}.in1").relu()
        x = x + norm(conv(inner, f"{block}.conv2"), f"{block}.in2")
    x = norm(conv(x, "deconv1", enlarge=True), "in4").relu()
    x = norm(conv(x, "deconv2", enlarge=True), "in5").relu()
    return conv(x, "deconv3")


# ------------------------------------------------------------------------------------------ the layout


def test_the_state_dict_has_the_published_names_and_shapes():
    state = TransformNet().state_dict()
    assert [(name, tuple(tensor.shape)) for name, tensor in state.items()] == [*published_layout().items()]
    assert len(state) == 62
    assert sum(tensor.numel() for tensor in state.values()) == 1_679_235


needs_parity = pytest.mark.skipif(
    not (PARITY / "fns_transformer_io.pt").exists(), reason="the published network is not in ../shared"
)


@needs_parity
def test_the_layout_is_that_of_the_published_file():
    lines = (PARITY / "fns_transformer_keys.txt").read_text().splitlines()[1:]
    assert [tuple(line.split("\t")) for line in lines] == [
        (name, str(shape), "float32") for name, shape in published_layout().items()
    ]


@needs_parity
def test_the_output_is_that_of_the_published_network():
    recorded = torch.load(PARITY / "fns_transformer_io.pt")
    made = nets.from_official("fns_transformer", official())(recorded["x"])
    assert made.shape == recorded["y"].shape
    assert float((made - recorded["y"]).abs().max() / recorded["y"].abs().max()) < 1e-5


@pytest.mark.parametrize(("width", "blocks", "size"), [(4, 2, (20, 28)), (3, 1, (17, 34)), (5, 0, (16, 16))])
def test_the_forward_pass_is_the_published_one(width, blocks, size):
    tensors = official(width, blocks)
    x = 255 * rand(2, 3, *size)
    net = from_official(tensors).double()
    expected = by_hand({key: t.double() for key, t in tensors.items()}, x.double(), blocks)
    assert expected.shape[-2:] == tuple(4 * math.ceil(side / 4) for side in size)
    torch.testing.assert_close(net(x.double()), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(net.float()(x), expected.float(), rtol=1e-4, atol=1e-4)


def test_official_weights_give_a_frozen_network_in_evaluation_mode():
    tensors = official(4, 2)
    net = from_official(tensors)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in tensors.items())
    before = tensors["in1.weight"].clone()
    net.in1.weight += 1
    assert torch.equal(tensors["in1.weight"], before)


@pytest.mark.parametrize(("width", "blocks"), [(32, 5), (8, 2), (1, 0), (3, 11)])
def test_width_and_blocks_are_read_off_the_weights(width, blocks):
    layout = published_layout(width, blocks)
    net = from_official({key: torch.zeros(shape) for key, shape in layout.items()})
    assert (net.width, net.blocks, net.normalization) == (width, blocks, "instance")


def test_files_of_2017_and_of_several_processors_are_taken(recwarn):
    tensors = official(4, 2)
    channels = {"in1": 4, "in2": 8, "in3": 16, "res1.in1": 16, "in5": 4}
    old = {f"{key}.running_{kind}": torch.ones(n) for key, n in channels.items() for kind in ("mean", "var")}
    x = 255 * rand(1, 3, 16, 20)
    expected = from_official(tensors)(x)
    for other in (
        tensors | old,
        {f"module.{key}": tensor for key, tensor in (tensors | old).items()},
        dict(reversed(tensors.items())),
    ):
        assert torch.equal(from_official(other)(x), expected)
    half = from_official({key: tensor.half() for key, tensor in tensors.items()})
    assert {p.dtype for p in half.parameters()} == {torch.float32}


def test_batch_normalization_is_told_by_its_counters():
    torch.manual_seed(0)
    net = TransformNet(4, 1, "batch")
    for _ in range(3):
        net(255 * rand(2, 3, 16, 16))
    net.eval()
    state = net.state_dict()
    again = from_official(state)
    assert again.normalization == "batch"
    x = 255 * rand(1, 3, 20, 16, seed=1)
    assert torch.equal(again(x), net(x))
    with pytest.raises(SettingError, match="not those of a transformation network"):
        from_official({key: tensor for key, tensor in state.items() if "running" not in key})


def _without(*keys):
    return lambda w: {key: tensor for key, tensor in w.items() if key not in keys}


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {},
        lambda w: {"weight": torch.ones(2)},
        _without("conv1.conv2d.weight"),
        _without("deconv3.conv2d.bias"),
        lambda w: w | {"res2.in1.weight": torch.ones(3)},
        lambda w: w | {"conv1.conv2d.weight": torch.ones(4)},
        lambda w: w | {"conv1.conv2d.weight": "text"},
        lambda w: w | {"in1.weight": "text"},
        lambda w: w | {"res4.conv1.conv2d.weight": torch.ones(16, 16, 3, 3)},
        lambda w: w | {"head.weight": torch.ones(3)},
        lambda w: {key.replace("res1", "res3"): tensor for key, tensor in w.items()},
        lambda w: {f"net.{key}": tensor for key, tensor in w.items()},
    ],
    ids=["empty", "other", "first", "last", "shape", "flat", "no tensor", "text", "gap", "more", "numbers",
         "prefix"],
)  # fmt: skip
def test_other_weights_are_refused_in_one_sentence(change):
    with pytest.raises(SettingError, match="not those of a transformation network of Johnson") as caught:
        from_official(change(official(4, 2)))
    one_sentence(caught)


def test_an_unknown_normalization_is_one_sentence():
    with pytest.raises(SettingError, match="normalization is 'instance' or 'batch', not 'layer'") as caught:
        TransformNet(4, 1, "layer")
    one_sentence(caught)


# ------------------------------------------------------------------------------------------ the layers


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1), (1, 8), (9, 1), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_four_kernels_are_nearest_neighbors_reflection_and_a_convolution(size, bias):
    torch.manual_seed(1)
    layer = UpsampleConvLayer(3, 5).double()
    if not bias:
        layer.conv2d.bias = None
    plain = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1), layer.conv2d)
    weigh = torch.randn(2, 5, 2 * size[0], 2 * size[1], dtype=torch.float64)
    found = []
    for way in (layer, plain):
        x = torch.randn(
            2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
        ).requires_grad_()
        made = way(x)
        layer.zero_grad()
        (made * weigh).sum().backward()
        found.append([made.detach(), x.grad, *(p.grad.clone() for p in layer.conv2d.parameters())])
    assert len(found[0]) == (4 if bias else 3)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_four_kernels_in_float32_channels_last_and_twice_differentiated():
    torch.manual_seed(1)
    layer = UpsampleConvLayer(3, 4)
    plain = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1), layer.conv2d)
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-6)
    last = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain(x), rtol=1e-5, atol=1e-6)
    layer.double()
    assert torch.autograd.gradgradcheck(
        layer, torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    )


@pytest.mark.parametrize(("kernel", "stride"), [(9, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("size", [(12, 13), (5, 9)])
def test_borders_are_reflected(kernel, stride, size):
    torch.manual_seed(1)
    layer = ConvLayer(2, 3, kernel, stride).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    pad = kernel // 2
    rows, columns = (
        torch.tensor([pad - i if i < pad else i - pad if i < n + pad else 2 * n - 2 - (i - pad) for i in
                      range(n + 2 * pad)])
        for n in size
    )  # fmt: skip
    expected = F.conv2d(x[..., rows, :][..., columns], layer.conv2d.weight, layer.conv2d.bias, stride)
    made = layer(x)
    assert made.shape[-2:] == tuple(math.ceil(side / stride) for side in size)
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)


def test_a_flat_picture_gets_no_frame():
    net = from_official(official(4, 2)).double()
    made = net(torch.full((1, 3, 24, 32), 120.0, dtype=torch.float64))
    assert float((made.amax((2, 3)) - made.amin((2, 3))).max()) < 1e-9
    assert float(made.std()) > 1e-3  # its channels differ


def test_the_residual_block_adds_what_came_in():
    block = ResidualBlock(4, nn.InstanceNorm2d)
    nn.init.zeros_(block.in2.weight)
    nn.init.zeros_(block.in2.bias)
    x = torch.randn(2, 4, 6, 7)  # negative values, too: nothing follows the sum
    assert torch.equal(block(x), x)


def test_pictures_of_a_batch_do_not_mix_but_under_batch_normalization():
    x = 255 * rand(3, 3, 16, 20)
    net = from_official(official(4, 2))
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-4)
    torch.manual_seed(0)
    batch = TransformNet(4, 1, "batch")
    assert not torch.allclose(batch(x)[1:2], batch(x[1:2]), atol=1e-2)
    assert int(batch.in1.num_batches_tracked) == 2


# -------------------------------------------------------------------------------------------- learning

LAYERS = Settings().style_layers
# Two layers, because the others would take most of the time; tests of the losses take all four.
SMALL = Settings(size=24, width=4, learning_rate=2e-3, style_size=32, style_layers=LAYERS[:2])
OPTIONS = {"device": "cpu", "precision": "float32"}


def made_of(weights=None, settings=None, **options):
    """A method with weights of its own: a state dict, a file, a shipped style, or None."""
    if isinstance(weights, str | Path):
        return Johnson.load(weights, **options)
    method = Johnson(settings, **options)
    if weights is not None:
        method.load_state(weights)
    return method


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """VGG-16's weights, at random."""
    return make_weights("vgg16")


@pytest.fixture
def networks(monkeypatch, tensors):
    """Random weights instead of the asset's."""
    monkeypatch.setattr(assets, "load_tensors", lambda name, **_: tensors)


@pytest.fixture(scope="module")
def faces() -> Tensor:
    return F.interpolate(rand(5, 3, 5, 5, seed=7), (40, 36), mode="bilinear")


@pytest.fixture(scope="module")
def style() -> Tensor:
    """Stripes of two colors."""
    stripes = (torch.arange(32) // 3 % 2).float().expand(32, 32)
    return torch.stack([stripes, 1 - stripes, 0.5 * stripes])[None]


@pytest.fixture
def fit(networks, faces, style):
    """``fit(steps, folder, settings, ...)``: a method that has learned, and the training's result."""

    def work(
        steps=6, folder=None, settings=SMALL, weights=None, batch=2, average=0.0, styles=None, **options
    ):
        method = made_of(weights, settings=settings, **OPTIONS)
        schedule = Schedule(steps, batch, average=average, seed=options.pop("seed", 0))
        options = {"faces": faces, "progress": False, **options}
        given = style if styles is None else styles
        result = method.fit(options.pop("faces"), given, schedule=schedule, folder=folder, **options)
        return method, result

    return work


@pytest.fixture
def task(tensors, faces, style):
    """``task(settings, ...)``: one training task of a small network."""

    def make(settings=SMALL, styles=None, steps=8, crops=None):
        torch.manual_seed(3)
        net = TransformNet(settings.width, normalization=settings.normalization)
        pictures = crops or Pictures(faces, settings.size, zoom=settings.zoom)
        return TransferTask(net, pictures, styles or [style], settings, steps, tensors=tensors, **OPTIONS)

    return make


def gram(features):
    columns = features.flatten(2)
    return columns @ columns.mT / features[0].numel()


@pytest.mark.parametrize("content", ["relu2_2", "relu3_3", "relu1_1"])
def test_the_losses_are_those_computed_by_hand(task, tensors, style, content):
    settings = SMALL.changed(
        content_layer=content, content_weight=3.0, style_weight=50.0, tv_weight=0.7, style_layers=LAYERS
    )
    other = rand(1, 3, 24, 28, seed=4)
    made, contents = rand(2, 3, 32, 32, seed=1), rand(2, 3, 32, 32, seed=2)
    losses = task(settings, [style, other]).losses(made, contents)
    see = FeatureExtractor("vgg16", [*LAYERS, content], tensors=tensors, **OPTIONS)
    of_made, of_contents, *of_styles = see(made), see(contents), see(style), see(other)
    by_hand = {
        "content": 3 * (of_made[content] - of_contents[content]).square().mean(),
        "style": 50 * sum(
            (gram(of_made[k]) - (gram(of_styles[0][k]) + gram(of_styles[1][k])) / 2).square().mean()
            for k in LAYERS
        ),
        "tv": 0.7 * (made.diff(dim=2).abs().mean() + made.diff(dim=3).abs().mean()),
    }  # fmt: skip
    assert list(losses) == ["total", "content", "style", "tv"]
    for name, value in by_hand.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4)
    assert losses["total"].item() == pytest.approx(sum(v.item() for v in by_hand.values()), rel=1e-4)


def test_a_picture_in_the_style_has_no_loss(task, style):
    losses = task(SMALL.changed(content_weight=2.0)).losses(style, style)
    assert losses["content"] == losses["tv"] == 0
    assert losses["style"].item() == pytest.approx(0, abs=1e-6)


def test_steps_make_the_loss_smaller_and_the_networks_picture_is_what_is_judged(task):
    learning = task(SMALL.changed(learning_rate=5e-3))
    contents, seen = [], []
    judge = learning.losses
    learning.losses = lambda made, of: (contents.append(of), seen.append(made), judge(made, of))[2]
    first = (learning.modules["net"](255 * learning.batch(range(2))) / 255).detach()
    result = train(learning, Schedule(16, 2), progress=False, **OPTIONS)
    torch.testing.assert_close(seen[0].detach(), first)
    assert torch.equal(contents[0], learning.batch(range(2)))
    totals = [row["total"] for row in result.history]
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])
    assert list(result.history[0]) == ["step", "seconds", "total", "content", "style", "tv"]


@pytest.mark.parametrize("decay", [1.0, 0.1])
def test_the_learning_rate_falls_as_a_cosine(task, decay):
    learning = task(SMALL.changed(decay=decay), steps=8)
    rates = []

    def callback(progress):
        rates.append([group["lr"] for group in learning.optimizers["main"].param_groups])

    train(learning, Schedule(8, 1), progress=False, callback=callback, **OPTIONS)
    assert learning.optimizers["main"].param_groups[1]["params"] == list(
        learning.modules["net"].deconv3.parameters()
    )
    expected = [2e-3 * (decay + (1 - decay) * (1 + math.cos(math.pi * n / 8)) / 2) for n in range(8)]
    assert [body for body, _ in rates] == pytest.approx(expected)
    assert [head for _, head in rates] == pytest.approx([16 * rate for rate in expected])
    assert rates[0][0] == 2e-3
    if decay < 1:
        assert rates[-1][0] < 0.15 * rates[0][0]


def test_every_weight_learns_and_the_loss_network_does_not(task):
    learning = task()
    before = {key: t.clone() for key, t in learning.modules["net"].state_dict().items()}
    vgg = {key: t.clone() for key, t in learning.features.state_dict().items()}
    train(learning, Schedule(2, 2), progress=False, **OPTIONS)
    assert not [key for key, t in learning.modules["net"].state_dict().items() if torch.equal(t, before[key])]
    assert all(torch.equal(t, vgg[key]) for key, t in learning.features.state_dict().items())


def test_fit_then_stylize(fit):
    method, result = fit(6, settings=SMALL.changed(style_layers=LAYERS))
    assert result.step == 6
    assert not method.net.training
    assert not any(p.requires_grad for p in method.net.parameters())
    assert method.about["steps"] == 6
    assert method.about["settings"]["style_weight"] == 1e5
    assert set(method.about["losses"]) == {"total", "content", "style", "tv"}
    assert method.about["pictures"] == 5
    content = rand(1, 3, 24, 20, seed=9)
    made = method.stylize(content)
    assert made.shape == content.shape
    assert made.std() > 0.01
    assert torch.equal(method.stylize(content, rand(1, 3, 20, 20)), made)  # one style, whatever is given


def test_the_average_is_kept_where_there_is_one(fit):
    method, result = fit(5, average=0.9)
    state = method.net.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in result.averages["net"].items())
    last, _ = fit(5)
    assert any(not torch.equal(tensor, state[key]) for key, tensor in last.net.state_dict().items())


def test_another_seed_and_another_style_are_another_training(fit, style):
    once, again = fit(3)[1].history, fit(3)[1].history
    assert [row["total"] for row in once] == [row["total"] for row in again]
    for other in (
        {"seed": 1},
        {"styles": style.flip(1)},
        {"settings": SMALL.changed(content_layer="relu3_3")},
    ):
        assert fit(3, **other)[1].history[2]["total"] != once[2]["total"]


def test_an_untrained_network_depends_on_its_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = made_of(settings=SMALL, **OPTIONS).net.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = (made_of(settings=SMALL, seed=seed, **OPTIONS).net.state_dict() for seed in (0, 1))
    assert all(torch.equal(tensor, same[key]) for key, tensor in one.items())
    assert not torch.equal(one["conv1.conv2d.weight"], other["conv1.conv2d.weight"])


def test_an_untrained_network_begins_with_gray_pictures(picture):
    made = made_of(settings=Settings(width=8), **OPTIONS).stylize(picture(32, 32))
    assert 0.35 < made.mean() < 0.65
    assert 0.05 < made.std() < 0.4


@pytest.mark.parametrize("size", [17, 18, 31])
def test_crops_of_any_size_can_be_learned_from(fit, size):
    _, result = fit(2, settings=SMALL.changed(size=size))
    assert all(math.isfinite(row["total"]) for row in result.history)


def test_several_styles_are_one_mean_of_gram_matrices(fit, style):
    other = rand(1, 3, 32, 32, seed=8)
    listed = fit(2, styles=[style, other])[1].history
    batched = fit(2, styles=torch.cat([style, other]))[1].history
    alone = fit(2, styles=style)[1].history
    assert [row["style"] for row in batched] == [row["style"] for row in listed]
    assert listed[0]["style"] != alone[0]["style"]


def test_batch_normalization_learns_is_kept_and_paints_pictures_alone(fit, tmp_path):
    settings = SMALL.changed(normalization="batch", content_layer="relu3_3")
    method, _ = fit(6, settings=settings, average=0.5)
    assert int(method.net.in1.num_batches_tracked) == 6
    content = rand(2, 3, 20, 24, seed=9)
    made = method.stylize(content)
    torch.testing.assert_close(method.stylize(content[1:]), made[1:], rtol=0, atol=1e-4)
    again = made_of(method.save(tmp_path / "batch.safetensors"), **OPTIONS)
    assert again.net.normalization == "batch"
    torch.testing.assert_close(again.stylize(content), made, rtol=0, atol=0.02)


def test_the_variances_of_batch_normalization_may_be_larger_than_float16_holds(fit, tmp_path):
    method, _ = fit(1, settings=SMALL.changed(normalization="batch"))
    with torch.no_grad():
        method.net.in1.running_var.fill_(3e5)
        method.net.in1.num_batches_tracked.fill_(100_003)
    method = made_of(method.net.state_dict(), **OPTIONS)
    again = made_of(method.save(tmp_path / "batch.safetensors"), **OPTIONS)
    assert torch.equal(again.net.in1.running_var, torch.full((4,), 3e5))
    assert int(again.net.in1.num_batches_tracked) == 100_003
    content = rand(1, 3, 20, 24, seed=9)
    torch.testing.assert_close(again.stylize(content), method.stylize(content), rtol=0, atol=0.02)


def test_another_styles_weights_are_a_beginning(fit):
    first, _ = fit(3)
    state = {key: tensor.clone() for key, tensor in first.net.state_dict().items()}
    method, result = fit(1, weights=state)
    assert all((method.net.state_dict()[key] - t).abs().max() < 0.04 for key, t in state.items())
    assert result.history[0]["total"] < fit(1)[1].history[0]["total"]


def test_bfloat16_learns_too_and_leaves_no_trace(networks, faces, style):
    method = made_of(settings=SMALL.changed(size=16), device="cpu", precision="bfloat16")
    for _ in range(2):
        result = method.fit(faces, style, schedule=Schedule(1, 1), progress=False)
        assert math.isfinite(result.history[-1]["total"])
    assert "forward" not in vars(method.net)
    assert {p.dtype for p in method.net.parameters()} == {torch.bfloat16}
    made = method.stylize(rand(1, 3, 20, 24))
    assert made.dtype == torch.float32


# --------------------------------------------------------------------------------- broken off, gone on


def test_a_fit_goes_on_to_the_same_weights(fit, tmp_path):
    options = {"settings": SMALL.changed(decay=0.1, normalization="batch"), "average": 0.9}
    whole, expected = fit(9, **options)
    folder = tmp_path / "run"
    for at in (2, 5, 6):
        torch.manual_seed(at)  # nothing may hang on it
        method, result = fit(9, folder, callback=lambda p, at=at: p.step < at, **options)
        assert result.step == at
        assert method.about["steps"] == at
    method, result = fit(9, folder, **options)
    assert [row["total"] for row in result.history] == [row["total"] for row in expected.history]
    for key, tensor in whole.net.state_dict().items():
        assert torch.equal(method.net.state_dict()[key], tensor), key


def test_after_an_error_the_network_can_paint(fit, faces, style, tmp_path):
    method = made_of(settings=SMALL, **OPTIONS)

    def callback(progress):
        if progress.step == 2:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        method.fit(
            faces, style, schedule=Schedule(4, 2), folder=tmp_path / "run", progress=False, callback=callback
        )
    assert not method.net.training
    assert method.stylize(rand(1, 3, 17, 20)).shape == (1, 3, 17, 20)


def test_a_learning_rate_that_bursts_is_one_sentence(fit, tmp_path):
    with pytest.raises(OptimizationError, match="loss is not a number at step") as caught:
        fit(30, tmp_path / "run", SMALL.changed(learning_rate=1e18))
    one_sentence(caught)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"settings": SMALL.changed(style_weight=2.0)}, "style_weight 100000.0 there, 2.0 here"),
        ({"settings": SMALL.changed(zoom=(0.6, 1.0))}, "zoom"),
        ({"settings": SMALL.changed(decay=0.5)}, "decay"),
        ({"styles": rand(1, 3, 32, 32, seed=8)}, "style"),
        ({"faces": rand(4, 3, 40, 36)}, "pictures 5 there, 4 here"),
        ({"faces": Pictures(rand(5, 3, 40, 36), 28)}, "crops"),
        ({"faces": Pictures(rand(5, 3, 40, 36), 24, flip=False)}, "crops"),
        ({"faces": Pictures(rand(5, 3, 40, 36), 24, seed=4)}, "crops"),
        ({"batch": 1}, "batch 2 there, 1 here"),
        ({"seed": 3}, "seed 0 there, 3 here"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_training_in_the_folder_is_named(fit, tmp_path, change, word):
    fit(1, tmp_path / "run")
    with pytest.raises(SettingError, match="holds a training with other settings") as caught:
        fit(2, tmp_path / "run", **change)
    assert word in one_sentence(caught)


def test_with_a_falling_rate_another_end_is_another_training(fit, tmp_path):
    fit(2, tmp_path / "level")
    assert fit(3, tmp_path / "level")[1].step == 3
    falling = SMALL.changed(decay=0.1)
    fit(2, tmp_path / "falling", falling)
    with pytest.raises(SettingError, match="until 2 there, 3 here"):
        fit(3, tmp_path / "falling", falling)


# ------------------------------------------------------------------------------------------- stylizing


@pytest.fixture(scope="module")
def net() -> dict[str, Tensor]:
    """Weights whose pictures fill [0, 255]."""
    tensors = official(4, 2)
    tensors["deconv3.conv2d.weight"] *= 30
    tensors["deconv3.conv2d.bias"] += 128
    return tensors


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (33, 17), (40, 23), (19, 18), (64, 16)])
@pytest.mark.parametrize("count", [1, 3])
def test_any_size_comes_back(net, size, count):
    content = rand(count, 3, *size)
    made = made_of(net, **OPTIONS).stylize(content)
    assert made.shape == content.shape
    assert made.dtype == torch.float32
    assert not made.requires_grad
    assert 0 <= made.min() < made.max() <= 1


def test_the_picture_is_the_networks_at_its_own_place(net):
    method = made_of(net, **OPTIONS)
    content = rand(2, 3, 20, 24)
    expected = (from_official(net)(255 * content) / 255).clamp(0, 1)
    torch.testing.assert_close(method.stylize(content), expected, rtol=0, atol=1e-5)
    odd = content[..., :19, :22]
    reflected = F.pad(odd, (0, 2, 0, 1), mode="reflect")
    expected = (from_official(net)(255 * reflected) / 255).clamp(0, 1)[..., :19, :22]
    torch.testing.assert_close(method.stylize(odd), expected, rtol=0, atol=1e-5)


def test_the_content_is_not_changed(net):
    content = rand(1, 3, 17, 20)
    before = content.clone()
    made_of(net, **OPTIONS).stylize(content)
    assert torch.equal(content, before)


def test_luminance_keeps_the_contents_colors(net):
    content = 0.25 + 0.5 * rand(2, 3, 21, 24)
    made = made_of(net, **OPTIONS).stylize(content)
    kept = made_of(net, **OPTIONS).stylize(content, keep_colors=True)
    for index in range(2):
        expected = luminance_only(made[index : index + 1], content[index : index + 1])
        torch.testing.assert_close(kept[index : index + 1], expected, rtol=0, atol=1e-6)
    unclipped = ((kept > 0) & (kept < 1)).all(1)
    assert unclipped.float().mean() > 0.3
    chroma = [(p[:, 0] - p[:, 2])[unclipped] for p in (kept, content, made)]
    torch.testing.assert_close(chroma[0], chroma[1], atol=1e-3, rtol=0)
    assert (chroma[2] - chroma[1]).abs().mean() > 0.01


def test_precisions_are_near_each_other(net):
    content = rand(1, 3, 24, 24)
    exact, half = (made_of(net, device="cpu", precision=p).stylize(content) for p in ("float64", "bfloat16"))
    torch.testing.assert_close(made_of(net, **OPTIONS).stylize(content), exact, rtol=0, atol=1e-4)
    assert 0 < (half - exact).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (rand(3, 16, 16), r"content has the shape \(N, 3, H, W\), .*not \(3, 16, 16\)"),
        (rand(1, 1, 16, 16), r"not \(1, 1, 16, 16\)"),
        (rand(1, 3, 15, 40), "content of 15 × 40 pixels is too small"),
        ("picture.png", "not a str"),
    ],
    ids=["batch", "gray", "small", "name"],
)
def test_what_is_no_picture_is_one_sentence(net, content, words):
    with pytest.raises(ImageError, match=words) as caught:
        made_of(net, **OPTIONS).stylize(content)
    one_sentence(caught)


# ---------------------------------------------------------------------------------------- what is kept


def test_saved_and_loaded_it_paints_the_same(fit, tmp_path):
    method, result = fit(3)
    path = method.save(tmp_path / "new" / "stripes.safetensors", style="stripes", learned_on="5 pictures")
    assert path.stat().st_size < 200_000
    kept = safetensors.torch.load_file(path)
    assert {t.dtype for t in kept.values()} == {torch.float16}
    assert list(path.parent.iterdir()) == [path]
    again = made_of(path, **OPTIONS)
    assert again.about == {"method": "johnson", **json.loads(json.dumps(method.about)), "style": "stripes",
                           "learned_on": "5 pictures"}  # fmt: skip
    assert again.about["losses"]["total"] == pytest.approx(result.history[-1]["total"], rel=1e-3)
    content = rand(1, 3, 24, 28)
    torch.testing.assert_close(again.stylize(content), method.stylize(content), rtol=0, atol=0.02)
    twice = made_of(again.save(tmp_path / "twice.safetensors"), **OPTIONS)
    assert torch.equal(twice.stylize(content), again.stylize(content))
    assert twice.about == again.about


def test_published_files_are_taken(net, tmp_path):
    torch.save(net, tmp_path / "mosaic.pth")
    torch.save(net, tmp_path / "old.model", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(net, tmp_path / "mosaic.safetensors")
    content = rand(1, 3, 20, 20)
    expected = made_of(net, **OPTIONS).stylize(content)
    for name in ("mosaic.pth", "old.model", "mosaic.safetensors"):
        for path in (tmp_path / name, str(tmp_path / name)):
            method = made_of(path, **OPTIONS)
            assert torch.equal(method.stylize(content), expected)
            assert method.about == {}


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def wrong_file(path, kind, net):
    torch.save(net, path)
    whole = path.read_bytes()
    if kind == "text":
        path.write_text("not a network\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "class":
        torch.save({"conv1.conv2d.weight": Malicious()}, path)
    elif kind == "module":
        torch.save(nn.Linear(2, 2), path)
    elif kind == "list":
        torch.save([torch.ones(2)], path)
    elif kind == "numbers":
        torch.save({"conv1.conv2d.weight": 3, 4: torch.ones(1)}, path)
    elif kind == "keys":
        torch.save({3: torch.ones(2), 4: torch.ones(1)}, path)
    elif kind == "other":
        torch.save({"weight": torch.ones(2)}, path)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "holds no weights that can be used: it is not a plain state dict"),
        ("empty", "holds no weights that can be used"),
        ("cut", "holds no weights that can be used"),
        ("class", "it is not a plain state dict, and nothing else is unpickled"),
        ("module", "it is not a plain state dict, and nothing else is unpickled"),
        ("list", "give a state dict, key by key"),
        ("numbers", "give a state dict, key by key"),
        ("keys", "give a state dict, key by key"),
        ("other", "not those of a transformation network"),
        ("folder", "holds no weights that can be used"),
        ("missing", r"There is no file '.*w\.pth': name one, or a style of starry_night"),
    ],
)
def test_wrong_files_are_one_sentence(net, tmp_path, monkeypatch, kind, words):
    monkeypatch.chdir(tmp_path)
    wrong_file(tmp_path / "w.pth", kind, net)
    with pytest.raises(SettingError, match=words) as caught:
        made_of(tmp_path / "w.pth", **OPTIONS)
    one_sentence(caught)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "header", "folder", "missing", "metadata"])
def test_wrong_safetensors_are_one_sentence(net, tmp_path, kind):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(net, path)
    whole = path.read_bytes()
    if kind in ("folder", "missing"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
    elif kind == "metadata":
        safetensors.torch.save_file(net, path, {"nstlib": "{no json"})
    else:
        path.write_bytes({"text": b"text", "empty": b"", "cut": whole[:-100], "header": whole[:50]}[kind])
    with pytest.raises(
        SettingError, match=r"w\.safetensors' (holds no weights|: name one)|There is no"
    ) as caught:
        read_weights(path)
    one_sentence(caught)


def test_an_unknown_style_names_those_there_are():
    with pytest.raises(
        SettingError, match=r"no file 'stary_night': name one, or a style of starry_night, the"
    ):
        made_of("stary_night", **OPTIONS)


def test_a_file_that_cannot_be_written_is_one_sentence(net, tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "w.safetensors", tmp_path):
        with pytest.raises(ImageError, match="is not saved") as caught:
            made_of(net, **OPTIONS).save(path)
        one_sentence(caught)


# ------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("styles", [[], ()])
def test_no_style_is_refused(fit, styles):
    with pytest.raises(SettingError, match="list of styles is empty: give a style picture") as caught:
        fit(1, styles=styles)
    one_sentence(caught)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"styles": rand(3, 32, 32)}, ImageError, r"style has the shape \(N, 3, H, W\), .*not \(3, 32, 32\)"),
        ({"styles": [rand(1, 3, 32, 12)]}, ImageError, "style of 32 × 12 pixels is too small"),
        ({"styles": ["a.jpg"]}, ImageError, "not a str"),
        ({"faces": "nowhere"}, ImageError, "'nowhere' is no folder"),
        ({"faces": rand(3, 32, 32)}, ImageError, "shape"),
        ({"settings": SMALL.changed(content_layer="relu9_9")}, SettingError, "relu9_9"),
        ({"settings": SMALL.changed(style_layers=("relu1_2", "relu7"))}, SettingError, "relu7"),
        ({"settings": SMALL.changed(zoom=(0.0, 1.0))}, SettingError, "zoom"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_learned_is_one_sentence(fit, options, error, words):
    with pytest.raises(error, match=words) as caught:
        fit(1, **options)
    one_sentence(caught)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content_weight", -1.0), ("style_weight", math.nan), ("tv_weight", math.inf), ("learning_rate", 0.0),
        ("learning_rate", math.nan), ("decay", 0.0), ("decay", -0.1), ("size", 15), ("style_size", 8),
        ("width", 0), ("style_layers", ()),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_one_sentence(name, value):
    for make in (Settings, Settings().changed):
        with pytest.raises(SettingError, match=name) as caught:
            make(**{name: value})
        one_sentence(caught)


def test_settings_are_changed_by_name():
    assert Settings().changed(width=8) == Settings(width=8)
    with pytest.raises(SettingError, match=r"no setting 'widht': they are style_layers, content_layer"):
        Settings().changed(widht=8)
    assert (AS_PRINTED.normalization, AS_PRINTED.content_layer) == ("batch", "relu3_3")
    assert (AS_RELEASED.normalization, AS_RELEASED.content_layer) == ("instance", "relu2_2")
    for settings in (AS_PRINTED, AS_RELEASED):
        assert settings.style_layers == ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
        assert (settings.size, settings.learning_rate) == (256, 1e-3)


# ----------------------------------------------------------------------------- what the course carries


def shipped(name: str) -> Path:
    try:
        return assets.data_path(f"weights/johnson_{name}.safetensors")
    except AssetError:
        pytest.skip(f"the network of {name} has not been trained yet")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_is_small_and_says_how_it_was_made(name):
    path = shipped(name)
    assert path.stat().st_size <= 4_000_000
    with safe_open(path, "pt") as file:
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["nstlib"])
    assert {t.dtype for t in kept.values()} == {torch.float16}
    assert all(bool(t.isfinite().all()) for t in kept.values())
    assert {key: tuple(t.shape) for key, t in kept.items()} == published_layout()
    assert about["style"] == name
    assert about["steps"] > 0
    assert about["seconds"] > 0
    assert about["settings"]["size"] >= 64
    assert all(about["losses"][part] > 0 for part in ("total", "content", "style"))
    method = made_of(name, **OPTIONS)
    assert method.about == about


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_paints_pictures_and_no_noise(name, picture):
    shipped(name)
    made = made_of(name, **OPTIONS).stylize(picture(65, 50))
    assert bool(made.isfinite().all())
    assert 0.02 < made.std() < 0.45
    assert (made == 0).float().mean() + (made == 1).float().mean() < 0.3


@pytest.mark.weights
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_brings_a_face_nearer_to_the_painting(name):
    shipped(name)
    face = images.load_image(assets.data_path("portraits/collins_face.jpg"), size=128)
    painting = images.load_image(assets.data_path(f"paintings/{name}.jpg"), size=160)
    made = made_of(name).stylize(face)
    assert bool(made.isfinite().all())
    settings = Settings()
    see = FeatureExtractor("vgg16", [*settings.style_layers, "relu2_2"])
    of = {key: see(p) for key, p in (("face", face), ("painting", painting), ("made", made))}
    for layer in settings.style_layers:
        far, near = (
            (gram(of[key][layer].float()) - gram(of["painting"][layer].float())).square().mean()
            for key in ("face", "made")
        )
        assert near < 0.7 * far, layer
    # It is still the picture of that face.
    gray = [p.mean(1).flatten() for p in (face, made)]
    assert torch.corrcoef(torch.stack(gray))[0, 1] > 0.4


def test_painting_in_bfloat16_rounds_neither_what_is_saved_nor_what_is_trained_on(tmp_path):
    torch.manual_seed(0)
    weights = TransformNet(4).state_dict()
    method = made_of(weights, device="cpu", precision="bfloat16")
    assert method.net.conv1.conv2d.weight.dtype is torch.bfloat16
    method.save(tmp_path / "net.safetensors")
    saved = made_of(tmp_path / "net.safetensors", device="cpu", precision="float32").net.state_dict()
    for key, tensor in weights.items():
        assert torch.equal(saved[key], tensor.half().float()), key
