"""The command nst stylize: what each option does, what goes wrong, and what a run that is stopped leaves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import torch
from click.testing import CliRunner
from conftest import Killed, one_sentence, read_film
from PIL import Image
from test_video import heard, recorded

from nstlib.assets import movements
from nstlib.cli import __main__ as command
from nstlib.cli import stylize as own
from nstlib.errors import ImageError, LeftOut
from nstlib.faces import parse as regions
from nstlib.methods import gatys
from nstlib.nets import hardware
from nstlib.pictures import files as images
from nstlib.pictures import video

TINY = ("--iterations", 2, "--device", "cpu", "--precision", "float32", "--quiet")


@pytest.fixture
def nst(nst, monkeypatch, capfd, tmp_path):
    """``nst(face, painting, ...)``: exit status, standard output and error of `nst stylize` in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            return nst("stylize", *arguments)
        except Killed:
            return -9, *capfd.readouterr()

    return run


@pytest.fixture
def files(tmp_path, picture):
    """Two faces and paintings, and what else a folder may hold; run in, so that names are enough."""
    images.save_image(picture(36, 40, 1), tmp_path / "face.png")
    images.save_image(picture(50, 35, 2), tmp_path / "painting.jpg")
    images.save_image(picture(33, 47, 3), tmp_path / "wave.png")
    frames = [images.to_pil(picture(34, 41, 4)[..., i : i + 39]) for i in range(3)]
    for ending in ("gif", "webp"):
        frames[0].save(tmp_path / f"clip.{ending}", save_all=True, append_images=frames[1:], duration=100)
        frames[0].save(tmp_path / f"still.{ending}")
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """Instead of the work: what it was asked for. Results are gray."""
    calls = []

    def stylize(content, style, settings, **options):
        calls.append(SimpleNamespace(content=content, guides=style, settings=settings, **options))
        return gatys.Result(torch.full_like(content, 0.5), settings)

    monkeypatch.setattr(gatys, "stylize", stylize)
    return calls


@pytest.fixture
def no_work(monkeypatch):
    """Whoever gets as far as the optimization fails the test."""
    for name in ("stylize", "stylize_clip"):
        monkeypatch.setattr(gatys, name, lambda *a, **k: pytest.fail("the work was begun"))


@pytest.fixture
def halves(monkeypatch):
    """Regions without a parser: each is the left or the right half of a picture, hair nowhere to be seen."""
    told = SimpleNamespace(softness=None, names=None, parsers=0)

    def region_masks(image, names, *, softness, parser):
        told.softness, told.names = softness, names
        masks = {}
        for name in names:
            masks[name] = torch.zeros_like(image[:, :1])
            half = image.shape[-1] // 2
            if name != "hair":
                masks[name][..., :half] = name == "face"
                masks[name][..., half:] = name != "face"
        return masks

    def parser(device):
        told.parsers += 1
        return "a parser"

    monkeypatch.setattr(regions, "region_masks", region_masks)
    monkeypatch.setattr(regions, "FaceParser", parser)
    return told


def interrupt(monkeypatch, after, kind=KeyboardInterrupt):
    """Raise in the given evaluation of the loss, counted from 1."""
    evaluate, count = gatys.Objective.gradient, []

    def gradient(self, image):
        count.append(1)
        if len(count) == after:
            raise kind
        return evaluate(self, image)

    monkeypatch.setattr(gatys.Objective, "gradient", gradient)


# ---------------------------------------------------------------------------------------------------- help


def test_the_help_fits_a_terminal_and_lists_every_option_once(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(command.cli, ["stylize", "-h"], terminal_width=80).output
    assert max(map(len, text.splitlines())) <= 80
    for heading in own.stylize.groups:
        assert f"\n{heading}:\n" in text
    starts = [line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")]
    listed = [parameter for parameter in own.stylize.params if isinstance(parameter, click.Option)]
    assert sorted(starts) == sorted(["-h", *(option.opts[0] for option in listed)])
    # The examples stand on lines of their own, not run together.
    assert "  nst stylize me.jpg --movement impressionism --color luminance\n" in text


# --------------------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--color coral", {"color": "coral"}),
        ("--style-weight 3.5", {"style_weight": 3.5}),
        ("--smallest 32", {"smallest": 32}),
        ("--network alexnet", {"network": "alexnet", "content_layers": ("relu3",)}),
        ("--optimizer adam --averaging 0.99", {"optimizer": "adam", "averaging": 0.99}),
        ("--recipe paper_d", {"optimizer": "adam", "iterations": 1000, "content_layers": ("relu5_2",)}),
        ("--recipe paper_d --iterations 5", {"optimizer": "adam", "iterations": 5}),
        ("--recipe paper_a --init content", {"init": "content", "network": "vgg16"}),
    ],
)
def test_an_option_changes_its_settings_and_nothing_else(nst, files, asked, options, expected):
    assert nst("face.png", "painting.jpg", *options.split())[0] == 0
    settings = asked[0].settings
    start = gatys.recipe(options.split()[1]).settings if "--recipe" in options else gatys.Settings()
    assert settings == start.changed(**expected)


def test_what_is_not_asked_for_is_the_librarys_default(nst, files, asked):
    code, out, err = nst("face.png", "painting.jpg")
    assert (code, err) == (0, "")
    assert out == "done: stylized.png (40×36), 0 s\n"
    assert images.load_image("stylized.png").shape == (1, 3, 36, 40)
    (call,) = asked
    assert call.settings == gatys.Settings()
    assert (call.seed, str(call.device), call.precision) == (0, str(hardware.resolve_device()), "auto")
    assert call.progress is True
    assert call.callback is None
    (guide,) = call.guides
    assert torch.equal(guide.styles[0], images.load_image("painting.jpg"))
    assert guide.mask is None


def test_the_command_gives_the_librarys_picture_and_its_file_says_how(nst, files, random_networks):
    options = ("--iterations", 2, "--optimizer", "adam", "--init", "noise", "--seed", 5, "--network", "vgg16")
    options += ("--device", "cpu", "--precision", "float32", "--style-size", 32, "--quiet", "--size", 38)
    code, said, err = nst("face.png", "painting.jpg", "-o", "new folder/out.png", *options)
    assert (code, err) == (0, "")
    assert said.startswith("done: new folder/out.png (38×34), ")
    settings = gatys.Settings(network="vgg16", optimizer="adam", init="noise", iterations=2)
    expected = gatys.stylize(
        images.load_image("face.png", size=38), images.load_image("painting.jpg", size=32), settings,
        seed=5, device="cpu", precision="float32", progress=False,
    )  # fmt: skip
    difference = (images.load_image("new folder/out.png") - expected.image).abs().max()
    assert difference <= 0.5 / 255 + 1e-6  # rounding to 8 bits, nothing else
    kept = images.read_settings("new folder/out.png")
    assert (kept["content_file"], kept["style_file"]) == ("face.png", "painting.jpg")
    assert (kept["method"], kept["network"], kept["seed"]) == ("gatys", "vgg16", 5)
    assert (kept["iterations"], kept["final"]["iteration"], kept["interrupted"]) == (2, 2, False)
    assert kept["style_layers"] == list(gatys.FIVE_BLOCKS)
    assert [path.name for path in Path("new folder").iterdir()] == ["out.png"]  # no half-written file


@pytest.mark.parametrize(
    ("shape", "options", "smallest", "iterations", "before"),
    [
        ((20, 1024), "", 128, 25, 100),
        ((20, 1024), "--iterations 40", 128, 40, None),
        ((20, 512), "", 128, 50, None),
        ((20, 512), "--fast", 128, 15, None),
        ((20, 1024), "--recipe gatys_2016", None, 500, None),
    ],
)
def test_large_results_end_with_fewer_steps(nst, files, asked, shape, options, smallest, iterations, before):
    images.save_image(torch.rand(1, 3, *shape), "large.png")
    assert nst("large.png", "painting.jpg", "--size", 1024, *options.split())[0] == 0
    found = asked[0].settings
    assert (found.smallest, found.iterations, found.coarse_iterations) == (smallest, iterations, before)


@pytest.mark.parametrize(
    ("content", "options", "longest"),
    [
        ((150, 200), "", 200),  # as large as the result
        ((300, 400), "--size 250", 250),
        ((30, 40), "", 128),  # but not too small to be a painting
        ((150, 200), "--style-size 64", 64),
    ],
)
def test_strokes_are_in_proportion_to_the_result(nst, files, asked, content, options, longest):
    images.save_image(torch.rand(1, 3, *content), "content.png")
    images.save_image(torch.rand(1, 3, 500, 300), "large.png")
    assert nst("content.png", "large.png", *options.split())[0] == 0
    assert max(asked[0].guides[0].styles[0].shape[-2:]) == longest
    assert images.read_settings("stylized.png")["style_size"] == longest


def test_styles_are_blended_by_their_shares(nst, files, asked):
    assert nst("face.png", "painting.jpg", "wave.png", "--share", 1, "--share", 3)[0] == 0
    (guide,) = asked[0].guides
    assert [tuple(style.shape[-2:]) for style in guide.styles] == [(50, 35), (33, 47)]
    assert guide.shares == (1, 3)
    kept = images.read_settings("stylized.png")
    assert (kept["style_file"], kept["shares"]) == ("painting.jpg, wave.png", [1, 3])


def test_a_movement_gives_its_paintings(nst, files, asked):
    assert nst("face.png", "painting.jpg", "--movement", "Art Nouveau")[0] == 0
    theirs = [painting.path.name for painting in movements.paintings("art nouveau")]
    assert theirs
    assert len(asked[0].guides[0].styles) == 1 + len(theirs)
    assert images.read_settings("stylized.png")["style_file"] == ", ".join(["painting.jpg", *theirs])


def test_regions_have_the_common_style_or_their_own(nst, files, asked, halves):
    options = ("--region", "face", "--region", f"background={files / 'wave.png'}")
    assert nst("face.png", "painting.jpg", *options)[0] == 0
    face, background = asked[0].guides
    assert tuple(face.styles[0].shape[-2:]) == (50, 35)
    assert tuple(background.styles[0].shape[-2:]) == (33, 47)
    assert (face.mask[..., :20] == 1).all()
    assert (face.mask + background.mask == 1).all()
    assert (halves.names, halves.parsers) == (["face", "background"], 1)
    assert halves.softness == pytest.approx(40 / 60)
    # The picture goes around; where its owner keeps his files does not go with it.
    assert images.read_settings("stylized.png")["regions"] == ["face", "background=wave.png"]


def test_a_region_may_bring_the_only_style_and_without_a_face_needs_no_parser(nst, files, asked, halves):
    assert nst("face.png", "--region", "person=wave.png", "--softness", 2.5)[0] == 0
    assert (halves.parsers, halves.softness) == (0, 2.5)
    assert images.read_settings("stylized.png")["style_file"] == ""


def mask_file(path, height, width):
    """White on the right half."""
    mask = torch.zeros(1, 1, height, width)
    mask[..., width // 2 :] = 1
    return images.save_image(mask, path)


@pytest.mark.parametrize("sides", [(36, 40), (72, 80), (18, 20)])
def test_a_mask_of_ones_own_beside_a_face(nst, files, asked, halves, sides):
    mask_file(files / "m.png", *sides)
    assert nst("face.png", "painting.jpg", "--region", "face", "--region", "m.png=wave.png")[0] == 0
    face, own = asked[0].guides
    assert tuple(own.styles[0].shape[-2:]) == (33, 47)
    assert (face.mask[..., :18] == 1).all()
    assert (own.mask[..., :18] < 0.01).all()
    assert (own.mask[..., 22:] > 0.99).all()
    assert halves.names == ["face"]
    assert images.read_settings("stylized.png")["regions"] == ["face", "m.png=wave.png"]


def test_a_mask_alone_needs_no_network_and_takes_the_common_style(nst, files, asked, halves):
    mask_file(files / "m.png", 36, 40)
    assert nst("face.png", "painting.jpg", "--region", files / "m.png", "-o", "out.png")[0] == 0
    assert (halves.names, halves.parsers) == (None, 0)
    assert tuple(asked[0].guides[0].styles[0].shape[-2:]) == (50, 35)
    assert "would overwrite" in nst("face.png", "painting.jpg", "--region", "m.png", "-o", "m.png")[2]


def test_a_mask_for_a_method_of_one_pass(nst, files, random_networks):
    mask_file(files / "m.png", 36, 40)
    options = ("--method", "adain", "--device", "cpu", "-o", "out.png")
    assert nst("face.png", "painting.jpg", "--region", "m.png", *options)[0] == 0
    change = (images.load_image("out.png") - images.load_image("face.png")).abs().amax(1)
    assert (change[..., :20] == 0).all()
    assert change[..., 20:].mean() > 0.02
    err = one_sentence(*nst("face.png", "ink", "--region", "m.png", "--method", "u2_local"))
    assert "finds them itself" in err


def test_a_mask_that_does_not_fit_is_refused(nst, files, no_work, halves):
    mask_file(files / "wide.png", 20, 90)
    images.save_image(torch.zeros(1, 1, 36, 40), files / "black.png")
    told = {
        "wide.png": "has other proportions", "black.png": "no black.png to be seen",
        "nobody.png": "no picture 'nobody.png'", "hairs": "There is no region 'hairs'",
    }  # fmt: skip
    for name, words in told.items():
        assert words in one_sentence(*nst("face.png", "painting.jpg", "--region", name))


# ------------------------------------------------------------------------------------------- transparency


@pytest.fixture
def cutout(files, picture):
    """A cut-out picture: transparent on the left half."""
    im = images.to_pil(picture(36, 40, 7))
    im.putalpha(Image.fromarray((torch.arange(40) >= 20).to(torch.uint8).mul(255).expand(36, 40).numpy()))
    im.save(files / "cutout.png")
    return files


@pytest.mark.parametrize("method", ["gatys", "adain", "johnson"])
@pytest.mark.parametrize("output", ["out.png", "out.webp", "out.jpg"])
def test_a_cut_out_picture_stays_cut_out(nst, cutout, random_networks, method, output):
    style = "starry_night" if method == "johnson" else "painting.jpg"
    options = TINY if method == "gatys" else ("--device", "cpu")
    assert nst("cutout.png", style, "-o", output, "--method", method, *options)[0] == 0
    made, alpha = images.load_cutout(output)
    if output == "out.jpg":
        assert made[..., :12].mean() > 0.97
        return
    assert (alpha[..., :20] == 0).all()
    assert (alpha[..., 20:] == 1).all()


def test_transparent_parts_of_a_style_do_not_count(nst, cutout, asked):
    assert nst("face.png", "cutout.png", "--region", "person=cutout.png")[0] == 1  # no person there
    assert nst("face.png", "cutout.png")[0] == 0
    (style,) = asked[0].guides[0].styles
    assert style.shape == (1, 3, 36, 20)
    assert torch.equal(style, images.load_cutout("cutout.png")[0][..., 20:])


# --------------------------------------------------------------------------------------------------- faces


@pytest.fixture
def drawn(files, picture, monkeypatch):
    """Three faces in a picture of 120×60; a portrait is drawn red."""
    from nstlib.faces import align
    from nstlib.faces.detect import Face

    points = torch.tensor([[7.0, 8.0], [13.0, 8.0], [10.0, 11.0], [8.0, 14.0], [12.0, 14.0]])
    faces = [Face((x + 4, 24, x + 16, 38), points + torch.tensor([x, 20.0]), 0.9) for x in (10, 50, 90)]
    monkeypatch.setattr(align, "find_faces", lambda image: faces)
    monkeypatch.setattr(regions, "FaceParser", lambda device: None)
    monkeypatch.setattr(regions, "head_mask", lambda portrait, parser: torch.ones_like(portrait[:, :1]))
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    method = SimpleNamespace(size=32, about={}, stylize=lambda picture, style, **_: red.expand_as(picture))
    monkeypatch.setattr(own.Job, "_open", lambda self, words, size: (method, None))
    images.save_image(torch.full((1, 3, 60, 120), 0.5), files / "class.png")
    return files


def test_all_faces_or_one_are_put_back(nst, drawn):
    def red(*options):
        assert nst("class.png", "ink:2", "--method", "dualstylegan", "-o", "o.png", *options)[0] == 0
        made = images.load_image("o.png")
        return [bool(made[0, 0, 30, x] > 0.9) for x in (20, 60, 100)]

    assert red("--face", "all", "--paste") == [True, True, True]
    assert red("--face", 2, "--paste") == [False, True, False]
    assert red("--paste") == [True, False, False]
    assert nst("class.png", "ink:2", "--method", "dualstylegan", "-o", "o.png", "--face", 3)[0] == 0
    assert images.load_image("o.png").shape == (1, 3, 32, 32)
    command = ("class.png", "ink:2", "--method", "dualstylegan", "--face", "all")
    assert "write --paste as well" in one_sentence(*nst(*command))
    assert "'some' is not a valid integer" in one_sentence(*nst(*command[:-1], "some"), status=2)


# -------------------------------------------------------------------------------------------------- memory


@pytest.fixture
def small_memory(asked, monkeypatch):
    """``small_memory(error, most)``: a picture with more pixels a side ends so."""
    paint = gatys.stylize

    def limit(error, most):
        def stylize(content, *rest, **options):
            if max(content.shape[-2:]) > most:
                raise error
            return paint(content, *rest, **options)

        monkeypatch.setattr(gatys, "stylize", stylize)

    return limit


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
    ],
)
def test_with_too_little_memory_a_picture_is_painted_as_large_as_fits(nst, files, small_memory, error):
    small_memory(error, 120)
    images.save_image(torch.rand(1, 3, 40, 240), files / "large.png")
    code, out, err = nst("large.png", "painting.jpg", "--size", 4096)
    assert code == 0
    assert err.splitlines() == [
        "nst: 240 pixels take more memory than there is: painting 170 instead.",
        "nst: 170 pixels take more memory than there is: painting 120 instead.",
    ]
    assert "(120×20)" in out


def test_where_nothing_fits_it_is_said_and_another_error_is_a_bug(nst, files, small_memory):
    small_memory(MemoryError(), 0)
    err = one_sentence(*nst("face.png", "painting.jpg"))
    assert "Memory is too small to paint 'face.png'" in err
    small_memory(RuntimeError("a bug"), 0)
    with pytest.raises(RuntimeError, match="a bug"):
        nst("face.png", "painting.jpg")


# ----------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("face.png", "There is no style: name a picture after the content, a --movement"),
        ("nobody.png painting.jpg", "no picture 'nobody.png'"),
        ("face.png painting.jpg --iterations 0", "iterations should be "),
        ("face.png painting.jpg -o out.png.bak", "in which format to save: end the name in .png"),
        ("face.png painting.jpg --share 1 --share 2", "1 styles need as many shares"),
        ("face.png painting.jpg --region tail", "no region 'tail': choose from eyebrow"),
        ("face.png painting.jpg --region face --region face=wave.png", "'face' is named twice"),
        ("face.png --region face=wave.png --region hair", "There is no style: name a picture"),
        ("face.png painting.jpg --region face=wave.png", "Every region has its own style"),
        ("face.png painting.jpg --softness 3", "--softness is the width of a region's border"),
        ("face.png painting.jpg --device abacus", "'abacus' is no device"),
        ("face.png painting.jpg -o out.webp --film ./out.webp", "would overwrite another"),
        ("clip.gif painting.jpg -o out.png", "does not say in which format to save"),
        ("clip.gif painting.jpg --film film.mp4", "--film is for pictures"),
        ("clip.webp painting.jpg --region face", "--region is for pictures"),
        ("nobody.mp4 painting.jpg", "There is no film 'nobody.mp4'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_the_work(nst, files, no_work, monkeypatch, arguments, words):
    monkeypatch.setattr(regions, "FaceParser", lambda *a: pytest.fail("a network was loaded"))
    before = sorted(path.name for path in files.iterdir())
    assert words in one_sentence(*nst(*arguments.split()))
    assert sorted(path.name for path in files.iterdir()) == before


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--seed=-1", "Invalid value for '--seed'"),
        ("--size=15", "Invalid value for '--size'"),
        ("--network=vgg13", "'vgg13' is not one of 'vgg19', 'vgg16', 'alexnet'"),
    ],
)
def test_a_bad_option_is_clicks_usage_error(nst, files, no_work, option, word):
    err = one_sentence(*nst("face.png", "painting.jpg", option), status=2)
    assert word in err
    assert err.startswith("Usage: nst stylize")


@pytest.mark.parametrize(
    "arguments",
    [
        "face.png painting.jpg -o face.png",
        "face.png painting.jpg wave.png -o wave.png",
        "face.png painting.jpg --region face --region lip=wave.png -o ./wave.png",
        "clip.gif painting.jpg -o clip.gif",
        "face.png still.webp --film still.webp",
    ],
)
def test_what_is_given_is_not_overwritten(nst, files, no_work, arguments):
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    assert "would overwrite another picture or film that you name" in one_sentence(*nst(*arguments.split()))
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


def test_a_region_that_is_not_to_be_seen_is_named(nst, files, no_work, halves):
    err = one_sentence(*nst("face.png", "painting.jpg", "--region", "face", "--region", "hair"))
    assert err == "nst: There is no hair to be seen in the picture: leave --region hair out.\n"


def test_a_folder_that_cannot_be_written_to(nst, files, no_work):
    assert "face.png" in one_sentence(*nst("face.png", "painting.jpg", "-o", "face.png/out.png"))
    assert "face.png" in one_sentence(*nst("face.png", "painting.jpg", "--film", "face.png/out.mp4"))
    assert "face.png" in one_sentence(*nst("clip.gif", "painting.jpg", "-o", "face.png/out.mp4"))


def test_a_loss_that_is_no_number_keeps_the_film_too(nst, files, random_networks):
    options = ("--optimizer", "adam", "--learning-rate", "1e38", "--iterations", 5, "--film", "film.gif")
    err = one_sentence(*nst("face.png", "painting.jpg", "-o", "out.png", *options, *TINY[2:]))
    assert "loss is not a number" in err
    assert "The picture is saved in 'out.png'." in err
    assert torch.isfinite(images.load_image("out.png")).all()
    assert Path("film.gif").exists()


# ---------------------------------------------------------------------- the film of a picture coming about


def test_the_film_shows_the_run_to_its_end_at_one_size(nst, files, random_networks):
    code, _, err = nst("face.png", "painting.jpg", "-o", "out.png", "--film", "film.webp", "--iterations", 5,
                       "--smallest", 32, *TINY[2:])  # fmt: skip
    assert (code, err) == (0, "")
    frames, fps = read_film("film.webp")
    assert len(frames) >= 5
    assert {tuple(frame.shape[-2:]) for frame in frames} == {(36, 40)}
    assert fps == pytest.approx(12, rel=0.02)
    first, last = ((frames[i] - images.load_image("out.png")).abs().mean() for i in (0, -1))
    assert last < 0.06  # WebP's own loss, on noise
    assert first > 1.1 * last


# -------------------------------------------------------------------------------- stopped, killed, resumed


@pytest.fixture
def often(monkeypatch):
    """Checkpoints after every iteration."""
    monkeypatch.setattr(own, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(own, "SAVE_SHARE", 0.0)


ADAM = ("--optimizer", "adam", "--init", "noise", "--iterations", 6, *TINY[2:])


@pytest.mark.parametrize("kind", [Killed, KeyboardInterrupt])
def test_after_a_kill_or_control_c_the_same_command_goes_on(
    nst, files, random_networks, monkeypatch, often, kind
):
    assert nst("face.png", "painting.jpg", "-o", "whole.png", *ADAM)[0] == 0
    with monkeypatch.context() as patch:
        interrupt(patch, 4, kind)
        code, out, err = nst("face.png", "painting.jpg", "-o", "out.png", *ADAM)
    assert (code, err) == (-9 if kind is Killed else 0, "")
    assert Path("out.png").exists() == (kind is not Killed)
    end = "; the same command goes on after iteration 3, from '.out.png.checkpoint'\n"
    assert out.endswith("" if kind is Killed else end)
    assert [path.name for path in files.glob(".*")] == [".out.png.checkpoint"]
    code, out, err = nst("face.png", "painting.jpg", "-o", "out.png", "--film", "film.gif", *ADAM)
    assert (code, err) == (0, "nst: going on after iteration 3, from '.out.png.checkpoint'.\n")
    assert out.startswith("done: out.png")
    assert torch.equal(images.load_image("out.png"), images.load_image("whole.png"))
    assert len(read_film("film.gif")[0]) >= 3
    assert not list(files.glob(".*"))


def test_an_old_checkpoint_of_something_else_does_no_harm(nst, files, random_networks, monkeypatch, often):
    with monkeypatch.context() as patch:
        interrupt(patch, 3, Killed)
        nst("face.png", "painting.jpg", "-o", "out.png", *ADAM)
    point = files / ".out.png.checkpoint"
    code, out, err = nst("face.png", "painting.jpg", "-o", "out.png", *ADAM, "--style-weight", 3)
    assert code == 0
    assert err == "nst: '.out.png.checkpoint' is of other pictures or settings: beginning anew.\n"
    assert out.startswith("done: out.png")
    assert images.read_settings("out.png")["final"]["iteration"] == 6
    assert not point.exists()


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_run(
    nst, files, random_networks, monkeypatch, often
):
    def full(self, content):
        raise ImageError("The checkpoint cannot be written.")

    monkeypatch.setattr(gatys.Checkpoint, "save", full)
    code, out, err = nst("face.png", "painting.jpg", "-o", "out.png", *ADAM)
    assert code == 0
    assert err.count("\n") == 1  # told once, not after each iteration
    assert "'.out.png.checkpoint' cannot be written" in err
    assert out.startswith("done: out.png")


def test_control_c_keeps_picture_and_film_and_without_a_checkpoint_none_is_read_or_written(
    nst, files, random_networks, monkeypatch, often
):
    (files / ".out.png.checkpoint").write_bytes(b"of something else")
    interrupt(monkeypatch, 4)
    options = ("--film", "film.gif", "--no-checkpoint", *ADAM)
    code, out, err = nst("face.png", "painting.jpg", "-o", "out.png", *options)
    assert (code, err) == (0, "")
    assert out.startswith("stopped after 3 iterations: out.png (40×36), ")
    assert "goes on" not in out
    assert len(read_film("film.gif")[0]) >= 3
    assert (files / ".out.png.checkpoint").read_bytes() == b"of something else"


# ------------------------------------------------------------------------------------- films in, films out


@pytest.mark.parametrize(("content", "output"), [("clip.gif", "o.mp4"), ("clip.webp", "o.gif")])
def test_a_film_becomes_a_film(nst, files, random_networks, content, output):
    code, out, err = nst(content, "painting.jpg", "-o", output, *TINY)
    assert (code, err) == (0, "")
    assert out.startswith(f"done: {output} (3 frames), ")
    frames, fps = read_film(output)
    assert len(frames) == 3
    assert fps == pytest.approx(10, rel=0.02)
    assert random_networks == ["vgg19"]


@pytest.fixture
def clip(monkeypatch):
    """Instead of a film's work: the frames as they are, until one at which it ends by an error."""
    told = SimpleNamespace(painted=[], settings=None, error=None, at=None)

    def stylize_clip(frames, style, settings, **_):
        told.settings = settings
        for number, frame in enumerate(frames):
            if number == told.at:
                raise told.error
            told.painted.append(frame)
            yield gatys.Frame(frame, None, None, gatys.Result(frame, settings))

    monkeypatch.setattr(gatys, "stylize_clip", stylize_clip)
    return told


@pytest.mark.parametrize(("output", "count", "fps"), [("o.mp4", 6, 100), ("o.gif", 3, 50)])
def test_a_fast_film_is_not_slowed_down(nst, files, clip, picture, output, count, fps):
    """Animations show at most 50 frames a second: of 100 they get every second one, not twice the time."""
    video.save_film([picture(32, 32, seed) for seed in range(6)], "fast.mp4", fps=100)
    assert nst("fast.mp4", "painting.jpg", "-o", output, "--quiet")[0] == 0
    frames, found = read_film(output)
    assert (len(frames), round(found)) == (count, fps)
    assert clip.settings.temporal_weight == gatys.TEMPORAL_WEIGHT
    assert len(clip.painted) == count


@pytest.mark.parametrize("output", ["o.mp4", "o.gif", "o.webp"])
@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_each_picture_of_an_animation_is_painted_once_and_shown_as_long(nst, files, clip, kind, output):
    shown = {"save_all": True, "duration": [30, 30, 30, 6000]}
    first, *rest = [images.to_pil(torch.full((1, 3, 32, 32), shade)) for shade in (0.2, 0.5, 0.7, 0.9)]
    first.save(f"slow.{kind}", append_images=rest, **shown)
    assert nst(f"slow.{kind}", "painting.jpg", "-o", output, "--quiet")[0] == 0
    assert len(clip.painted) == 4
    frames, times = video.timed_frames(output)
    shades = [round(frame.mean().item(), 1) for frame in frames]
    assert shades[:4] == [0.2, 0.5, 0.7, 0.9]
    assert set(shades[4:]) <= {0.9}  # an MP4 shows the last frame again just before its end
    assert (times[:4], times[-1]) == (pytest.approx([0, 0.03, 0.06, 0.09]), pytest.approx(6.09))


@pytest.mark.parametrize("stopped", [False, True])
def test_a_film_keeps_its_times_and_its_sound(nst, files, clip, stopped):
    starts = [0.0, 0.04, 0.08, 2.08]
    recorded(files / "clip", starts=starts, sound=("aac",), seconds=2.5, kind="mov")
    clip.error, clip.at = KeyboardInterrupt, 2 if stopped else None
    code, out, err = nst("clip", "painting.jpg", "-o", "o.mp4")
    state, count = ("stopped", 2) if stopped else ("done", 4)
    assert (code, out.startswith(f"{state}: o.mp4 ({count} frames), ")) == (0, True)
    assert f" {count}frame" in err  # the bar
    frames, times = video.timed_frames("o.mp4")
    assert len(list(frames)) == count
    assert times[:-1] == pytest.approx(starts[:2] if stopped else starts, abs=0.002)
    assert heard(files / "o.mp4") == [("aac", pytest.approx(0.12 if stopped else 2.5, abs=0.05))]


def test_control_c_keeps_the_frames_painted(nst, files, random_networks, monkeypatch):
    interrupt(monkeypatch, 4)
    code, out, err = nst("clip.gif", "painting.jpg", "-o", "o.mp4", "--optimizer", "adam", *TINY)
    assert (code, err) == (0, "")
    count = len(read_film("o.mp4")[0])
    assert out.startswith(f"stopped: o.mp4 ({count} frame")
    assert 1 <= count <= 3


def test_control_c_before_the_first_frame_leaves_nothing(nst, files, clip):
    clip.error, clip.at = KeyboardInterrupt, 0
    code, out, err = nst("clip.gif", "painting.jpg", "-o", "o.mp4", "--quiet")
    assert (code, out, err.strip()) == (130, "", "nst: stopped.")
    assert not Path("o.mp4").exists()
    assert not list(files.glob(".nst-*"))


@pytest.mark.parametrize("good", [0, 2])
def test_a_film_that_turns_out_damaged_keeps_what_was_painted(nst, files, clip, good):
    clip.error, clip.at = ImageError("'clip.gif' is damaged after 2 frames: get it again."), good
    err = one_sentence(*nst("clip.gif", "painting.jpg", "-o", "o.gif", "--quiet"))
    assert "is damaged after 2 frames" in err
    assert Path("o.gif").exists() == (good > 0)
    if good:
        assert err.endswith("What was painted until then is kept in 'o.gif' (2 frames).\n")
        assert len(read_film("o.gif")[0]) == 2


# ------------------------------------------------------------------------------------------------- folders


@pytest.mark.filterwarnings("ignore:Of 4 pictures")
def test_a_folder_is_painted_picture_by_picture_and_goes_on(nst, files, picture):
    folder = files / "in"
    for name in ("a.png", "b.jpg", "b.png", ".hidden.png"):
        images.save_image(picture(36, 40, len(name)), folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture")
    command = ("in", "painting.jpg", "-o", "out", *TINY)
    with pytest.warns(LeftOut, match=r"Of 4 pictures 1 are left out: 'in.broken\.jpg' cannot be read"):
        code, out, _ = nst(*command)
    assert code == 1
    assert "3 painted, 0 kept, 1 failed: broken.jpg" in out
    painted = {path.name: path.stat().st_mtime_ns for path in (files / "out").iterdir()}
    assert set(painted) == {"a.png", "b.jpg.png", "b.png.png"}
    (files / "out" / "a.png").unlink()  # as if stopped before it
    _, out, _ = nst(*command)
    assert "1 painted, 2 kept, 1 failed" in out
    after = {path.name: path.stat().st_mtime_ns for path in (files / "out").iterdir()}
    assert {name for name in after if after[name] != painted[name]} == {"a.png"}
    _, out, _ = nst("in", "wave.png", "-o", "out", *TINY)  # another style
    assert "3 painted, 0 kept" in out


def test_a_mask_that_was_redrawn_is_painted_anew(nst, files, asked, picture):
    for name in "ab":
        images.save_image(picture(36, 40, 1), files / "in" / f"{name}.png")
    for width, painted in ((40, 2), (40, 0), (80, 2)):
        mask_file(files / "m.png", round(0.9 * width), width)
        _, out, _ = nst("in", "painting.jpg", "-o", "out", "--region", "m.png")
        assert f"{painted} painted, {2 - painted} kept" in out


def test_several_pictures_and_a_style(nst, files):
    code, out, _ = nst("face.png", "painting.jpg", "wave.png", "-o", "many", *TINY)
    assert (code, "2 painted" in out) == (0, True)
    assert images.read_settings(files / "many" / "painting.png")["style_file"] == "wave.png"


@pytest.mark.parametrize("output", [(), ("-o", "one.png")])
def test_a_folder_needs_a_folder(nst, files, output):
    (files / "in").mkdir()
    (files / "face.png").rename(files / "in" / "face.png")
    code, _, err = nst("in", "painting.jpg", *output, *TINY)
    assert code == 1
    assert "write -o FOLDER/" in err
