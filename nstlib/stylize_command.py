"""The command ``nst stylize``: a portrait or a film painted in the manner of one or several paintings."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import ImageError, NstError, OptimizationError, SettingError

if TYPE_CHECKING:
    from torch import Tensor

    from .methods import gatys

# Heavy imports (torch) stay inside the functions, so that `nst --help` answers at once.

ANIMATIONS = (".gif", ".webp")  # their files hold a film, or a picture
FILMS = (*ANIMATIONS, ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".ogv")
REGIONS = ("eyebrow", "eye", "nose", "lip", "face", "hair", "person", "background")
SAVE_EVERY = 30.0  # seconds between two checkpoints at least,
SAVE_SHARE = 20.0  # and times as long as one takes: L-BFGS' memory of a large picture has gigabytes
# Without it the broad forms of a large picture hardly change: a layer sees 150 pixels at most.
COARSE, LARGE = 256, 768  # pixels: where coarse to fine begins, for results above
STYLE_SIDE = 128  # pixels; the deepest layers see next to nothing of a smaller style picture

_FILE: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "FILE"}
_PIXELS: dict[str, Any] = {"type": click.IntRange(16, 4096), "metavar": "PIXELS"}
_NUMBER: dict[str, Any] = {"type": click.FloatRange(0), "metavar": "NUMBER"}


def _one(option: str, *names: str, **settings: Any) -> click.Option:
    return click.Option([option], type=click.Choice(list(names)), **settings)


# fmt: off
OPTIONS: dict[str, tuple[click.Option, ...]] = {  # by heading of the help
    "Result": (
        click.Option(["-o", "--output"], **_FILE, help="Picture (.png, .jpg, .webp; it holds the settings) "
            "or, if CONTENT is one, film (.mp4, .gif, .webp; without sound).  "
            "[default: stylized.png or stylized.mp4]"),
        click.Option(["--size"], **_PIXELS, default=512, show_default=True,
            help="Longest side of the result; CONTENT is not enlarged."),
        click.Option(["--film"], **_FILE,
            help="Also write a film (.mp4, .gif, .webp) of the picture coming about."),
    ),
    "Style": (
        click.Option(["--style-size"], **_PIXELS, help="Longest side of the style pictures; smaller gives "
            f"finer brush strokes.  [default: the result's, {STYLE_SIDE} at least]"),
        click.Option(["--movement"], metavar="NAME", help="Blend the course's paintings of an art movement: "
            "impressionism, ukiyo-e and others."),
        click.Option(["--share", "shares"], multiple=True, **_NUMBER, help="How much a style picture counts "
            "among several; once for each, in order.  [default: all alike]"),
        _one("--color", "style", "luminance", "histogram", "coral", help="Whose colors: the style's, or "
            "CONTENT's, pixel by pixel (luminance) or as a whole.  [default: style]"),
        click.Option(["--style-weight"], **_NUMBER,
            help="How much style: 3 keeps the likeness, 100 lets it dissolve.  [default: 10]"),
        click.Option(["--tv-weight"], **_NUMBER, help="How much smoothness.  [default: 0]"),
    ),
    "Regions": (
        click.Option(["--region", "regions"], multiple=True, metavar="NAME[=FILE]",
            help=f"Paint this region only ({', '.join(REGIONS)}), in the style of FILE or else of STYLES. "
            "May be repeated."),
        click.Option(["--softness"], type=click.FloatRange(0), metavar="PIXELS",
            help="Width of a region's soft border.  [default: a sixtieth of the result]"),
    ),
    "Optimization": (
        click.Option(["--recipe"], metavar="NAME", help="A paper's settings: paper_a, paper_a_as_printed, "
            "paper_b, paper_d, gatys_2016. What you set yourself wins."),
        click.Option(["--iterations"], type=click.IntRange(1), metavar="NUMBER", help="Steps of the "
            "optimizer at each size; a third for a film's frames but a scene's first.  "
            f"[default: 150, fewer above {LARGE} px]"),
        click.Option(["--smallest"], type=click.IntRange(16), metavar="PIXELS", help="Coarse to fine: "
            "longest side to begin with, then up in steps.  "
            f"[default: {COARSE} for results above {LARGE} and no recipe, else one size]"),
        _one("--init", "content", "noise", "style", help="Picture to start from.  [default: content]"),
        _one("--network", "vgg19", "vgg16", "alexnet", help="Network to look through.  [default: vgg19]"),
        _one("--optimizer", "lbfgs", "adam", "gradient_descent", "newton_cg", "langevin", "annealing",
            help="What changes the picture, step by step.  [default: lbfgs]"),
        click.Option(["--learning-rate"], type=click.FloatRange(0, min_open=True), metavar="NUMBER",
            help="How far a step goes.  [default: the optimizer's own]"),
        click.Option(["--averaging"], type=click.FloatRange(0, 1, max_open=True), metavar="NUMBER",
            help="Average over the last steps; 0.99 suits adam.  [default: 0]"),
        _one("--style-distance", "gram", "wasserstein2",
            help="What makes two styles alike.  [default: gram]"),
        click.Option(["--seed"], type=click.IntRange(0, 2**32 - 1), metavar="NUMBER", default=0,
            show_default=True, help="Of everything random."),
    ),
    "Running": (
        click.Option(["--device"], metavar="NAME", default="auto", show_default=True,
            help="What to compute on: auto, cpu, cuda, cuda:1, mps."),
        _one("--precision", "auto", "float32", "bfloat16", default="auto", show_default=True,
            help="Number format; auto: bfloat16 where the hardware is good at it."),
        click.Option(["--checkpoint/--no-checkpoint"], default=True,
            help="Save a picture's run now and then.  [default: checkpoint]"),
        click.Option(["--quiet"], is_flag=True, help="No progress bar."),
    ),
}
# fmt: on


class _Grouped(click.Command):
    """A command whose help shows its options under the headings of OPTIONS."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        last = self.get_help_option(ctx)
        for heading, options in OPTIONS.items():
            listed = [*options, last] if heading == "Running" and last else options
            with formatter.section(heading):
                records = [option.get_help_record(ctx) for option in listed]
                formatter.write_dl([record for record in records if record], col_max=22)


@click.command(
    cls=_Grouped,
    params=[
        click.Argument(["content"], type=click.Path(path_type=Path)),
        click.Argument(["styles"], nargs=-1, type=click.Path(path_type=Path)),
        *itertools.chain(*OPTIONS.values()),
    ],
    short_help="Paint a picture or a film in a painting's style.",
    epilog="Ctrl-C stops and keeps what is painted so far, of a --film too. A picture's run is saved about "
    f"every {SAVE_EVERY:.0f} seconds beside its output: after a kill the same command goes on from there.",
)
def stylize(
    content: Path, styles: tuple[Path, ...], output: Path | None, film: Path | None, checkpoint: bool,
    quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Paint the picture (or film) CONTENT in the manner of the pictures STYLES (Gatys et al. 2016).

    \b
    nst stylize me.jpg data/paintings/starry_night.jpg -o out.png
    nst stylize me.jpg --movement impressionism --color luminance
    nst stylize me.jpg kiss.jpg --region hair --region background=wave.jpg
    nst stylize clip.mp4 data/paintings/starry_night.jpg -o out.mp4 --size 256
    """
    from . import hardware, images, video

    hardware.keep_freed_memory()
    moving = content.suffix.lower() in FILMS and not (
        content.suffix.lower() in ANIMATIONS and _is_still(content)
    )
    output = output or Path("stylized.mp4" if moving else "stylized.png")
    # All that can be known to be wrong is said before minutes of work, not after.
    pairs = _pairs(options["regions"])
    if moving and pairs:
        raise SettingError("Regions are for pictures: leave --region out for a film.")
    if moving and film is not None:
        raise SettingError(
            "--film shows how a picture comes about; a film's result is a film already: leave it out."
        )
    styles = _all_styles(styles, pairs, options)
    settings = _settings(options)
    options["device"] = hardware.resolve_device(options["device"])
    (video.check_film_writable if moving else images.check_writable)(output)
    if film is not None:
        video.check_film_writable(film)
        if os.path.abspath(film) == os.path.abspath(output):
            raise SettingError(f"'{film}' cannot be both the picture and its --film: choose another name.")
    given = [content, *styles, *(path for _, path in pairs if path)]
    for target in filter(None, (output, film)):
        if os.path.exists(target) and any(os.path.samefile(target, p) for p in given if os.path.exists(p)):
            raise SettingError(
                f"'{target}' would overwrite a picture or film you give: choose another name for it."
            )
    if moving:
        _film(content, styles, output, settings, quiet, options)
    else:
        _picture(content, styles, pairs, output, film, settings, checkpoint, quiet, options)


def _is_still(path: Path) -> bool:
    """Whether a .gif or .webp file holds one frame, or nothing that can be read (which is told later)."""
    from PIL import Image

    try:
        with Image.open(path) as im:
            return getattr(im, "n_frames", 1) == 1
    except Exception:  # decoders raise nearly everything on damaged data
        return True


def _pairs(regions: tuple[str, ...]) -> list[tuple[str, Path | None]]:
    """NAME[=FILE] -> (name, its own style or None)."""
    found: list[tuple[str, Path | None]] = []
    for item in regions:
        name, sign, path = item.partition("=")
        if name not in REGIONS:
            raise SettingError(f"There is no region '{name}': choose from {', '.join(REGIONS)}.")
        if name in [before for before, _ in found]:
            raise SettingError(f"The region '{name}' is named twice: name it once, with one style.")
        if sign and not path:
            raise SettingError(f"No picture follows --region {item}: write {name}=FILE, or {name} alone.")
        found.append((name, Path(path) if path else None))
    return found


def _all_styles(
    styles: tuple[Path, ...], pairs: list[tuple[str, Path | None]], options: dict[str, Any]
) -> tuple[Path, ...]:
    """The pictures given and those of the movement; each has somewhere to go, and each region a style."""
    if options["movement"] is not None:
        from .movements import paintings

        styles += tuple(painting.path for painting in paintings(options["movement"]))
    common = [name for name, path in pairs if path is None]
    if not styles and common:
        raise SettingError(
            f"The region '{common[0]}' has no style: write {common[0]}=FILE, or name a style picture."
        )
    if not styles and not pairs:
        raise SettingError("There is no style: name a picture after the content, or a --movement.")
    if styles and pairs and not common:
        raise SettingError(
            f"Every region has its own style, and '{styles[0]}' goes nowhere: name a --region for it "
            "(background, for example), or leave it out."
        )
    if options["shares"] and len(options["shares"]) != len(styles):
        raise SettingError(
            f"Of style pictures there are {len(styles)} and of shares {len(options['shares'])}: "
            "give one --share for each picture."
        )
    if options["softness"] is not None and not pairs:
        raise SettingError("--softness is the width of a region's border: name a --region, or leave it out.")
    return styles


def _settings(options: dict[str, Any]) -> gatys.Settings:
    """The recipe's settings, or the default ones, with what was asked for."""
    from .methods import gatys

    names = (
        "color", "style_weight", "tv_weight", "iterations", "smallest", "network", "optimizer",
        "learning_rate", "style_distance", "averaging", "init",
    )  # fmt: skip
    chosen = {name: options[name] for name in names if options[name] is not None}
    settings = gatys.recipe(options["recipe"]).settings if options["recipe"] else gatys.Settings()
    return settings.changed(**chosen)


def _coarse_to_fine(
    settings: gatys.Settings, shape: tuple[int, int], options: dict[str, Any]
) -> gatys.Settings:
    """The settings for a result of this size: large ones begin small, and end with fewer steps."""
    if options["smallest"] is not None or options["recipe"] is not None or max(shape) <= LARGE:
        return settings
    changes: dict[str, Any] = {"smallest": COARSE, "coarse_iterations": settings.iterations}
    if options["iterations"] is None:  # the largest sizes begin near their end, and a step takes a minute
        changes["iterations"] = max(20, round(settings.iterations * 512 / max(shape)))
    return settings.changed(**changes)


def _guides(
    content: Tensor, styles: list[Tensor], own: dict[str, Tensor], pairs: list[tuple[str, Path | None]],
    options: dict[str, Any],
) -> list[gatys.Guide]:  # fmt: skip
    """What goes where."""
    from .methods import gatys

    shares = options["shares"] or None
    if not pairs:
        return [gatys.Guide(tuple(styles), shares)]
    from .regions import REGIONS as OF_FACES
    from .regions import FaceParser, region_masks

    softness = options["softness"]
    softness = max(content.shape[-2:]) / 60 if softness is None else softness
    names = [name for name, _ in pairs]
    parser = FaceParser(options["device"]) if set(names) & set(OF_FACES) else None
    masks = region_masks(content, names, softness=softness, parser=parser)
    for name, mask in masks.items():
        if not bool(mask.max() > 0):
            raise ImageError(f"There is no {name} to be seen in the picture: leave --region {name} out.")
    return [
        gatys.Guide((own[name],), mask=masks[name])
        if name in own
        else gatys.Guide(tuple(styles), shares, mask=masks[name])
        for name in names
    ]


def _checkpoint(output: Path, filmed: bool) -> Any:
    """The checkpoint of a picture's run; it says what it goes on from, and never stops the run."""
    from .methods import gatys

    class Forgiving(gatys.Checkpoint):
        iteration = 0  # that the file holds, of this run

        def load(self, fingerprint: str) -> dict[str, Any] | None:
            try:
                saved = super().load(fingerprint)
            except (SettingError, OSError):
                _note(f"'{self.path}' is of other pictures or settings: beginning anew.")
                return None
            if saved is not None:
                self.iteration = len(saved["history"])
                film = "; the film begins there" if filmed else ""
                _note(f"going on after iteration {self.iteration}, from '{self.path}'{film}.")
            return saved

        def save(self, content: dict[str, Any]) -> None:
            if self.every == math.inf:
                return
            began = time.monotonic()
            try:
                super().save(content)
                self.iteration = len(content["history"])
                self.every = max(SAVE_EVERY, SAVE_SHARE * (time.monotonic() - began))
            except OptimizationError:  # a picture is worth more than its checkpoint
                _note(f"'{self.path}' cannot be written (is the disk full?): going on without a checkpoint.")
                self.every = math.inf

    return Forgiving(output.with_name(f".{output.name}.checkpoint"), SAVE_EVERY)


def _note(text: str) -> None:
    click.echo(f"nst: {text}", err=True)


def _picture(
    content: Path, styles: tuple[Path, ...], pairs: list[tuple[str, Path | None]], output: Path,
    film: Path | None, settings: gatys.Settings, save: bool, quiet: bool, options: dict[str, Any],
) -> None:  # fmt: skip
    """From picture to picture."""
    from . import images, video
    from .methods import gatys

    content_image = images.load_image(content, size=options["size"])
    shape = (content_image.shape[-2], content_image.shape[-1])
    settings = _coarse_to_fine(settings, shape, options)
    # Strokes in proportion: a thumbnail would get the canvas of a large painting, but none of its forms.
    style_size = options["style_size"] or max(*shape, STYLE_SIDE)
    style_images = [images.load_image(path, size=style_size) for path in styles]
    own = {name: images.load_image(path, size=style_size) for name, path in pairs if path}
    guides = _guides(content_image, style_images, own, pairs, options)
    point = _checkpoint(output, film is not None) if save else None
    failed: NstError | None = None
    said = ""
    try:
        with ExitStack() as stack:
            filming = None
            if film is not None:
                filming = _Filming(stack.enter_context(video.FilmWriter(film, fps=12, size=shape, hold=2)))
            try:
                result = gatys.stylize(
                    content_image, guides, settings, callback=filming, checkpoint=point,
                    seed=options["seed"], device=options["device"], precision=options["precision"],
                    progress=not quiet,
                )  # fmt: skip
            except OptimizationError as error:
                if error.result is None:
                    raise
                failed, result = error, error.result
            saved = {
                "content_file": content.name, "style_file": ", ".join(path.name for path in styles),
                "style_size": style_size, "seed": options["seed"], "shares": list(options["shares"]),
                "regions": [f"{name}={path.name}" if path else name for name, path in pairs],
                "softness": options["softness"], **result.describe(),
            }  # fmt: skip
            # Before the film is closed: on a disk that is nearly full the picture comes first.
            failed = _save(result, output, saved, failed)
            said = str(failed or f"The picture is saved in '{output}'.")
            if point is not None and failed is None and not result.interrupted:
                point.remove()
            if filming is not None:
                filming.end(result.image)
    except ImageError as error:
        if not said:
            raise
        raise ImageError(f"{error} {said}") from error
    if failed is not None:
        raise failed
    height, width = result.image.shape[-2:]
    state = f"stopped after {len(result.history)} iterations" if result.interrupted else "done"
    end = f"{state}: {output} ({width}×{height}), {result.seconds:.0f} s"
    if result.interrupted and point is not None and point.iteration:
        end += f"; the same command goes on after iteration {point.iteration}, from '{point.path}'"
    click.echo(end)


def _save(
    result: gatys.Result, output: Path, settings: dict[str, Any], failed: NstError | None
) -> NstError | None:
    """Save the picture, elsewhere if need be; the error to raise in the end: where it is, and what failed."""
    from . import images

    try:
        images.save_image(result.image, output, settings=settings)
        return failed and OptimizationError(f"{failed} It is saved in '{output}'.")
    except NstError as error:  # a disk that filled up meanwhile must not cost minutes of work
        rescue = Path(tempfile.gettempdir()) / f"rescued-{output.stem}.png"
        try:
            images.save_image(result.image, rescue, settings=settings)
        except NstError:
            return ImageError(str(error))
        return ImageError(f"{error} The picture is kept in '{rescue}'.")


class _Filming:
    """A callback that keeps about 120 frames of a run, closer together where the picture changes faster."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self.wanted: set[int] = set()
        self.error: ImageError | None = None

    def __call__(self, progress: gatys.Progress) -> None:
        if not self.wanted:
            count = min(120, progress.iterations)
            self.wanted = {round(progress.iterations * ((k + 1) / count) ** 1.5) for k in range(count)}
            self.wanted |= {1, progress.iterations}
        if progress.iteration in self.wanted and self.error is None:
            try:
                self.writer.add(progress.image)
            except ImageError as error:  # a full disk: told at the end, for the picture can still be painted
                self.error = error

    def end(self, image: Tensor) -> None:
        """Tell what went wrong with the film; one without a frame gets the picture."""
        if self.error is not None:
            raise self.error
        if not self.writer.count:
            self.writer.add(image)


def _film(
    content: Path, styles: tuple[Path, ...], output: Path, settings: gatys.Settings, quiet: bool,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """From film to film, frame by frame; the frames painted so far are kept, whatever ends it."""
    from . import images, video
    from .methods import gatys

    frames, fps = video.read_film(content, size=options["size"])
    first = next(frames)
    shape = (first.shape[-2], first.shape[-1])
    settings = _coarse_to_fine(settings, shape, options)
    style_size = options["style_size"] or max(*shape, STYLE_SIDE)
    guide = gatys.Guide(
        tuple(images.load_image(path, size=style_size) for path in styles), options["shares"] or None
    )
    # Animations show 50 frames a second at most: of a faster film every second frame, not a slower film.
    step = math.ceil(fps / 50) if output.suffix.lower() in ANIMATIONS else 1
    painted = gatys.stylize_clip(
        itertools.islice(itertools.chain([first], frames), 0, None, step), [guide],
        settings.changed(temporal_weight=gatys.TEMPORAL_WEIGHT), seed=options["seed"],
        device=options["device"], precision=options["precision"], progress=not quiet,
    )  # fmt: skip
    state, failed, began = "done", None, time.monotonic()
    with video.FilmWriter(output, fps=max(0.1, fps / step)) as writer:
        try:
            for frame in painted:
                writer.add(frame.image)
                if frame.result.interrupted:
                    state = "stopped"
                if not quiet:
                    click.echo(f"frame {writer.count}: {time.monotonic() - began:.0f} s", err=True)
        except KeyboardInterrupt:  # between two frames' optimizations
            if not writer.count:
                raise
            state = "stopped"
        except NstError as error:  # a damaged film, a loss that is no number
            if not writer.count:
                raise
            failed = error
    count = f"{writer.count} frame{'' if writer.count == 1 else 's'}"
    if failed is not None:
        raise type(failed)(f"{failed} What was painted until then is kept in '{output}' ({count}).")
    click.echo(f"{state}: {output} ({count}), {time.monotonic() - began:.0f} s")
