"""StyTr2 and Puff-Net: networks and losses against plain formulas, the published answer, training."""

from __future__ import annotations

import parity
import pytest
import torch
import torch.nn.functional as F
from conftest import rand, randn, refused
from torch import nn

from nstlib import nets
from nstlib.assets import data_path
from nstlib.errors import SettingError
from nstlib.faces.style_sets import load_style_set
from nstlib.methods.puffnet import PuffNet
from nstlib.methods.puffnet import Settings as PuffSettings
from nstlib.methods.stytr2 import CONTENT_LAYERS, LAYERS, Settings, Styles, StyTr2
from nstlib.nets import puff_extractors
from nstlib.nets import transformer_style as networks
from nstlib.pictures.files import load_image
from nstlib.training import Schedule

TINY = {"size": 32, "width": 64, "layers": 1, "learning_rate": 5e-3}
CPU = {"device": "cpu", "precision": "float32"}
BOTH = pytest.mark.parametrize(
    ("kind", "settings"), [(StyTr2, Settings), (PuffNet, PuffSettings)], ids=["stytr2", "puffnet"]
)

# ------------------------------------------------------------------------------------------------- networks


@parity.needed
def test_stytr2_gives_the_published_answer():
    io = parity.recorded("stytr2_transformer")
    parts = {
        name: nets.from_official(
            f"stytr2_{name}", parity.weights(parity.layout(f"stytr2_{name}_keys"), "fanin")
        )
        for name in ("embedding", "transformer", "decoder")
    }
    content, style = (parts["embedding"](io[name]) for name in ("content", "style"))
    parity.assert_equal(content, io["ec"])
    parity.assert_equal(style, io["es"])
    found = parts["transformer"](content, style)
    parity.assert_equal(found, io["hs"])
    parity.assert_equal(parts["decoder"](found), io["y"])


def attention(net, query, key, value):
    """Of (N, M, width), with 8 heads, written out."""
    weights, biases = net.in_proj_weight.chunk(3), net.in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, w, b).unflatten(2, (8, -1)).transpose(1, 2)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    found = (q @ k.mT / q.shape[-1] ** 0.5).softmax(3) @ v
    return net.out_proj(found.transpose(1, 2).flatten(2))


def after(layer, number, x):
    return layer.get_submodule(f"norm{number}")(x)


def linear(layer, number, x):
    return after(layer, number, x + layer.linear2(F.relu(layer.linear1(x))))


def columns(x):
    return x.flatten(2).mT


def test_the_transformers_are_their_formulas():
    torch.manual_seed(0)
    net = networks.Transformer(16, 1).eval()
    content, style = randn(2, 16, 3, 5), randn(2, 16, 4, 2, seed=1)
    position = F.interpolate(net.new_ps(F.adaptive_avg_pool2d(content, 18)), (3, 5), mode="bilinear")
    c, s, p = columns(content), columns(style), columns(position)

    layer = net.encoder_s.layers[0]
    s = linear(layer, 2, after(layer, 1, s + attention(layer.self_attn, s, s, s)))
    layer = net.encoder_c.layers[0]
    c = linear(layer, 2, after(layer, 1, c + attention(layer.self_attn, c + p, c + p, c)))
    layer = net.decoder.layers[0]
    c = after(layer, 1, c + attention(layer.self_attn, c + p, s, s))
    c = after(layer, 2, c + attention(layer.multihead_attn, c + p, s, s))
    c = net.decoder.norm(linear(layer, 3, c))
    parity.assert_equal(net(content, style), c.mT.view(2, 16, 3, 5))

    for positional in (True, False):
        net = networks.FusionTransformer(16, 2, positional=positional).eval()
        x = asked = columns(content)
        if positional:
            asked = x + columns(networks.content_aware_position(net.new_ps, content))
        s = columns(style)
        for layer in net.encoder.layers:
            x = linear(layer, 2, after(layer, 1, x + attention(layer.self_attn, asked, s, s)))
        parity.assert_equal(net(content, style), x.mT.view(2, 16, 3, 5))


def test_positions_do_not_depend_on_the_pictures_size():
    """A content of 18 × 18 places, and the same one enlarged."""
    content = randn(1, 8, 18, 18)
    large = content.repeat_interleave(3, 2).repeat_interleave(3, 3)
    project = nn.Conv2d(8, 8, 1)
    small, found = (networks.content_aware_position(project, x) for x in (content, large))
    torch.testing.assert_close(found[..., 1::3, 1::3], small)


def test_the_style_extractor_is_its_formula():
    torch.manual_seed(0)
    net = puff_extractors.StyleExtractor().eval()
    x = rand(2, 3, 5, 7)

    def norm(x, part):
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
        weight, bias = (t[:, None, None] for t in (part.body.weight, part.body.bias))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    entered = norm(net.pre(x), net.norm1)
    far, near = entered[:, :32], entered[:, 32:]
    q, k, v = net.attn.qkv2(net.attn.qkv1(far)).split(32, 1)
    q, k, v = (t.reshape(2, 4, 8, 35) for t in (q, k, v))
    q, k = q / q.norm(dim=3, keepdim=True), k / k.norm(dim=3, keepdim=True)
    far = far + net.attn.proj(((q @ k.mT * net.attn.scale).softmax(3) @ v).reshape(2, 32, 5, 7))
    row = F.pad(near.flatten(2), (1, 1))  # all rows, one after the other
    taps = torch.stack([net.conv.conv.weight[c % 4, 0] for c in range(32)])
    mixed = sum(taps[:, i, None] * row[:, :, i : i + 35] for i in range(3)).view(2, 32, 5, 7)
    near = near + net.conv.project2(norm(net.conv.project1(mixed), net.conv.norm))
    gate, passed = net.mlp.dwconv(net.mlp.project_in(norm(torch.cat([far, near], 1), net.norm2))).chunk(2, 1)
    expected = net.post(entered + net.mlp.project_out(F.gelu(gate) * passed))
    parity.assert_equal(net(x), expected)


def test_the_content_extractors_steps_can_be_undone():
    torch.manual_seed(0)
    step = puff_extractors._Coupling().eval()
    x = randn(2, 64, 6, 5)
    first, second = step(x).chunk(2, 1)
    before = (first - step.theta_eta(second)) / step.theta_rho(second).exp()
    mixed = torch.cat([before, second - step.theta_phi(before)], 1)
    matrix = torch.linalg.inv(step.shffleconv.weight[..., 0, 0])
    found = torch.einsum("ij,njhw->nihw", matrix, mixed - step.shffleconv.bias[:, None, None])
    torch.testing.assert_close(found, x, atol=1e-3, rtol=1e-3)


# ------------------------------------------------------------------------------------------------- the losses


def moments(x):
    return x.mean((2, 3)), (x.var((2, 3)) + 1e-5).sqrt()


def alike(x):
    mean, deviation = (m[..., None, None] for m in moments(x))
    return (x - mean) / deviation


def square(a, b):
    return (a - b).square().mean()


@pytest.mark.parametrize("form", ["released", "printed"])
def test_the_losses_are_their_formulas(random_networks, form):
    method = StyTr2(Settings(**TINY, form=form), **CPU)
    task = method.task(rand(2, 3, 40, 40), rand(2, 3, 40, 40), Schedule(steps=1))
    contents, styles, made, cc, ss = (rand(2, 3, 32, 32, seed=n) for n in range(5))
    found = task.losses(torch.cat([made, cc, ss]), contents, styles)
    c, s, m, own_c, own_s = (task.features(x) for x in (contents, styles, made, cc, ss))
    same = (lambda x: x) if form == "printed" else alike
    content = [square(same(m[n]), same(c[n])) for n in CONTENT_LAYERS]
    pairs = [zip(moments(m[n]), moments(s[n]), strict=True) for n in LAYERS]
    style = [sum(square(a, b) for a, b in pair) for pair in pairs]
    deep = [square(own_c[n], c[n]) + square(own_s[n], s[n]) for n in LAYERS]
    counts = (2, 5, 5) if form == "printed" else (1, 1, 1)
    content, style, deep = (sum(x) / k for x, k in zip((content, style, deep), counts, strict=True))
    by = {"released": (7, 10, 70, 1), "printed": (10, 7, 50, 1)}[form]
    identity = square(cc, contents) + square(ss, styles)
    expected = [w * x for w, x in zip(by, (content, style, identity, deep), strict=True)]
    torch.testing.assert_close(list(found.values()), expected)
    method.settings = task.settings = method.settings.changed(colors=3)
    early = task.losses(torch.cat([made, cc, ss]), contents, styles, "pixels")
    mean, deviation = (moment[..., None, None] for moment in moments(styles))
    recolored = alike(contents) * deviation + mean
    first = expected[2] + 3 * by[2] * square(made, recolored)
    torch.testing.assert_close(
        list(early.values()), [torch.zeros(()), torch.zeros(()), first, torch.zeros(())]
    )


def test_the_extractors_losses_are_their_formulas(random_networks):
    method = PuffNet(PuffSettings(**TINY), **CPU)
    task = method.task(rand(2, 3, 40, 40), rand(2, 3, 40, 40), Schedule(steps=1))
    contents, styles, *parts = (rand(2, 3, 32, 32, seed=n) for n in range(6))
    found = task.extractor_losses(torch.cat(parts[:2]), torch.cat(parts[2:]), contents, styles)
    style = content = 0.0
    for original, lines, strokes in ((contents, parts[0], parts[2]), (styles, parts[1], parts[3])):
        o, x, y = (task.features(x) for x in (original, lines, strokes))
        pair = zip(moments(y["relu1_1"]), moments(o["relu1_1"]), strict=True)
        style = style + sum(square(a, b) for a, b in pair)
        content = content + sum(square(alike(x[n]), alike(o[n])) for n in CONTENT_LAYERS)
    torch.testing.assert_close(list(found.values()), [20 * style, 20 * 0.7 * content])
    early = task.extractor_losses(torch.cat(parts[:2]), torch.cat(parts[2:]), contents, styles, "pixels")
    pairs = ((contents, parts[0], parts[2]), (styles, parts[1], parts[3]))
    style = sum(square(strokes, original) for original, _, strokes in pairs)
    content = sum(square(alike(lines), alike(original)) for original, lines, _ in pairs)
    torch.testing.assert_close(list(early.values()), [20 * style, 20 * 0.7 * content])


@pytest.mark.parametrize("seed", range(4))
def test_no_color_is_dead_at_the_beginning(seed):
    method = PuffNet(PuffSettings(**TINY), **CPU, seed=seed)
    pictures = rand(2, 3, 32, 32)
    for net in (method.base, method.detail):
        assert (net(pictures).std((0, 2, 3)) > 0.05).all()


def test_the_learning_rate_is_the_released_one(random_networks):
    task = StyTr2(Settings(**TINY), **CPU).task(rand(1, 3, 40, 40), rand(1, 3, 40, 40), Schedule(steps=4))
    rates = [5e-4 * task.rate(step / 160_000) for step in (0, 5_000, 10_000, 160_000)]
    assert rates == pytest.approx([5e-5, 1.25e-4, 2e-4, 8e-5])


# --------------------------------------------------------------------------------------------------- training


def test_sources_of_styles_take_turns():
    black, white = torch.zeros(5, 3, 32, 32), torch.ones(1, 3, 32, 32)
    crops = Styles([black, white], 16, seed=0)(range(6))
    assert crops.mean((1, 2, 3)).tolist() == [0, 1, 0, 1, 0, 1]


@BOTH
def test_what_was_learned_is_kept_and_paints(random_networks, tmp_path, kind, settings):
    whole = kind(settings(**TINY, deep_every=2, pixels_first=0.25), **CPU)
    styles = [rand(4, 3, 40, 40, seed=1), rand(1, 3, 50, 40, seed=2)]
    schedule = Schedule(steps=4, batch=1, average=0.5)
    result = whole.fit(rand(3, 3, 40, 40), styles, schedule=schedule, progress=False)
    assert [row["style"] > 0 for row in result.history] == [False, True, True, True]
    assert [row["identity_features"] > 0 for row in result.history] == [False, False, True, False]

    loaded = kind.load(whole.save(tmp_path / "one.safetensors"), **CPU)
    photos, style = rand(2, 3, 41, 66, seed=5), rand(1, 3, 50, 27, seed=6)
    made = loaded.stylize(photos, style)
    assert made.shape == photos.shape
    assert (made - whole.stylize(photos, style)).abs().mean() < 0.01  # float16
    assert not torch.equal(made, loaded.stylize(photos, 1 - style))
    torch.testing.assert_close(
        loaded.stylize(photos, style, strength=0.5), (photos + made) / 2, atol=1e-5, rtol=0
    )
    with refused(SettingError, match="There is no style: give a picture"):
        loaded.stylize(photos)


def test_one_pair_is_learned_in_a_few_steps(random_networks):
    method = StyTr2(Settings(**TINY, pixels_first=1), **CPU)
    with refused(SettingError, match="Nothing has been learned yet"):
        method.stylize(rand(1, 3, 32, 32), rand(1, 3, 32, 32))
    result = method.fit(
        rand(1, 3, 32, 32), [rand(1, 3, 32, 32, seed=1)], schedule=Schedule(steps=40, batch=1), progress=False
    )
    assert result.history[-1]["identity"] < 0.5 * result.history[0]["identity"]


def test_the_authors_weights_are_three_files(monkeypatch, tmp_path):
    small = StyTr2(Settings(width=16, layers=1), **CPU)
    for name, part in small.net.named_children():
        torch.save(part.state_dict(), tmp_path / f"stytr2_wikiart_{name}.pth")
    monkeypatch.setattr("nstlib.assets.fetch", lambda name: tmp_path / f"{name}.pth")
    monkeypatch.setattr(StyTr2, "settings_class", staticmethod(lambda: small.settings))
    loaded = StyTr2.load("wikiart", **CPU)
    assert loaded.net.state_dict().keys() == small.net.state_dict().keys()
    assert all(torch.equal(t, small.state()[k]) for k, t in loaded.state().items())
    assert loaded.about["style"] == "wikiart"


@pytest.mark.parametrize("kind", [StyTr2, PuffNet])
def test_the_carried_weights_paint_as_light_as_the_style_and_keep_the_face(kind):
    method = kind.load("course", **CPU)
    face = load_image(data_path("portraits/collins_face.jpg"), size=128)
    night = load_image(data_path("paintings/starry_night.jpg"), size=128)
    for style in (night, load_style_set("ink", 128).pictures[:1]):
        made = method.stylize(face, style)
        light = [float(picture.mean()) for picture in (face, style, made)]
        assert abs(light[2] - light[1]) < 0.7 * abs(light[0] - light[1])
        gray = [picture.mean(1).flatten() for picture in (face, made)]
        assert torch.corrcoef(torch.stack(gray))[0, 1] > 0.6
