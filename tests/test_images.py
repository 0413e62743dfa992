"""Pictures in and out: every kind of bad file has its own clear sentence, and good ones keep their pixels."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin, features

from nstlib.assets.writing import write_atomic
from nstlib.errors import ImageError, LeftOut, SettingError
from nstlib.pictures import files as images

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIDES = st.one_of(st.sampled_from([1, 2, 3, 7, 8, 64, 65]), st.integers(1, 90))


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """A picture whose values are exact 8-bit levels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, channels, height, width), generator=generator).float() / 255


def encoded(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    images.to_pil(noise(size[1], size[0])).save(out, kind)
    return out.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG file of any claimed size with any pixel data, or none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# ---------------------------------------------------------------------------------- files that are not usable

# name of the file, its bytes, what the message must say (a regular expression)
BAD_CONTENT: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jpg", b"", "no picture, damaged, or of a kind that is not read here"),
    "heic": ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not read here, as HEIC"),
    "cut jpeg": ("a.jpg", encoded("JPEG")[:-900], "truncated"),
    "png without pixels": ("a.png", png(9, 9), "truncated"),
}


@pytest.mark.parametrize("kind", BAD_CONTENT)
def test_bad_content(tmp_path, kind):
    name, content, says = BAD_CONTENT[kind]
    (tmp_path / name).write_bytes(content)
    with refused(ImageError, match=rf"{name}' cannot be read \(.*{says}.*\): get it again"):
        images.load_image(tmp_path / name)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [10_001, 60_000])  # Pillow warns of the one and refuses the other
def test_too_many_pixels_are_refused_before_decoding(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png(side, side))
    with pytest.raises(ImageError, match=r"a\.png' has more than 100 million pixels: make it smaller"):
        images.load_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("colins.jpg", "did you mean 'Collins.jpg'"),
        ("me.jpg", "did you mean 'me.webp'"),
        ("zebra.png", "There is no picture 'zebra.png': check the path"),
        ("nowhere/a.png", "There is no picture 'nowhere/a.png': check the path"),
        (".", "'.' is a folder, not a picture: name a file in it"),
        ("https://example.org/a.png", "example.org/a.png' is a web address: download"),
    ],
)
def test_bad_path(tmp_path, monkeypatch, path, says):
    monkeypatch.chdir(tmp_path)
    for name in ("Collins.jpg", "me.webp"):
        Path(name).write_bytes(b"x")
    for read in (images.load_image, images.read_settings):
        with pytest.raises(ImageError, match=says):
            read(path)


# --------------------------------------------------------------------------------------------------- decoding


def is_currency(image: torch.Tensor, height: int, width: int) -> None:
    assert image.shape == (1, 3, height, width)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_several(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    loaded = images.load_image(tmp_path / "a")
    is_currency(loaded, 6, 8)
    assert (loaded[0, :, 0, 0] - torch.tensor([1.0, 0, 0])).abs().max() < 0.03


@pytest.mark.filterwarnings("error")
def test_broken_exif_is_ignored(tmp_path):
    broken = b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x99" * 30
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.jpg", exif=broken)
    is_currency(images.load_image(tmp_path / "a.jpg"), 6, 8)
    assert images.read_settings(tmp_path / "a.jpg") is None


def two_colors(**options: Any) -> tuple[Image.Image, str, dict[str, Any]]:
    """A red and a green pixel of a palette."""
    im = Image.new("P", (2, 1))
    im.putpalette([255, 0, 0, 0, 255, 0])
    im.putpixel((1, 0), 1)
    return im, "PNG", options


# (picture, format, what it is saved with), and its pixels over a blue background
MODES: dict[str, tuple[tuple[Image.Image, str, dict[str, Any]], list[tuple[float, float, float]]]] = {
    "gray": ((Image.new("L", (1, 1), 51), "PNG", {}), [(0.2, 0.2, 0.2)]),
    "float": ((Image.new("F", (1, 1), 0.25), "TIFF", {}), [(0.25, 0.25, 0.25)]),
    "16 bits": ((Image.new("I;16", (1, 1), 13107), "PNG", {}), [(0.2, 0.2, 0.2)]),
    "transparent": ((Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "PNG", {}), [(0, 0, 1)]),
    "a fifth opaque": ((Image.new("RGBA", (1, 1), (255, 0, 0, 51)), "PNG", {}), [(0.2, 0, 0.8)]),
    "gray, a fifth opaque": ((Image.new("LA", (1, 1), (0, 51)), "PNG", {}), [(0, 0, 0.8)]),
    "palette": (two_colors(), [(1, 0, 0), (0, 1, 0)]),
    "palette, one transparent": (two_colors(transparency=1), [(1, 0, 0), (0, 0, 1)]),
    "palette with alphas": (two_colors(transparency=b"\xff\x00"), [(1, 0, 0), (0, 0, 1)]),
    "transparent red": ((Image.new("RGB", (1, 1), "red"), "PNG", {"transparency": (255, 0, 0)}), [(0, 0, 1)]),
    "CMYK": ((Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF", {}), [(1, 0, 0)]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", MODES)
def test_modes(tmp_path, mode):
    (im, kind, options), pixels = MODES[mode]
    im.save(tmp_path / "a", kind, **options)
    loaded = images.load_image(tmp_path / "a", background=(0, 0, 1))
    is_currency(loaded, 1, len(pixels))
    assert (loaded[0, :, 0].T - torch.tensor(pixels)).abs().max() < 1e-6


def test_pillow_images():
    im = Image.new("RGBA", (1, 1), (200, 100, 50, 128))
    assert torch.allclose(images.from_pil(im.convert("RGBa")), images.from_pil(im), atol=0.01)
    with pytest.raises(ImageError, match="Gray values of mode F have no known white: make it"):
        images.from_pil(Image.new("F", (2, 2), -1))


def swapped_profile() -> bytes:
    """The sRGB profile with the red and the green primary exchanged, so that applying it is plain to see."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")


class TestColorProfile:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
    def test_is_applied(self, tmp_path, mode):
        im = Image.new("RGB", (4, 4), (230, 20, 20)).convert(mode, palette=Image.Palette.ADAPTIVE)
        im.save(tmp_path / "a.png", icc_profile=swapped_profile())
        loaded = images.load_image(tmp_path / "a.png")
        assert (loaded[0, :, 1, 1] - torch.tensor([20, 230, 20]) / 255).abs().max() < 0.03

    @pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 128, swapped_profile()[:150]])
    def test_broken_is_ignored(self, tmp_path, profile):
        images.to_pil(noise(4, 4)).save(tmp_path / "a.png", icc_profile=profile)
        assert torch.equal(images.load_image(tmp_path / "a.png"), noise(4, 4))

    def test_of_another_kind_of_picture_is_ignored(self, tmp_path):
        images.to_pil(noise(4, 4, channels=1)).save(tmp_path / "a.png", icc_profile=swapped_profile())
        assert torch.equal(images.load_image(tmp_path / "a.png"), noise(4, 4, channels=1).expand(1, 3, 4, 4))


# --------------------------------------------------------------------------------------------- size and shape


class TestResize:
    @FEW
    @given(height=SIDES, width=SIDES, size=SIDES, allow=st.booleans())
    def test_longest_side(self, height, width, size, allow):
        image = noise(height, width)
        result = images.resize(image, size, allow_upscale=allow)
        h, w = result.shape[-2:]
        is_currency(result, h, w)
        if size > max(height, width) and not allow:
            assert result is image
        else:
            assert max(h, w) == size
            assert abs(min(h, w) - max(1, min(height, width) * size / max(height, width))) <= 0.5
            assert (h >= w) == (height >= width) or h == w

    def test_a_pair_is_exact(self):
        is_currency(images.resize(noise(5, 70), (64, 1)), 64, 1)

    def test_antialiased(self):
        # One-pixel stripes have no detail left at a quarter of the size: a uniform gray, not a beat.
        stripes = torch.arange(256).remainder(2).float().expand(1, 3, 256, 256)
        middle = images.resize(stripes, 60)[..., 5:-5]
        assert (middle - 0.5).abs().max() < 0.02

    def test_masks_batches_and_gradients(self):
        assert images.resize(noise(9, 9, channels=1), 4).shape == (1, 1, 4, 4)
        batch = noise(9, 9).repeat(3, 1, 1, 1).requires_grad_()
        result = images.resize(batch, 4)
        assert result.shape == (3, 3, 4, 4)
        result.sum().backward()
        assert batch.grad is not None

    def test_load_with_size(self, tmp_path):
        images.save_image(noise(30, 60), tmp_path / "a.png")
        assert torch.equal(images.load_image(tmp_path / "a.png", size=20), images.resize(noise(30, 60), 20))
        assert images.load_image(tmp_path / "a.png", size=500).shape[-2:] == (30, 60)

    @pytest.mark.parametrize("size", [0, 2.5, "9", (0, 5), True])
    def test_bad_size(self, size):
        with pytest.raises(SettingError, match=r"size is|in size is"):
            images.resize(noise(4, 4), size)


class TestSquare:
    @FEW
    @given(height=SIDES, width=SIDES, size=st.one_of(st.none(), SIDES), allow=st.booleans())
    def test_square(self, height, width, size, allow):
        side = min(height, width)
        expected = side if size is None else size if allow else min(size, side)
        is_currency(images.square(noise(height, width), size, allow_upscale=allow), expected, expected)

    def test_it_is_the_middle(self):
        assert torch.equal(images.square(noise(4, 9)), noise(4, 9)[..., 2:6])


BAD_TENSORS: dict[str, tuple[Any, str]] = {
    "no tensor": (np.zeros((1, 3, 4, 4), np.float32), "not ndarray: load it with load_image"),
    "no batch": (torch.zeros(3, 4, 4), r"not \(3, 4, 4\).*image\[None\]"),
    "channels last": (torch.zeros(1, 4, 5, 3), r"not \(1, 4, 5, 3\).*image\.permute"),
    "no pixels": (torch.zeros(1, 3, 0, 4), r"not \(1, 3, 0, 4\)"),
    "bytes": (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"image\.float\(\) / 255"),
}
BAD_VALUES: dict[str, tuple[torch.Tensor, str]] = {
    "nan": (torch.full((1, 3, 4, 4), torch.nan), "not numbers"),
    "above": (torch.full((1, 3, 4, 4), 1.01), r"from 1.01 to 1.01.*\.clamp\(0, 1\)"),
    "below": (torch.full((1, 3, 4, 4), -0.01), r"from -0.01.*\.clamp\(0, 1\)"),
    "0 to 255": (torch.linspace(0, 255, 48).view(1, 3, 4, 4), "from 0 to 255.*divide by 255"),
    "batch": (torch.zeros(2, 3, 4, 4), r"not \(2, 3, 4, 4\).*image\[i : i \+ 1\]"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_bad_tensor(kind, tmp_path):
    tensor, says = BAD_TENSORS[kind]
    for use in (lambda: images.resize(tensor, 2), lambda: images.to_pil(tensor)):
        with pytest.raises(ImageError, match=says):
            use()


@pytest.mark.parametrize("kind", BAD_VALUES)
def test_bad_values_are_not_saved(kind, tmp_path):
    tensor, says = BAD_VALUES[kind]
    with refused(ImageError, match=f"The picture .*{says}"):
        images.save_image(tensor, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- writing


class TestRoundTrip:
    @FEW
    @given(height=SIDES, width=SIDES, seed=st.integers(0, 9), channels=st.sampled_from([1, 3]))
    def test_png_is_exact(self, tmp_path, height, width, seed, channels):
        image = noise(height, width, seed, channels)
        path = images.save_image(image, tmp_path / "a.png")
        loaded = images.load_image(path)
        is_currency(loaded, height, width)
        assert torch.equal(loaded, image.expand(1, 3, -1, -1))

    @FEW
    @given(value=st.floats(-0.00390625, 1.00390625, width=32))
    def test_rounded_to_the_nearest_level_and_clamped(self, value):
        saved = images.from_pil(images.to_pil(torch.full((1, 3, 1, 1), value)))
        assert abs(saved[0, 0, 0, 0].item() - min(max(value, 0), 1)) <= 0.5 / 255 + 1e-6

    @pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".webp", ".PNG"])
    def test_lossy_is_near(self, tmp_path, ending):
        image = images.resize(noise(8, 8), 64, allow_upscale=True)
        loaded = images.load_image(images.save_image(image, tmp_path / f"a{ending}"))
        is_currency(loaded, 64, 64)
        assert (loaded - image).abs().mean() < 0.02


class TestSettings:
    @pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
    @pytest.mark.parametrize("value", [{"a": [1, 0.1, None, {"β\n": "é🎨\0"}], "": True}, {}, None])
    def test_come_back(self, tmp_path, value, ending):
        path = images.save_image(noise(3, 5), tmp_path / f"a.{ending}", settings=value)
        assert images.read_settings(path) == value

    def test_foreign_comment_is_not_ours(self, tmp_path):
        exif = Image.Exif()
        exif[0x8769] = {0x9286: b"ASCII\0\0\0a photograph of mine"}
        images.to_pil(noise(3, 5)).save(tmp_path / "a.jpg", exif=exif)
        assert images.read_settings(tmp_path / "a.jpg") is None

    def test_damaged(self, tmp_path):
        info = PngImagePlugin.PngInfo()
        info.add_itxt("nstlib", '{"steps": ')
        images.to_pil(noise(3, 5)).save(tmp_path / "a.png", pnginfo=info)
        with pytest.raises(ImageError, match=r"a\.png' cannot be read \(.*\): get it again"):
            images.read_settings(tmp_path / "a.png")


class TestWriting:
    def test_makes_the_folder_and_returns_the_path(self, tmp_path):
        path = tmp_path / "new" / "deep" / "a.png"
        assert images.save_image(noise(2, 2), str(path)) == path
        assert [p.name for p in path.parent.iterdir()] == ["a.png"]

    @pytest.mark.parametrize("name", ["a", "a.gif", "a.png.bak"])
    def test_unknown_ending(self, tmp_path, name):
        for use in (images.check_writable, lambda path: images.save_image(noise(2, 2), path)):
            with pytest.raises(SettingError, match=r"does not say.*\.png, \.jpg, \.jpeg, \.webp\."):
                use(tmp_path / name)

    @pytest.mark.parametrize(
        ("error", "says"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), "disk is full: free some space"),
            (PermissionError(errno.EACCES, "Permission denied"), "Permission denied: choose another name or"),
        ],
    )
    def test_failure_leaves_the_old_file(self, tmp_path, monkeypatch, error, says):
        path = images.save_image(noise(6, 6), tmp_path / "a.png")
        before = path.read_bytes()

        def fail(*args: Any) -> None:
            raise error

        monkeypatch.setattr(os, "replace", fail)
        with refused(ImageError, match=rf"a\.png' is not saved.*{says}"):
            images.save_image(noise(6, 6, seed=1), path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"], "no half-written file stays behind"

    @pytest.mark.parametrize("folder", [False, True])
    def test_a_killed_writer_leaves_nothing_that_the_next_one_does_not_clear(self, tmp_path, folder):
        path = tmp_path / "a [1].txt"
        code = (
            "import os, signal, sys; from nstlib.assets.writing import atomic\n"
            "with atomic(sys.argv[1]) as part:\n"
            f"    part.{'mkdir()' if folder else 'touch()'}; os.kill(os.getpid(), signal.SIGTERM)"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=False)
        (left,) = tmp_path.iterdir()
        assert left.name != path.name
        others = tmp_path / f".nst-{os.getppid()}-{path.name}"  # another process that lives writes it, too
        others.touch()
        write_atomic(path, b"whole")
        assert set(tmp_path.iterdir()) == {path, others}

    def test_a_folder_in_the_way_or_a_file_in_place_of_one(self, tmp_path):
        (tmp_path / "a.png").mkdir()
        (tmp_path / "file").write_text("x")
        for name, says in (
            ("a.png", "it is the name of a folder"), ("file/a.png", "is no folder"),
            ("file/deep/a.png", "is no folder"),
        ):  # fmt: skip
            with refused(ImageError, match=f"{name}' is not saved because .*{says}"):
                images.save_image(noise(2, 2), tmp_path / name)
        assert {p.name for p in tmp_path.iterdir()} == {"a.png", "file"}


def test_a_huge_jpeg_is_decoded_small(tmp_path, picture, monkeypatch):
    images.save_image(picture(960, 1280), tmp_path / "huge.jpg")
    whole = images.load_image(tmp_path / "huge.jpg", size=80)
    monkeypatch.setattr(images, "_HUGE", 100_000)
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    small = images.load_image(tmp_path / "huge.jpg", size=80)
    assert small.shape == whole.shape == (1, 3, 60, 80)
    assert (small - whole).abs().mean() < 0.01
    assert images.readable([tmp_path / "huge.jpg"]) == [tmp_path / "huge.jpg"]
    for size in (None, 1000):  # as large as may be: a quarter of each side
        assert images.load_image(tmp_path / "huge.jpg", size=size).shape == (1, 3, 240, 320)
    images.save_image(picture(960, 1280), tmp_path / "huge.png")
    with pytest.raises(ImageError, match="more than"):
        images.load_image(tmp_path / "huge.png", size=80)


def test_the_largest_page_of_a_tiff(tmp_path, picture):
    pages = [images.to_pil(picture(h, w, seed)) for seed, (h, w) in enumerate(((6, 8), (60, 80), (12, 16)))]
    pages[0].save(tmp_path / "raw.tif", save_all=True, append_images=pages[1:])
    loaded = images.load_image(tmp_path / "raw.tif")
    assert torch.equal(loaded, images.from_pil(pages[1]))


# ------------------------------------------------------------------------------------------ TIFFs and AVIF


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["rgb", "rgba", "cmyk", "gray"])
@pytest.mark.parametrize("layout", ["contig", "separate", "strips", "tiles", "zlib", "big endian"])
def test_a_tiff_of_any_layout(tmp_path, picture, bits, kind, layout):
    tifffile = pytest.importorskip("tifffile")
    values = np.array(images.to_pil(picture(50, 70, 3))).astype(f"uint{bits}") * (257 if bits == 16 else 1)
    white = np.full_like(values[..., :1], 2**bits - 1)
    stored = {
        "rgb": values, "rgba": np.concatenate([values, white], 2), "gray": values[..., 0],
        "cmyk": np.concatenate([2**bits - 1 - values, 0 * white], 2),
    }[kind]  # fmt: skip
    photometric = {"cmyk": "separated", "gray": "minisblack"}.get(kind, "rgb")
    options = {"extrasamples": ["unassalpha"]} if kind == "rgba" else {}
    options |= {"strips": {"rowsperstrip": 16}, "tiles": {"tile": (32, 32)}, "zlib": {"compression": "zlib"},
                "big endian": {"byteorder": ">"}}.get(layout, {})  # fmt: skip
    if layout != "contig" and kind != "gray":
        options["planarconfig"], stored = "separate", np.moveaxis(stored, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, **options)
    expected = torch.from_numpy(values // (257 if bits == 16 else 1)).permute(2, 0, 1)[None] / 255
    expected = expected[:, :1].expand(1, 3, -1, -1) if kind == "gray" else expected
    assert (images.load_image(tmp_path / "a.tif") - expected).abs().max() < 1e-6


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_an_avif_of_brand_mif1_is_read(tmp_path, picture):
    images.to_pil(picture(40, 50)).save(tmp_path / "a.avif")
    content = (tmp_path / "a.avif").read_bytes()
    assert content[8:12] == b"avif"
    expected = images.load_image(tmp_path / "a.avif")
    for brand in (b"mif1", b"msf1"):
        (tmp_path / "a.avif").write_bytes(content[:8] + brand + content[12:])
        assert torch.equal(images.load_image(tmp_path / "a.avif"), expected)


# -------------------------------------------------------------------------------------------- transparency


def cutout(mode: str, alpha: np.ndarray) -> Image.Image:
    """A red picture (gray in LA) with this opacity, 8 bits (H, W)."""
    im = Image.new("RGBA", alpha.shape[::-1], (200, 40, 30, 255))
    im.putalpha(Image.fromarray(alpha))
    if mode == "P":  # one of its colors is transparent
        return im.quantize()
    return im.convert(mode)


ALPHA = np.zeros((40, 60), np.uint8)
ALPHA[10:30, 15:45] = 255


@pytest.mark.parametrize(
    ("mode", "ending"), [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "gif"), ("RGBA", "webp"),
                         ("RGBA", "tif")],
)  # fmt: skip
@pytest.mark.parametrize("size", [None, 30])
def test_transparency_is_read_with_the_colors_that_can_be_seen(tmp_path, mode, ending, size):
    lossless = {"lossless": True} if ending == "webp" else {}
    cutout(mode, ALPHA).save(tmp_path / f"a.{ending}", **lossless)
    image, alpha = images.load_cutout(tmp_path / f"a.{ending}", size=size)
    assert image.shape[-2:] == alpha.shape[-2:] == ((20, 30) if size else (40, 60))
    assert alpha.mean() == pytest.approx(0.25, abs=0.01)
    red = image[..., 10, 15] if size else image[..., 20, 30]
    for edge in (alpha > 0.02).nonzero():  # up to the border no white is mixed in
        assert (image[:, :, edge[2], edge[3]] - red).abs().max() < 0.06
    assert (image.amin(1, keepdim=True)[alpha == 0] == 1).all()
    assert torch.equal(images.load_cutout(tmp_path / f"a.{ending}")[0][..., 0, 0], torch.ones(1, 3))


def test_an_opaque_picture_has_no_transparency(tmp_path, picture):
    for mode in ("RGB", "RGBA", "L", "P"):
        images.to_pil(picture(20, 30)).convert(mode).save(tmp_path / "a.png")
        assert images.load_cutout(tmp_path / "a.png")[1] is None


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_transparency_is_saved_where_the_format_knows_it(tmp_path, picture, ending):
    alpha = torch.linspace(0, 1, 60).expand(1, 1, 40, 60)
    path = images.save_image(picture(40, 60), tmp_path / f"a.{ending}", alpha=alpha, settings={"a": 1})
    found = images.load_cutout(path)[1]
    if ending == "jpg":
        assert found is None
        assert (images.load_image(path)[..., 0] > 0.95).all()
    else:
        assert (found - alpha).abs().max() < 0.01
    assert images.read_settings(path) == {"a": 1}


def test_a_style_is_what_is_opaque_of_it(tmp_path, picture):
    painting = images.to_pil(picture(50, 70, 5))
    images.to_pil(picture(50, 70, 5)).save(tmp_path / "whole.png")
    around = Image.new("RGBA", (200, 150), (255, 0, 0, 0))
    around.paste(painting, (40, 30))
    around.save(tmp_path / "around.png")
    for size in (None, 35):
        whole = images.load_style(tmp_path / "whole.png", size=size)
        assert (images.load_style(tmp_path / "around.png", size=size) - whole).abs().max() < 1e-5


@pytest.mark.parametrize("shape", ["disc", "ring", "line", "points"])
def test_holes_in_a_style_are_filled_with_what_is_around_them(tmp_path, shape):
    """Stripes of two colors stay these, and nearly as much of each."""
    y, x = np.mgrid[:80, :100]
    radius = np.hypot(y - 40, x - 50)
    seen = {"disc": radius < 38, "ring": (radius > 20) & (radius < 38), "line": abs(y - x) < 1,
            "points": (y % 20 == 3) & (x % 30 == 7)}[shape]  # fmt: skip
    colors = np.where((x // 4 % 2 == 0)[..., None], (200, 40, 30), (20, 60, 180)).astype(np.uint8)
    rgba = np.concatenate([np.where(seen[..., None], colors, 255), 255 * seen[..., None]], 2).astype(np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    style = images.load_style(tmp_path / "a.png")[0].mul(255).round()
    blue = (style == torch.tensor([20, 60, 180.0])[:, None, None]).all(0)
    red = (style == torch.tensor([200, 40, 30.0])[:, None, None]).all(0)
    assert (red | blue).all()
    if shape in ("disc", "ring"):
        assert 0.35 < blue.float().mean() < 0.65


def test_a_style_that_is_transparent_everywhere_is_refused(tmp_path):
    cutout("RGBA", 0 * ALPHA).save(tmp_path / "a.png")
    with refused(ImageError, match="transparent everywhere: take another picture as style"):
        images.load_style(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "LA"])
def test_a_mask_of_any_size_is_brightness_or_opacity(tmp_path, mode):
    mask = Image.fromarray(ALPHA) if mode in ("L", "1", "RGB") else cutout(mode, ALPHA)
    mask.convert(mode).save(tmp_path / "m.png")
    for height, width in ((40, 60), (20, 30), (80, 120), (27, 41)):
        found = images.load_mask(tmp_path / "m.png", torch.zeros(1, 3, height, width))
        assert found.shape == (1, 1, height, width)
        assert found.mean() == pytest.approx(0.25, abs=0.02)
        assert found[..., height // 2, width // 2] > 0.99
        assert found[..., 0, 0] < 0.01
    with refused(ImageError, match="60 × 40 pixels has other proportions than its picture of 40 × 60"):
        images.load_mask(tmp_path / "m.png", torch.zeros(1, 3, 60, 40))


def test_all_that_is_left_out_is_named(tmp_path, picture):
    images.save_image(picture(20, 30), tmp_path / "good.png")
    for number in range(7):
        (tmp_path / f"bad{number}.png").write_text("no picture")
    with pytest.warns(LeftOut, match="Of 8 pictures 7 are left out: ") as caught:
        assert images.readable(images.list_pictures(tmp_path)) == [tmp_path / "good.png"]
    assert all(f"bad{number}.png" in str(caught[0].message) for number in range(7))
