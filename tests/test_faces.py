"""Faces that are nobody's: each depends on its number alone, and the folder is whole whatever happens."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nstlib.cli.__main__ import cli
from nstlib.errors import AssetError, ImageError, SettingError
from nstlib.faces import generated as door
from nstlib.faces.generated import Faces, cached, listed
from nstlib.nets.mobilestylegan import DistilledHead
from nstlib.pictures import files as images

CHANNELS = (8, 8, 8, 8, 8, 8)  # pictures of 256 pixels


def released(*shapes: tuple[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Random tensors named as in the released graphs: KIND_NUMBER, the numbers growing along the way."""
    generator, spread = torch.Generator().manual_seed(0), {"Add": 0.1, "Mul": 0.1, "Reshape": 0.1}
    found = {}
    for number, (kind, shape) in enumerate(shapes, 7):  # of one to three digits
        scale = spread.get(kind, math.prod(shape[1:]) ** -0.5)
        mean = 0.7 if kind == "Mul" else float(kind == "Add" and len(shape) == 2)
        found[f"{kind}_{number}"] = mean + scale * torch.randn(shape, generator=generator)
    return found


def tiny_tensors() -> dict[str, dict[str, torch.Tensor]]:
    def styled(inputs: int, outputs: int, side: int, *filters: tuple[int, ...]) -> list:
        modulation = [("MatMul", (inputs, 512)), ("Add", (1, inputs)), ("Mul", (1, 1, 1, 1))]
        added = [("Add", (1, 1, side, side)), ("Add", (1, outputs, 1, 1))]
        return [*modulation, *(("Conv", shape) for shape in filters), *added]

    mapping = released(*8 * [("MatMul", (512, 512)), ("Reshape", (512,))])
    n = CHANNELS[0]
    shapes = [("Expand", (1, n, 4, 4)), *styled(n, n, 4, (n, n, 3, 3))]
    for level in range(1, len(CHANNELS)):
        shapes += [("MatMul", (n, 512)), ("Add", (1, n))]
        for inputs in (n // 4, n):
            shapes += styled(inputs, n, 4 << level, (inputs, 1, 1, 3, 3), (n, inputs, 1, 1))
    shapes += [*styled(n, 12, 1, (12, n, 1, 1))]
    del shapes[-2]  # the picture gets no noise
    synthesis = released(*shapes)
    torch.manual_seed(0)
    return {"mapping": mapping, "synthesis": synthesis, "head": DistilledHead(8).state_dict()}


@pytest.fixture(scope="module")
def tiny() -> Faces:
    return Faces("cpu", tiny_tensors())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no weights to be had from outside."""
    monkeypatch.setenv("NSTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("nstlib.assets.load_tensors", lambda name: pytest.fail(f"{name} was asked for"))
    return tmp_path / "cache"


def draw(count: int, faces: Faces, size: int = 16, seed: int = 0) -> Path:
    return cached(count, size, seed, faces=faces, progress=False)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --------------------------------------------------------------------------------------------- styles


@given(count=st.integers(1, 200), more=st.integers(0, 90), seed=st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_a_style_depends_on_seed_and_number_alone(tiny, count, more, seed):
    some = tiny.w(count, seed)
    assert some.shape == (count, 512)
    assert torch.equal(tiny.w(count + more, seed)[:count], some)


def test_the_random_numbers_are_normal_and_always_the_same():
    z = door._normal(range(100), seed=5)
    assert abs(float(z.mean())) < 0.02
    assert abs(float(z.std()) - 1) < 0.02
    torch.testing.assert_close(z[3, :3], torch.tensor([-2.4047861, -1.1220058, 0.1718804]))


def test_truncation_draws_styles_to_the_mean(tiny, monkeypatch):
    near = tiny.w(2000, seed=9) - tiny.mean_w
    monkeypatch.setattr(door, "TRUNCATION", 1.0)
    far = tiny.w(2000, seed=9) - tiny.mean_w
    torch.testing.assert_close(near, 0.7 * far)
    assert float((far.mean(0) / far.std(0)).abs().max()) < 0.15


# --------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("size", [1, 64, 65])
def test_any_size_up_to_the_networks_gives_a_picture(tiny, size):
    pictures = tiny.pictures(tiny.w(2), size)
    assert pictures.shape == (2, 3, size, size)
    assert pictures.dtype == torch.float32
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1


def test_a_picture_is_the_networks_from_minus_one_to_one(tiny):
    w = tiny.w(1)
    torch.testing.assert_close(tiny.pictures(w, 256), ((tiny.synthesis(w) + 1) / 2).clamp(0, 1))


def test_a_style_for_each_layer_is_taken_and_gets_a_gradient(tiny):
    w = tiny.w(1)
    w_plus = w[:, None].repeat(1, tiny.synthesis.layers, 1).requires_grad_()
    pictures = tiny.pictures(w_plus, 32)
    torch.testing.assert_close(pictures, tiny.pictures(w, 32))
    pictures.sum().backward()
    assert w_plus.grad is not None
    assert int((w_plus.grad.abs().amax(2) > 0).sum()) == 17  # layers of a picture of 256 pixels


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 257}, {"seed": -1}, {"count": -1}])
def test_what_cannot_be_is_told(tiny, options):
    given = {"count": 1, "seed": 0, "size": 16, **options}
    with pytest.raises(SettingError, match=str(*options.values())):
        tiny.pictures(tiny.w(given["count"], given["seed"]), given["size"])


# --------------------------------------------------------------------------------------------- the cache


def test_the_folder_has_pictures_and_their_styles(home, tiny):
    folder = draw(13, tiny, seed=2)
    assert folder.is_relative_to(home)
    paths, w = listed(folder, 13)
    assert torch.equal(w, tiny.w(13, 2))
    assert sorted(content(folder)) == sorted([*(path.name for path in paths), "styles.safetensors"])
    for index in (0, 12):
        picture = images.load_image(paths[index])
        assert float((picture - tiny.pictures(w[index : index + 1], 16)).abs().mean()) < 0.02
        said = images.read_settings(paths[index])
        assert said is not None
        assert (said["face"], said["seed"], said["truncation"]) == (index, 2, 0.7)
        assert "non-commercial" in said["licence"]


def test_a_larger_count_extends_a_smaller_one(home, tiny, tmp_path, monkeypatch):
    before = content(draw(7, tiny))
    grown = content(draw(25, tiny))
    assert before.items() - grown.items() == {("styles.safetensors", before["styles.safetensors"])}
    assert content(draw(3, tiny)) == grown  # and a smaller one changes nothing
    monkeypatch.setenv("NSTLIB_CACHE", str(tmp_path / "other"))
    assert content(draw(25, tiny)) == grown  # drawn at once, the same bytes


def test_sizes_and_seeds_do_not_mix(home, tiny):
    folders = {draw(1, tiny), draw(1, tiny, size=17), draw(1, tiny, seed=1)}
    assert len({content(folder)["000000.jpg"] for folder in folders}) == 3


def test_interrupted_work_goes_on(home, tiny, monkeypatch):
    saved: list[str] = []

    def save(picture, path, **options):
        if len(saved) == 14:
            raise KeyboardInterrupt
        saved.append(path.name)
        return images.save_image(picture, path, **options)

    monkeypatch.setattr(door, "save_image", save)
    with pytest.raises(KeyboardInterrupt):
        draw(25, tiny)
    (folder,) = (home / "faces").iterdir()
    with pytest.raises(AssetError, match="has no 1 faces"):
        listed(folder, 1)
    saved[:] = ["before"] * 99
    draw(25, tiny)
    assert saved[99:] == [f"{i:06d}.jpg" for i in range(14, 25)]
    assert torch.equal(listed(folder, 25)[1], tiny.w(25))


def test_damage_is_mended(home, tiny):
    folder = draw(6, tiny)
    whole, styles = content(folder), folder / "styles.safetensors"
    (folder / "000003.jpg").unlink()
    styles.write_bytes(whole[styles.name][:100])
    assert content(draw(6, tiny)) == whole


def test_a_cache_that_cannot_be_written_is_told(home, tiny):
    home.write_text("a file")
    with pytest.raises(ImageError, match=r"is not saved because"):
        draw(1, tiny)


def test_the_command_draws_faces(home, tiny, monkeypatch):
    tensors = tiny_tensors()
    monkeypatch.setattr(
        "nstlib.assets.load_tensors", lambda name: tensors[name.removeprefix("mobilestylegan_")]
    )
    monkeypatch.setattr("nstlib.nets.hardware.keep_freed_memory", lambda: True)
    arguments = ["assets", "fetch", "faces", "--count", "3", "--size", "16", "--seed", "4"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    folder = Path(result.stdout.splitlines()[-1].removeprefix("faces: "))
    paths, w = listed(folder, 3)
    assert torch.equal(w, tiny.w(3, 4))
    assert images.load_image(paths[2]).shape == (1, 3, 16, 16)
