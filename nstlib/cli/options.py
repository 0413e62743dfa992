"""The options of ``nst stylize``, under the headings of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import SettingError

# Names that the library knows too stand here a second time, so that `nst --help` need not load it.

ANIMATIONS = (".gif", ".webp")  # their files hold a film, or a picture
FILMS = (*ANIMATIONS, ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".ogv")
REGIONS = ("eyebrow", "eye", "nose", "lip", "face", "hair", "person", "background")
SAVE_EVERY = 30.0  # seconds between two checkpoints at least,
SAVE_SHARE = 20.0  # and times as long as one takes: L-BFGS' memory of a large picture has gigabytes
# Without it the broad forms of a large picture hardly change: a layer sees 150 pixels at most.
COARSE, LARGE = 256, 768  # pixels: where coarse to fine begins, for results above
STYLE_SIDE = 128  # pixels; the deepest layers see next to nothing of a smaller style picture

METHODS = ("gatys", "adain", "johnson", "dualstylegan", "jojogan")

_FILE: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "FILE"}
_PIXELS: dict[str, Any] = {"type": click.IntRange(16, 4096), "metavar": "PIXELS"}
_NUMBER: dict[str, Any] = {"type": click.FloatRange(0), "metavar": "NUMBER"}


def one_of(option: str, *names: str, **settings: Any) -> click.Option:
    """An option that takes one of some names."""
    return click.Option([option], type=click.Choice(list(names)), **settings)


# fmt: off
OPTIONS: dict[str, tuple[click.Option, ...]] = {  # by heading of the help
    "Result": (
        one_of("--method", *METHODS, default="gatys", show_default=True, help="gatys: any style, in minutes. "
            "adain: any style, in one forward pass. johnson: a style it was trained for, in one pass. "
            "dualstylegan: the face alone, like a portrait of a style it was trained for (ink:12). jojogan: "
            "the face alone, like one portrait, in minutes."),
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
        one_of("--color", "style", "luminance", "histogram", "coral", help="Whose colors: the style's, or "
            "CONTENT's, pixel by pixel (luminance) or as a whole.  [default: style]"),
        click.Option(["--style-weight"], **_NUMBER,
            help="How much style: 3 keeps the likeness, 100 lets it dissolve.  [default: 10]"),
        click.Option(["--tv-weight"], **_NUMBER, help="How much smoothness.  [default: 0]"),
        click.Option(["--strength"], type=click.FloatRange(0, 1), metavar="NUMBER",
            help="Of adain and jojogan: 0 keeps CONTENT, 1 gives the full style.  [default: 1]"),
    ),
    "Portraits (dualstylegan, jojogan)": (
        click.Option(["--structure"], type=click.FloatRange(0, 1), metavar="NUMBER",
            help="Of dualstylegan: how much of the portrait's shapes.  [default: 1]"),
        click.Option(["--color-strength"], type=click.FloatRange(0, 1), metavar="NUMBER",
            help="How much of its colors.  [default: 1]"),
        click.Option(["--encoder"], **_FILE, help="Of dualstylegan with the authors' generator.pt:12 as the "
            "style: their encoder.pt."),
        click.Option(["--codes"], **_FILE, help="Likewise: their refined_exstyle_code.npy."),
        click.Option(["--face"], type=click.IntRange(1), metavar="NUMBER",
            help="Which face of CONTENT, from left to right.  [default: the largest]"),
        click.Option(["--paste"], is_flag=True, help="Put the face back into CONTENT; without it the result "
            "is the face alone."),
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
            f"[default: 150, fewer above {LARGE} px; dualstylegan 40, jojogan 60]"),
        click.Option(["--smallest"], type=click.IntRange(16), metavar="PIXELS", help="Coarse to fine: "
            "longest side to begin with, then up in steps.  "
            f"[default: {COARSE} for results above {LARGE} and no recipe, else one size]"),
        one_of("--init", "content", "noise", "style", help="Picture to start from.  [default: content]"),
        one_of("--network", "vgg19", "vgg16", "alexnet", help="Network to look through.  [default: vgg19]"),
        one_of("--optimizer", "lbfgs", "adam", "gradient_descent", "newton_cg", "langevin", "annealing",
            help="What changes the picture, step by step.  [default: lbfgs]"),
        click.Option(["--learning-rate"], type=click.FloatRange(0, min_open=True), metavar="NUMBER",
            help="How far a step goes.  [default: the optimizer's own]"),
        click.Option(["--averaging"], type=click.FloatRange(0, 1, max_open=True), metavar="NUMBER",
            help="Average over the last steps; 0.99 suits adam.  [default: 0]"),
        one_of("--style-distance", "gram", "wasserstein2",
            help="What makes two styles alike.  [default: gram]"),
        click.Option(["--seed"], type=click.IntRange(0, 2**32 - 1), metavar="NUMBER", default=0,
            show_default=True, help="Of everything random."),
    ),
    "Running": (
        click.Option(["--device"], metavar="NAME", default="auto", show_default=True,
            help="What to compute on: auto, cpu, cuda, cuda:1, mps."),
        one_of("--precision", "auto", "float32", "bfloat16", default="auto", show_default=True,
            help="Number format; auto: bfloat16 where the hardware is good at it."),
        click.Option(["--checkpoint/--no-checkpoint"], default=True,
            help="Save a picture's run now and then.  [default: checkpoint]"),
        click.Option(["--quiet"], is_flag=True, help="No progress bar."),
    ),
}
# fmt: on


# What each method listens to; anything else that is given would be passed over in silence, so it is refused.
_ALL = {str(option.name) for options in OPTIONS.values() for option in options} | {"content", "styles"}
_COMMON = {"content", "styles", "method", "output", "device", "quiet"}
_FAST = _COMMON | {"size", "color", "precision"}
_PORTRAIT = _COMMON | {"face", "paste", "color_strength", "seed"}
TAKES = {
    "gatys": _ALL - {"strength", "structure", "color_strength", "encoder", "codes", "face", "paste"},
    "johnson": _FAST,
    "adain": _FAST | {"style_size", "movement", "shares", "strength", "regions", "softness"},
    "dualstylegan": _PORTRAIT | {"structure", "shares", "iterations", "encoder", "codes"},
    "jojogan": _PORTRAIT | {"strength", "iterations"},
}


def check_options(method: str, context: click.Context) -> None:
    """Refuse the options of another method.

    Raises:
        SettingError: one was given.
    """
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in TAKES[method]:
            others = [other for other, names in TAKES.items() if name in names]
            raise SettingError(
                f"{parameter.opts[0]} is not for --method {method}: leave it out, or take --method "
                f"{' or '.join(others)}."
            )


class Grouped(click.Command):
    """A command whose help shows its options under the headings of OPTIONS."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Heading by heading; the help option under the last one."""
        last = self.get_help_option(ctx)
        for heading, options in OPTIONS.items():
            listed = [*options, last] if heading == "Running" and last else options
            with formatter.section(heading):
                records = [option.get_help_record(ctx) for option in listed]
                formatter.write_dl([record for record in records if record], col_max=22)
