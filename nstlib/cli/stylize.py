"""The command ``nst stylize``: a portrait or a film in a style, by any method of :data:`METHODS`."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import pooch
from torch import Tensor
from tqdm import tqdm

from ..assets.movements import paintings
from ..errors import ImageError, NstError, OptimizationError, SettingError
from ..faces import parse
from ..faces.align import align_portraits, paste
from ..faces.detect import find_faces
from ..methods import METHODS, Method, gatys
from ..metrics.protocol import digest
from ..nets import hardware
from ..pictures import files, video
from .options import DEVICE, QUIET, SEED, Grouped, NumberOr, method_options, stylize_fields

SAVE_EVERY = 30.0  # seconds between two checkpoints at least,
SAVE_SHARE = 20.0  # and times as long as one takes: L-BFGS' memory of a large picture has gigabytes
LARGE = 512  # pixels: results above end with fewer steps
FAST = 15  # steps at the last size with --fast
LEAST_SIDE = 128  # pixels; with less memory than these take, nothing can be painted
STYLE_SIDE = 128  # pixels; a smaller style picture has next to nothing for the deepest layers

_FILE: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "FILE"}
_PIXELS: dict[str, Any] = {"type": click.IntRange(16, 4096), "metavar": "PIXELS"}

# fmt: off
COMMON: dict[str, list[click.Option]] = {  # by heading of the help
    "Result": [
        click.Option(["--method"], type=click.Choice(list(METHODS)), metavar="NAME", default="gatys",
            show_default=True,
            help=" ".join(f"{name}: {method.summary}." for name, method in METHODS.items())),
        click.Option(["-o", "--output"], **_FILE, help="Picture (.png, .jpg, .webp; it holds the settings) "
            "or, if CONTENT is one, film (.mp4, .gif, .webp; only .mp4 has its sound).  "
            "[default: stylized.png or stylized.mp4]"),
        click.Option(["--size"], **_PIXELS, default=512, show_default=True,
            help="Longest side of the result; CONTENT is not enlarged."),
        click.Option(["--film"], **_FILE,
            help="Also write a film (.mp4, .gif, .webp) of the picture coming about."),
    ],
    "Style": [
        click.Option(["--style-size"], **_PIXELS, help="Longest side of the style pictures; smaller gives "
            f"finer brush strokes.  [default: the result's, {STYLE_SIDE} at least]"),
        click.Option(["--movement"], metavar="NAME", help="Blend the course's paintings of an art movement: "
            "impressionism, ukiyo-e and others."),
        click.Option(["--share", "shares"], multiple=True, type=click.FloatRange(0), metavar="NUMBER",
            help="How much a style counts among several; once for each, in order.  [default: all alike]"),
        click.Option(["--color"], type=click.Choice(["style", "luminance", "histogram", "coral"]),
            help="Whose colors: the style's, or CONTENT's, pixel by pixel (luminance) or as a whole.  "
            "[default: style]"),
        click.Option(["--strength"], type=click.FloatRange(0, 1), metavar="NUMBER",
            help="0 keeps CONTENT, 1 gives the full style.  [default: 1]"),
        click.Option(["--recipe"], metavar="NAME", help="A paper's settings for gatys: "
            f"{', '.join(gatys.RECIPES)}. What you set yourself wins."),
        click.Option(["--fast"], is_flag=True, help="In a third of the time: fewer and finer strokes."),
    ],
    "Faces and regions": [
        click.Option(["--face"], type=NumberOr("all", click.IntRange(1)), metavar="NUMBER|all",
            help="Which face of CONTENT, from left to right; all: with --paste.  [default: the largest]"),
        click.Option(["--paste"], is_flag=True, help="Put the face back into CONTENT; without it the result "
            "is the face alone."),
        click.Option(["--region", "regions"], multiple=True, metavar="NAME[=FILE]",
            help=f"Paint this region only ({', '.join(parse.NAMES)}, or a mask of your own: a picture, white "
            "where to paint), in the style of FILE or else of STYLES. May be repeated."),
        click.Option(["--softness"], type=click.FloatRange(0), metavar="PIXELS",
            help="Width of a region's soft border.  [default: a sixtieth of the result]"),
    ],
}
RUNNING = [
    SEED,
    DEVICE,
    click.Option(["--precision"], type=click.Choice(["auto", "float32", "bfloat16"]), default="auto",
        show_default=True, help="Number format; auto: bfloat16 where the hardware is good at it."),
    click.Option(["--checkpoint/--no-checkpoint"], default=True,
        help="Save a picture's run now and then.  [default: checkpoint]"),
    QUIET,
]
# fmt: on
# What every method listens to; of the rest each names what it `takes`.
ALWAYS = {"content", "styles", "method", "output", "seed", "device", "quiet"}


@click.command(
    cls=Grouped,
    groups={
        **COMMON,
        **method_options({str(option.name) for option in itertools.chain(*COMMON.values(), RUNNING)}),
        "Running": RUNNING,
    },
    params=[
        click.Argument(["content"], type=click.Path(path_type=Path)),
        click.Argument(["styles"], nargs=-1),
    ],
    epilog="Ctrl-C stops and keeps what is painted so far, of a --film too. A picture's run is saved about "
    f"every {SAVE_EVERY:.0f} seconds beside its output: after a kill the same command goes on from there.",
)
@click.pass_context
def stylize(ctx: click.Context, content: Path, styles: tuple[str, ...], **options: Any) -> int:
    """Paint the picture (or film) CONTENT in the manner of the pictures STYLES.

    \b
    nst stylize me.jpg data/paintings/starry_night.jpg -o out.png
    nst stylize me.jpg --movement impressionism --color luminance
    nst stylize me.jpg kiss.jpg --region hair --region background=wave.jpg
    nst stylize clip.mp4 data/paintings/starry_night.jpg -o out.mp4 --size 256
    nst stylize me.jpg data/paintings/the_kiss.jpg --method adain
    nst stylize clip.mp4 starry_night --method johnson
    nst stylize me.jpg ink:12 --method dualstylegan
    nst stylize me.jpg cartoon:26 --method dualstylegan
    nst stylize me.jpg portrait.jpg --method jojogan
    nst stylize me.jpg art.jpg own.safetensors --method u2_local --region hair
    nst stylize me.jpg art.jpg wikiart --method stytr2
    nst stylize photographs/ the_kiss.jpg -o painted/

    A folder, or several pictures before the style and -o FOLDER/, are painted one by one: what fails is named
    in the end (exit status 1), and the same command goes on where it was stopped.
    """
    hardware.keep_freed_memory()
    output: Path | None = options["output"]
    if content.is_dir():
        return _each(ctx, files.list_pictures(content), styles, options)
    if output is not None and not output.suffix and styles:  # photographs, and the style as the last one
        return _each(ctx, [content, *map(Path, styles[:-1])], styles[-1:], options)
    Job(ctx, content, styles, options).paint()
    return 0


def _each(ctx: click.Context, pictures: list[Path], styles: tuple[str, ...], options: dict[str, Any]) -> int:
    """Paint pictures one by one into a folder; what is there already is kept. The exit status."""
    folder: Path | None = options["output"]
    if folder is None or folder.suffix:
        raise SettingError("Several pictures need a folder for the results: write -o FOLDER/.")
    names = [picture.stem for picture in pictures]
    usable = files.readable(pictures, look=_face_of if METHODS[options["method"]].portraits else None)
    failed, kept = [picture.name for picture in pictures if picture not in usable], 0
    for number, picture in enumerate(usable, 1):
        name = picture.stem if names.count(picture.stem) == 1 else picture.name
        target = folder / f"{name}.png"
        words = [picture, *styles, *(word for pair in _pairs(options["regions"]) for word in pair if word)]
        given = [path for path in map(Path, words) if path.is_file()]
        shown = {k: str(v) for k, v in options.items() if k not in ("output", "quiet", "device")}
        key = digest([[pooch.file_hash(path) for path in given], styles, shown])
        with contextlib.suppress(ImageError):
            if (files.read_settings(target) or {}).get("key") == key:
                kept += 1
                continue
        _note(f"{number} of {len(usable)}: {picture.name}")
        try:
            Job(ctx, picture, styles, {**options, "output": target}, key).paint()
        except NstError as error:
            failed.append(picture.name)
            _note(str(error))
    done = len(pictures) - len(failed) - kept
    text = f"done: {folder}, {done} painted, {kept} kept, {len(failed)} failed"
    click.echo(text + (f": {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _face_of(picture: Path) -> None:
    if not find_faces(files.load_image(picture)):
        raise ImageError(f"No face was found in '{picture}': take a picture that shows one from the front.")


class Job:
    """One call of the command: what can be known to be wrong is said before minutes of work, not after."""

    def __init__(
        self, ctx: click.Context, content: Path, styles: tuple[str, ...], options: dict[str, Any],
        key: str = "",
    ) -> None:  # fmt: skip
        self.content, self.options, self.name, self.key = content, options, options["method"], key
        self.kind: type[Method] = METHODS[self.name]
        self._check_options(ctx)
        # In a folder, and there a key is given, an animation is its first frame.
        self.moving, self.side = not key and video.is_film(content), options["size"]
        self.output: Path = options["output"] or Path("stylized.mp4" if self.moving else "stylized.png")
        self.film: Path | None = options["film"]
        self.pairs = _pairs(options["regions"])
        for given, word in (
            (self.kind.portraits, f"--method {self.name}"), (self.pairs, "--region"), (self.film, "--film"),
        ):  # fmt: skip
            if self.moving and given:
                raise SettingError(f"{word} is for pictures, and '{content}' is a film: leave it out.")
        blended = paintings(options["movement"]) if options["movement"] else []
        self.styles = (*styles, *(str(painting.path) for painting in blended))
        self._check_styles()
        self.device = hardware.resolve_device(options["device"])
        self.running = {key: options[key] for key in ("seed", "precision") if self._takes(self.kind, key)}
        self.running |= {"device": self.device, "progress": not options["quiet"]}
        (video.check_film_writable if self.moving else files.check_writable)(self.output)
        if self.film is not None:
            video.check_film_writable(self.film)
        taken = [content, *map(Path, self.styles), *(Path(p) for pair in self.pairs for p in pair if p)]
        for target in (path for path in (self.output, self.film) if path):
            if any(_same(target, path) for path in taken):
                raise SettingError(
                    f"'{target}' would overwrite another picture or film that you name: choose another one."
                )
            taken.append(target)
        self.own = {k: options[k] for k in stylize_fields(self.kind) if options.get(k) is not None}

    def _check_options(self, ctx: click.Context) -> None:
        """Refuse the options of other methods: they would be passed over in silence."""
        for parameter in ctx.command.params:
            key = str(parameter.name)
            given = ctx.get_parameter_source(key) is click.core.ParameterSource.COMMANDLINE
            if given and not self._takes(self.kind, key):
                others = [name for name, kind in METHODS.items() if self._takes(kind, key)]
                raise SettingError(
                    f"{parameter.opts[0]} is not for --method {self.name}: leave it out, or take --method "
                    f"{' or '.join(others)}."
                )

    @staticmethod
    def _takes(kind: type[Method], key: str) -> bool:
        faces = {"face", "paste"} if kind.portraits else set()
        return key in ALWAYS | faces | kind.takes | set(stylize_fields(kind))

    def _check_styles(self) -> None:
        """Each style has somewhere to go, and each region a style."""
        styles, pairs, shares = self.styles, self.pairs, self.options["shares"]
        common = any(path is None for _, path in pairs)
        soft = self.options["softness"] is not None
        for wrong, sentence in (
            (not styles and (common or not pairs),
             "There is no style: name a picture after the content, a --movement, or --region NAME=FILE."),
            (styles and pairs and not common, "Every region has its own style, and the one after the content "
             "goes nowhere: name a --region for it (background, for example), or leave it out."),
            (self.options["face"] == "all" and not self.options["paste"],
             "--face all paints them in their places: write --paste as well."),
            (shares and len(shares) != len(styles),
             f"{len(styles)} styles need as many shares: give one --share for each."),
            (soft and not pairs, "--softness is the width of a region's border: name a --region as well."),
        ):  # fmt: skip
            if wrong:
                raise SettingError(sentence)

    # ---------------------------------------------------------------- the ways through it

    def paint(self) -> None:
        """Run; where memory is too small for the picture, say so and paint it smaller."""
        while True:
            try:
                return self.run()
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, RuntimeError) and "memory" not in str(error):
                    raise
                if "size" not in self.kind.takes or self.side < LEAST_SIDE:
                    raise ImageError(
                        f"Memory is too small to paint '{self.content}': close other programs."
                    ) from error
                self.options["size"] = round(self.side / math.sqrt(2))
            hardware.give_back_memory()
            _note(
                f"{self.side} pixels take more memory than there is: painting {self.options['size']} instead."
            )

    def run(self) -> None:
        """Paint."""
        if self.name == "gatys":
            (self._optimize_film if self.moving else self._optimize)()
        elif self.moving:
            first, frames, times = self._frames()
            paint, _ = self._painter(first)
            self._write_film(times, ((paint(frame), False) for frame in frames))
        elif self.kind.portraits:
            self._portrait()
        else:
            image = self._content(self.options["size"])
            paint, about = self._painter(image)
            began = time.perf_counter()
            made = paint(image)
            self._save(made, about, time.perf_counter() - began)

    def _open(self, words: Iterable[str], size: int) -> tuple[Method, Any]:
        return self.kind.open(list(words), self.own, size=size, **self.running)

    def _common(self) -> dict[str, Any]:
        """The common arguments of ``stylize``, those that were given."""
        o, fields = self.options, self.kind.options_class.__dataclass_fields__
        found = {"strength": o["strength"], "keep_colors": None if o["color"] == "style" else o["color"]}
        own = {"shares": o["shares"] or None, **self.own}
        found |= {name: value for name, value in own.items() if name in fields}
        return {name: value for name, value in found.items() if value is not None}

    def _painter(self, image: Tensor) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
        size = self._style_size(image)
        # Such a method finds the regions itself, in the style picture as well.
        named = "regions" in self.kind.options_class.__dataclass_fields__
        if named and any(path or name not in parse.NAMES for name, path in self.pairs):
            raise SettingError(
                f"With --method {self.name} all regions have one style, and it finds them itself: write "
                f"--region NAME with one of {', '.join(parse.NAMES)}."
            )
        placed = self.pairs and not named
        words = [path or self.styles[0] for _, path in self.pairs] if placed else self.styles
        if placed and len(self.styles) > 1:
            raise SettingError(
                f"With --method {self.name} a region has one style, and {len(self.styles)} are named: name "
                "one, or NAME=FILE for each region."
            )
        method, style = self._open(map(str, words), size)
        arguments = self._common()
        if self.pairs and named:
            softness = self.options["softness"]
            arguments |= {"regions": tuple(name for name, _ in self.pairs), "softness": softness}
        about = {**arguments, "color": self.options["color"] or "style", "style_size": size}
        about |= {"network": method.about} if method.about else {}
        if placed:
            masks = self._masks(image)
            arguments["masks"] = [masks[name] for name, _ in self.pairs]
        return lambda picture: method.stylize(picture, style, **arguments), about

    def _content(self, size: int | None = None) -> Tensor:
        image, self.alpha = files.load_cutout(self.content, size=size)
        self.side = max(image.shape[-2:])
        return image

    def _portrait(self) -> None:
        image = self._content()
        began = time.perf_counter()
        method, style = self._open(self.styles, 512)
        portraits = align_portraits(image, size=method.size, face=self.options["face"])
        arguments, made = self._common(), image
        if self.options["paste"]:  # what it needs may be missing: to be known before the painting
            parser = parse.FaceParser(self.device)
            for portrait in portraits:
                head = parse.head_mask(portrait.picture, parser)
                painted = method.stylize(portrait.picture, style, **arguments)
                made = paste(made, portrait.theta, painted, head)
        else:
            made, self.alpha = method.stylize(portraits[0].picture, style, **arguments), None
        about = {**arguments, "seed": self.options["seed"], "network": method.about}
        self._save(made, about, time.perf_counter() - began)

    def _masks(self, image: Tensor) -> dict[str, Tensor]:
        """The masks of the regions asked for; each is to be found in the picture."""
        softness = self.options["softness"]
        softness = max(image.shape[-2:]) / 60 if softness is None else softness
        names = [name for name, _ in self.pairs if name in parse.NAMES]
        parser = parse.FaceParser(self.device) if set(names) & set(parse.REGIONS) else None
        masks = parse.region_masks(image, names, softness=softness, parser=parser) if names else {}
        masks |= {name: files.load_mask(name, image) for name, _ in self.pairs if name not in names}
        for name, mask in masks.items():
            if not bool(mask.max() > 0):
                raise ImageError(f"There is no {name} to be seen in the picture: leave --region {name} out.")
        return masks

    def _about(self) -> dict[str, Any]:
        """What the picture's file says of its making."""
        return {
            "method": self.name, "content_file": self.content.name,
            "style_file": ", ".join(Path(path).name for path in self.styles),
            "regions": ["=".join(Path(p).name for p in pair if p) for pair in self.pairs],
            **({"key": self.key} if self.key else {}),
        }  # fmt: skip

    def _save(self, made: Tensor, about: dict[str, Any], seconds: float) -> None:
        files.save_image(made, self.output, alpha=self.alpha, settings={**self._about(), **about})
        height, width = made.shape[-2:]
        click.echo(f"done: {self.output} ({width}×{height}), {seconds:.2f} s")

    # ---------------------------------------------------------------- optimization

    def _settings(self, side: int) -> gatys.Settings:
        """The recipe's settings, or the default ones, with what was asked for.

        Large results end with fewer steps.
        """
        recipe, own = self.options["recipe"], dict(self.own)
        if self.options["fast"] and (recipe or "iterations" in own):
            raise SettingError("--fast sets the steps, as --recipe and --iterations do: give one of them.")
        if self.options["color"]:
            own["color"] = self.options["color"]
        if self.options["fast"]:
            own["iterations"] = FAST
        settings = (gatys.recipe(recipe).settings if recipe else gatys.Settings()).changed(**own)
        if recipe or "iterations" in own or side <= LARGE:
            return settings
        # The largest sizes begin near their end, and a step takes a minute.
        last = max(12, round(settings.iterations * LARGE / side))
        return settings.changed(iterations=last, coarse_iterations=2 * settings.iterations)

    def _style_size(self, image: Tensor) -> int:
        """Strokes in proportion: a thumbnail would get a large painting's canvas, but none of its forms."""
        return self.options["style_size"] or max(*image.shape[-2:], STYLE_SIDE)

    def _guide(self, size: int, own: Path | None = None) -> gatys.Guide:
        """A region's own style, or the common ones, blended."""
        styles = tuple(files.load_style(path, size=size) for path in ([own] if own else self.styles))
        return gatys.Guide(styles, None if own else self.options["shares"] or None)

    def _optimize(self) -> None:
        o = self.options
        image = self._content(o["size"])
        shape, style_size = (image.shape[-2], image.shape[-1]), self._style_size(image)
        settings = self._settings(self.side)
        guides = [self._guide(style_size, path) for _, path in self.pairs or [("", None)]]
        masks = self._masks(image)
        guides = [g.changed(mask=masks[n]) for g, (n, _) in zip(guides, self.pairs, strict=False)] or guides
        point = _Checkpoint(self.output) if o["checkpoint"] else None
        failed: OptimizationError | None = None
        with video.FilmWriter(self.film, size=shape, hold=2) if self.film else nullcontext() as film:
            try:
                callback = _filmed(film) if film else None
                result = gatys.stylize(
                    image, guides, settings, callback=callback, checkpoint=point, **self.running
                )
            except OptimizationError as error:
                failed, result = error, error.result
            # Before the film is closed: on a disk that is nearly full the picture comes first.
            files.save_image(result.image, self.output, alpha=self.alpha, settings={
                **self._about(), "style_size": style_size, "seed": o["seed"], "shares": list(o["shares"]),
                "softness": o["softness"], **result.describe(),
            })  # fmt: skip
            if film and not film.count:
                film.add(result.image)
            if point and not failed and not result.interrupted:
                point.remove()
        if failed:
            raise OptimizationError(f"{failed} The picture is saved in '{self.output}'.")
        state = f"stopped after {len(result.history)} iterations" if result.interrupted else "done"
        height, width = result.image.shape[-2:]
        end = f"{state}: {self.output} ({width}×{height}), {result.seconds:.0f} s"
        if result.interrupted and point and point.iteration:
            end += f"; the same command goes on after iteration {point.iteration}, from '{point.path}'"
        click.echo(end)

    def _optimize_film(self) -> None:
        first, frames, times = self._frames()
        settings = self._settings(max(first.shape[-2:])).changed(temporal_weight=gatys.TEMPORAL_WEIGHT)
        guide = self._guide(self._style_size(first))
        painted = gatys.stylize_clip(frames, [guide], settings, **self.running)
        self._write_film(times, ((frame.image, frame.result.interrupted) for frame in painted))

    # ---------------------------------------------------------------- films

    def _frames(self) -> tuple[Tensor, Iterable[Tensor], list[float]]:
        """The first frame, all that are to be painted, and the times of those read so far.

        Animations show 50 frames a second at most: of a faster film every second frame, not a slower film.
        """
        shortest = 0 if self.output.suffix.lower() == ".mp4" else 0.0199
        frames, times = video.timed_frames(self.content, size=self.options["size"], shortest=shortest)
        first = next(frames)
        return first, itertools.chain([first], frames), times

    def _write_film(self, times: list[float], painted: Iterable[tuple[Tensor, bool]]) -> None:
        """Write frames as they come; those painted so far are kept, whatever ends it."""
        stopped, failed = False, None
        began = time.monotonic()
        with video.FilmWriter(self.output, sound=self.content) as writer:
            try:
                for frame, interrupted in tqdm(painted, "film", unit="frame", disable=self.options["quiet"]):
                    writer.add(frame, times[writer.count])
                    stopped |= interrupted
                writer.end = None if stopped else times[-1]
            except (KeyboardInterrupt, NstError) as error:  # between two frames; a damaged film
                if not writer.count:
                    raise
                failed, stopped = error, True
        count = f"{writer.count} frame{'' if writer.count == 1 else 's'}"
        if isinstance(failed, NstError):
            raise type(failed)(f"{failed} What was painted until then is kept in '{self.output}' ({count}).")
        state = "stopped" if stopped else "done"
        click.echo(f"{state}: {self.output} ({count}), {time.monotonic() - began:.0f} s")


class _Checkpoint(gatys.Checkpoint):
    """The checkpoint of a picture's run, beside its output; it says what the run goes on from."""

    iteration = 0  # that the file holds, of this run

    def __init__(self, output: Path) -> None:
        super().__init__(output.with_name(f".{output.name}.checkpoint"), SAVE_EVERY)

    def load(self, fingerprint: str) -> dict[str, Any] | None:
        """The saved run, if it is of these pictures and settings."""
        try:
            saved = super().load(fingerprint)
        except SettingError:
            _note(f"'{self.path}' is of other pictures or settings: beginning anew.")
            return None
        if saved is not None:
            self.iteration = len(saved["history"])
            _note(f"going on after iteration {self.iteration}, from '{self.path}'.")
        return saved

    def save(self, content: dict[str, Any]) -> None:
        """Write the run's state, the more seldom the longer that takes; on a full disk the run goes on."""
        if self.every == math.inf:
            return
        began = time.monotonic()
        try:
            super().save(content)
            self.iteration = len(content["history"])
            self.every = max(SAVE_EVERY, SAVE_SHARE * (time.monotonic() - began))
        except ImageError:  # L-BFGS' memory takes gigabytes, the picture does not
            _note(f"'{self.path}' cannot be written (is the disk full?): going on without it.")
            self.every = math.inf


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of the same file."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


def _note(text: str) -> None:
    click.echo(f"nst: {text}", err=True)


def _filmed(writer: video.FilmWriter) -> Callable[[gatys.Progress], None]:
    """A callback that keeps about 120 frames of a run, closer together where the picture changes faster."""

    def keep(progress: gatys.Progress) -> None:
        count = min(120, progress.iterations)
        wanted = {round(progress.iterations * ((k + 1) / count) ** 1.5) for k in range(count)}
        if progress.iteration in {1, *wanted}:
            writer.add(progress.image)

    return keep


def _pairs(regions: tuple[str, ...]) -> list[tuple[str, Path | None]]:
    """NAME[=FILE] -> (region or file of a mask, its own style or None)."""
    found: dict[str, Path | None] = {}
    for item in regions:
        name, _, path = item.partition("=")
        if name not in parse.NAMES and not Path(name).suffix:
            raise SettingError(
                f"There is no region '{name}': choose from {', '.join(parse.NAMES)}, or name a mask's file."
            )
        name = name if name in parse.NAMES else str(Path(name).expanduser())
        if name in found:
            raise SettingError(f"The region '{name}' is named twice: name it once, with one style.")
        found[name] = Path(path).expanduser() if path else None
    return list(found.items())
