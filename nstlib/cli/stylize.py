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

from ..errors import ImageError, NstError, OptimizationError, SettingError
from .options import (
    ANIMATIONS,
    COARSE,
    FILMS,
    LARGE,
    OPTIONS,
    REGIONS,
    SAVE_EVERY,
    SAVE_SHARE,
    STYLE_SIDE,
    Grouped,
    check_options,
)  # fmt: skip
from .outputs import thinned, write_film

if TYPE_CHECKING:
    from torch import Tensor

    from ..methods import gatys

# Heavy imports (torch) stay inside the functions, so that `nst --help` answers at once.


@click.command(
    cls=Grouped,
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
    nst stylize me.jpg data/paintings/the_kiss.jpg --method adain
    nst stylize clip.mp4 starry_night --method johnson
    nst stylize me.jpg ink:12 --method dualstylegan
    nst stylize me.jpg portrait.jpg --method jojogan
    """
    from ..nets import hardware
    from ..pictures import files as images
    from ..pictures import video
    from . import fast as fast_command
    from . import portrait as portrait_command

    hardware.keep_freed_memory()
    moving = content.suffix.lower() in FILMS and not (
        content.suffix.lower() in ANIMATIONS and _is_still(content)
    )
    output = output or Path("stylized.mp4" if moving else "stylized.png")
    # All that can be known to be wrong is said before minutes of work, not after.
    fast, of_faces = options["method"] != "gatys", options["method"] in ("dualstylegan", "jojogan")
    check_options(options["method"], click.get_current_context())
    pairs = _pairs(options["regions"])
    if moving and pairs:
        raise SettingError("Regions are for pictures: leave --region out for a film.")
    if moving and film is not None:
        raise SettingError(
            "--film shows how a picture comes about; a film's result is a film already: leave it out."
        )
    if not of_faces:
        styles = _all_styles(styles, pairs, options)
    settings = None if fast else _settings(options)
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
    if of_faces:
        portrait_command.stylize(content, styles, output, moving, quiet, options)
    elif settings is None:
        fast_command.stylize(content, styles, pairs, output, moving, quiet, options)
    elif moving:
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
        from ..assets.movements import paintings

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
    from ..methods import gatys

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
    from ..methods import gatys

    shares = options["shares"] or None
    if not pairs:
        return [gatys.Guide(tuple(styles), shares)]
    return [
        gatys.Guide((own[name],), mask=mask) if name in own else gatys.Guide(tuple(styles), shares, mask=mask)
        for name, mask in masks_of(content, pairs, options).items()
    ]


def masks_of(
    content: Tensor, pairs: list[tuple[str, Path | None]], options: dict[str, Any]
) -> dict[str, Tensor]:
    """The masks of the regions asked for; each is to be seen in the picture."""
    from ..faces.parse import REGIONS as OF_FACES
    from ..faces.parse import FaceParser, region_masks

    softness = options["softness"]
    softness = max(content.shape[-2:]) / 60 if softness is None else softness
    names = [name for name, _ in pairs]
    parser = FaceParser(options["device"]) if set(names) & set(OF_FACES) else None
    masks = region_masks(content, names, softness=softness, parser=parser)
    for name, mask in masks.items():
        if not bool(mask.max() > 0):
            raise ImageError(f"There is no {name} to be seen in the picture: leave --region {name} out.")
    return {name: masks[name] for name in names}


def _checkpoint(output: Path, filmed: bool) -> Any:
    """The checkpoint of a picture's run; it says what it goes on from, and never stops the run."""
    from ..methods import gatys

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
    from ..methods import gatys
    from ..pictures import files as images
    from ..pictures import video

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
    from ..pictures import files as images

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
    from ..methods import gatys
    from ..pictures import files as images
    from ..pictures import video

    frames, fps = video.read_film(content, size=options["size"])
    first = next(frames)
    shape = (first.shape[-2], first.shape[-1])
    settings = _coarse_to_fine(settings, shape, options)
    style_size = options["style_size"] or max(*shape, STYLE_SIDE)
    guide = gatys.Guide(
        tuple(images.load_image(path, size=style_size) for path in styles), options["shares"] or None
    )
    wanted, rate = thinned(itertools.chain([first], frames), fps, output)
    painted = gatys.stylize_clip(
        wanted, [guide], settings.changed(temporal_weight=gatys.TEMPORAL_WEIGHT), seed=options["seed"],
        device=options["device"], precision=options["precision"], progress=not quiet,
    )  # fmt: skip
    write_film(output, rate, ((frame.image, frame.result.interrupted) for frame in painted), quiet)
