"""Johnson's network: the published numbers; trained at a tiny size, kept, loaded, refused."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import parity
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from conftest import Malicious, rand, refused, waves
from safetensors import safe_open
from torch import Tensor

from nstlib import assets, nets
from nstlib.errors import AssetError, ImageError, SettingError
from nstlib.faces.style_sets import load_style_set
from nstlib.methods.johnson import SHIPPED, Johnson, Settings, TransferTask
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.johnson import TransformNet, from_official
from nstlib.pictures import files as images
from nstlib.training import Pictures, Schedule, train


def drawn(key: str, shape: tuple[int, ...]) -> Tensor:
    """The weight that belongs to a key, whichever network asks: see ../shared/parity/README.md."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()) % (2**31 - 1))
    z = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return z * math.sqrt(2 / math.prod(shape[1:]))
    return 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z


def official(width=32, blocks=5) -> dict[str, Tensor]:
    layout = parity.shapes(TransformNet(width, blocks).state_dict())
    return {key: drawn(key, shape) for key, shape in layout.items()}


# ----------------------------------------------------------------------------------------- the network


@parity.needed
def test_the_output_is_that_of_the_published_network():
    recorded = parity.recorded("fns_transformer")
    parity.assert_equal(nets.from_official("fns_transformer", official())(recorded["x"]), recorded["y"], 1e-5)


def test_the_output_is_that_recorded():
    """Of a small network, held to the published layers one by one; 17 × 34 pixels come out as 20 × 36."""
    net = from_official(official(4, 2))
    assert (net.width, net.blocks, net.normalization) == (4, 2, "instance")
    made = net(127.5 * (waves(17, 34) + 1))
    assert made.shape == (1, 3, 20, 36)
    recorded = [[0.335, -1.813, 1.89], [-0.384, -0.866, 1.24], [0.186, -0.724, 0.49]]
    found = [made[0, :, y, x].tolist() for y, x in ((0, 0), (9, 20), (19, 35))]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(recorded), rtol=0, atol=2e-3)


def test_files_of_2017_and_of_several_processors_are_taken():
    tensors = official(4, 2)
    old = tensors | {"res1.in1.running_mean": torch.ones(16), "in5.running_var": torch.ones(4)}
    x = 255 * rand(1, 3, 16, 20)
    for other in (old, {f"module.{key}": tensor for key, tensor in old.items()}):
        assert torch.equal(from_official(other)(x), from_official(tensors)(x))


# -------------------------------------------------------------------------------------------- learning

LAYERS = Settings().style_layers
# Two layers, because the others would take most of the time; the test of the losses takes all four.
SMALL = Settings(size=24, width=4, learning_rate=2e-3, style_size=32, style_layers=LAYERS[:2])
OPTIONS = {"device": "cpu", "precision": "float32"}


def made_of(weights: dict[str, Tensor], **options) -> Johnson:
    """A method with weights of its own."""
    method = Johnson(**{**OPTIONS, **options})
    method.load_state(weights)
    return method


@pytest.fixture(scope="module")
def faces() -> Tensor:
    return F.interpolate(rand(5, 3, 5, 5, seed=7), (40, 36), mode="bilinear")


@pytest.fixture(scope="module")
def style() -> Tensor:
    """Stripes of two colors."""
    stripes = (torch.arange(32) // 3 % 2).float().expand(32, 32)
    return torch.stack([stripes, 1 - stripes, 0.5 * stripes])[None]


@pytest.fixture
def fit(random_networks, faces, style):
    """``fit(steps, folder, settings, ...)``: a method that has learned, and the training's result."""

    def work(steps=6, folder=None, settings=SMALL, method=None, batch=2, average=0.0, seed=0, **options):
        method = method or Johnson(settings, **OPTIONS)
        options = {"faces": faces, "styles": style, "progress": False, **options}
        schedule = Schedule(steps, batch, average=average, seed=seed)
        return method, method.fit(schedule=schedule, folder=folder, **options)

    return work


@pytest.fixture
def task(random_networks, faces, style):
    """``task(settings, ...)``: one training task of a small network."""

    def make(settings=SMALL, styles=None):
        torch.manual_seed(3)
        net = TransformNet(settings.width, normalization=settings.normalization)
        pictures = Pictures(faces, settings.size, zoom=settings.zoom)
        return TransferTask(net, pictures, styles or [style], settings, **OPTIONS)

    return make


def gram(features):
    columns = features.flatten(2)
    return columns @ columns.mT / features[0].numel()


@pytest.mark.parametrize("content", ["relu2_2", "relu3_3", "relu1_1"])
def test_the_losses_are_those_computed_by_hand(task, style, content):
    settings = SMALL.changed(
        content_layer=content, content_weight=3.0, style_weight=50.0, tv_weight=0.7, style_layers=LAYERS
    )
    other = rand(1, 3, 24, 28, seed=4)
    made, contents = rand(2, 3, 32, 32, seed=1), rand(2, 3, 32, 32, seed=2)
    losses = task(settings, [style, other]).losses(made, contents)
    see = FeatureExtractor("vgg16", [*LAYERS, content], **OPTIONS)
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


def test_every_weight_learns_and_the_networks_picture_is_what_is_judged(task):
    learning = task(SMALL.changed(learning_rate=5e-3, decay=0.1))
    net, judge, seen = learning.modules["net"], learning.losses, []
    body, head = learning.optimizers["main"].param_groups
    assert head["params"] == list(net.deconv3.parameters())
    assert head["lr"] == 16 * body["lr"]
    assert learning.rate(1.0) == pytest.approx(0.1)
    before = {key: t.clone() for key, t in net.state_dict().items()}
    first = (net(255 * learning.batch(range(2))) / 255).detach()
    learning.losses = lambda made, of: seen.append((made.detach(), of)) or judge(made, of)
    result = train(learning, Schedule(24, 2), progress=False, **OPTIONS)
    torch.testing.assert_close(seen[0][0], first)
    assert torch.equal(seen[0][1], learning.batch(range(2)))
    totals = [row["total"] for row in result.history]
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])
    assert not [key for key, t in net.state_dict().items() if torch.equal(t, before[key])]


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


def test_an_untrained_network_is_of_its_seed_alone_and_begins_with_gray_pictures(picture):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = Johnson(SMALL, **OPTIONS).net.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = (Johnson(SMALL, seed=seed, **OPTIONS).net.state_dict() for seed in (0, 1))
    assert all(torch.equal(tensor, same[key]) for key, tensor in one.items())
    assert not torch.equal(one["conv1.conv2d.weight"], other["conv1.conv2d.weight"])
    made = Johnson(Settings(width=8), **OPTIONS).stylize(picture(32, 32))
    assert 0.35 < made.mean() < 0.65
    assert 0.05 < made.std() < 0.4


def test_several_styles_come_in_a_list_or_in_a_batch(fit, style):
    other = rand(1, 3, 32, 32, seed=8)
    listed = fit(2, styles=[style, other])[1].history
    batched = fit(2, styles=torch.cat([style, other]))[1].history
    assert [row["style"] for row in batched] == [row["style"] for row in listed]
    assert listed[0]["style"] != fit(2)[1].history[0]["style"]


def test_batch_normalization_learns_is_kept_and_paints_pictures_alone(fit, tmp_path):
    method, _ = fit(6, settings=SMALL.changed(normalization="batch", content_layer="relu3_3"), average=0.5)
    state = method.net.state_dict()
    assert int(state["in1.num_batches_tracked"]) == 6
    state["in1.running_var"].fill_(3e5)  # more than float16 holds
    state["in1.num_batches_tracked"].fill_(100_003)
    method.load_state(state)
    content = rand(2, 3, 20, 24, seed=9)
    made = method.stylize(content)
    torch.testing.assert_close(method.stylize(content[1:]), made[1:], rtol=0, atol=1e-4)
    again = Johnson.load(method.save(tmp_path / "batch.safetensors"), **OPTIONS)
    assert again.net.normalization == "batch"
    assert torch.equal(again.net.in1.running_var, torch.full((4,), 3e5))
    assert int(again.net.in1.num_batches_tracked) == 100_003
    torch.testing.assert_close(again.stylize(content), made, rtol=0, atol=0.02)


def test_another_styles_weights_are_a_beginning(fit):
    first, before = fit(3)
    _, result = fit(1, method=first)
    assert result.history[0]["total"] < before.history[0]["total"]


# --------------------------------------------------------------------------------- broken off, gone on


def test_what_is_learned_from_belongs_to_the_training_but_pictures_may_be_gone(fit, tmp_path):
    fit(1, tmp_path / "run")
    for change, words in (
        ({"settings": SMALL.changed(style_weight=2.0)}, "style_weight 100000.0 there, 2.0 here"),
        ({"styles": rand(1, 3, 32, 32, seed=8)}, "styles"),
        ({"faces": rand(6, 3, 40, 36)}, "pictures 5 there, 6 here"),
        ({"faces": Pictures(rand(5, 3, 40, 36), SMALL.size, flip=False)}, "crops"),
    ):
        with refused(SettingError, match=f"holds a training with other settings.*{words}"):
            fit(2, tmp_path / "run", **change)
    with pytest.warns(UserWarning, match=r"gone \(1\): it goes on with the rest"):
        _, result = fit(2, tmp_path / "run", faces=rand(4, 3, 40, 36))
    assert result.step == 2


def test_after_an_error_the_network_can_paint(fit):
    method = Johnson(SMALL, **OPTIONS)

    def callback(progress):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(4, method=method, callback=callback)
    assert not method.net.training
    assert method.stylize(rand(1, 3, 17, 20)).shape == (1, 3, 17, 20)


# ------------------------------------------------------------------------------------------- stylizing


@pytest.fixture(scope="module")
def net() -> dict[str, Tensor]:
    """Weights whose pictures fill [0, 255]."""
    tensors = official(4, 2)
    tensors["deconv3.conv2d.weight"] *= 30
    tensors["deconv3.conv2d.bias"] += 128
    return tensors


def test_the_picture_is_the_networks_at_its_own_place(net):
    for height, width in ((20, 24), (16, 16), (19, 22), (64, 17)):
        content = rand(2, 3, height, width)
        before = content.clone()
        made = made_of(net).stylize(content)
        assert torch.equal(content, before)
        assert not made.requires_grad
        reflected = F.pad(content, (0, -width % 4, 0, -height % 4), mode="reflect")
        expected = (from_official(net)(255 * reflected) / 255).clamp(0, 1)[..., :height, :width]
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------- what is kept


def test_saved_and_loaded_it_paints_the_same(fit, tmp_path):
    method, result = fit(3)
    path = method.save(tmp_path / "new" / "stripes.safetensors", style="stripes", learned_on="5 pictures")
    assert path.stat().st_size < 200_000
    kept = safetensors.torch.load_file(path)
    assert {t.dtype for t in kept.values()} == {torch.float16}
    assert list(path.parent.iterdir()) == [path]
    again = Johnson.load(path, **OPTIONS)
    assert again.about == {"method": "johnson", **json.loads(json.dumps(method.about)), "style": "stripes",
                           "learned_on": "5 pictures"}  # fmt: skip
    assert again.about["losses"]["total"] == pytest.approx(result.history[-1]["total"], rel=1e-3)
    content = rand(1, 3, 24, 28)
    torch.testing.assert_close(again.stylize(content), method.stylize(content), rtol=0, atol=0.02)
    twice = Johnson.load(again.save(tmp_path / "twice.safetensors"), **OPTIONS)
    assert torch.equal(twice.stylize(content), again.stylize(content))
    assert twice.about == again.about


def test_bfloat16_rounds_neither_what_is_saved_nor_what_is_trained_on(
    random_networks, faces, style, tmp_path
):
    method = Johnson(SMALL, device="cpu", precision="bfloat16")
    for _ in range(2):
        result = method.fit(faces, style, schedule=Schedule(1, 1), progress=False)
        assert math.isfinite(result.history[-1]["total"])
    assert {p.dtype for p in method.net.parameters()} == {torch.bfloat16}
    assert method.stylize(rand(1, 3, 20, 24)).dtype == torch.float32
    weights = method.state()
    assert {t.dtype for t in weights.values()} == {torch.float32}
    saved = Johnson.load(method.save(tmp_path / "net.safetensors"), **OPTIONS).net.state_dict()
    for key, tensor in weights.items():
        assert torch.equal(saved[key], tensor.half().float()), key


def test_published_files_are_taken(net, tmp_path):
    torch.save(net, tmp_path / "mosaic.pth")
    torch.save(net, tmp_path / "old.model", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(net, tmp_path / "mosaic.safetensors")
    content = rand(1, 3, 20, 20)
    expected = made_of(net).stylize(content)
    for name in ("mosaic.pth", "old.model", "mosaic.safetensors"):
        method = Johnson.load(tmp_path / name, **OPTIONS)
        assert torch.equal(method.stylize(content), expected)
        assert method.about == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a network\n", "holds no weights that can be used: it holds more than a plain state dict"),
        ({"conv1.conv2d.weight": Malicious()}, "it holds more than a plain state dict"),
        ([torch.ones(2)], "give a state dict, key by key"),
        ({"weight": torch.ones(2)}, "not those of a transformation network"),
        (None, r"There is no file '.*w\.pth': name one, or a style of starry_night, the"),
    ],
    ids=["text", "class", "list", "other", "missing"],
)
def test_wrong_files_are_one_sentence(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with refused(SettingError, match=words):
        Johnson.load(path, **OPTIONS)
    assert not (tmp_path / "pwned").exists()


# ------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"styles": []}, SettingError, "list of styles is empty: give a style picture"),
        ({"styles": [rand(1, 3, 32, 12)]}, ImageError, "style of 12 × 32 pixels is too small"),
        ({"faces": "nowhere"}, ImageError, "no folder 'nowhere'"),
        ({"settings": SMALL.changed(style_layers=("relu1_2", "relu7"))}, SettingError, "relu7"),
    ],
    ids=["none", "small", "folder", "layer"],
)
def test_what_cannot_be_learned_is_one_sentence(fit, options, error, words):
    with refused(error, match=words):
        fit(1, **options)
    with refused(SettingError, match="style_layers"):
        Settings(style_layers=())


# ----------------------------------------------------------------------------- what the course carries


def shipped(name: str) -> Path:
    try:
        return assets.data_path(f"weights/johnson_{name}.safetensors")
    except AssetError:
        pytest.skip(f"the network of {name} has not been trained yet")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_is_small_paints_no_noise_and_says_how_it_was_made(name, picture):
    path = shipped(name)
    assert path.stat().st_size <= 4_000_000
    with safe_open(path, "pt") as file:
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["nstlib"])
    assert {t.dtype for t in kept.values()} == {torch.float16}
    assert parity.shapes(kept) == parity.shapes(TransformNet().state_dict())
    assert about["style"] == name
    assert min(about["steps"], about["seconds"]) > 0
    assert about["settings"]["size"] >= 64
    assert all(about["losses"][part] > 0 for part in ("total", "content", "style"))
    method = Johnson.load(name, **OPTIONS)
    assert method.about == about
    made = method.stylize(picture(65, 50))
    assert bool(made.isfinite().all())
    assert 0.02 < made.std() < 0.45
    assert (made == 0).float().mean() + (made == 1).float().mean() < 0.3


@pytest.mark.weights
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_brings_a_face_nearer_to_the_painting(name):
    shipped(name)
    face = images.load_image(assets.data_path("portraits/collins_face.jpg"), size=128)
    if name == "ink":  # the first portrait of the set
        painting = load_style_set("ink", 160).pictures[:1]
    else:
        painting = images.load_image(assets.data_path(f"paintings/{name}.jpg"), size=160)
    made = Johnson.load(name).stylize(face)
    see = FeatureExtractor("vgg16", LAYERS)
    of_face, of_painting, of_made = see(face), see(painting), see(made)
    for layer in LAYERS:
        far, near = (
            (gram(of[layer].float()) - gram(of_painting[layer].float())).square().mean()
            for of in (of_face, of_made)
        )
        assert near < 0.7 * far, layer
    # It is still the picture of that face.
    gray = [p.mean(1).flatten() for p in (face, made)]
    assert torch.corrcoef(torch.stack(gray))[0, 1] > 0.4
