"""The command ``nst train``: networks that learn, from pictures of yours or from faces that are nobody's."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import SettingError

if TYPE_CHECKING:
    from ..training import TrainingResult

# Heavy imports (torch) stay inside the functions, so that `nst --help` answers at once.

PRESETS: dict[str, dict[str, Any]] = {
    # `quick` and `shipped`: 0.7 to 1.3 s a step on two cores without AVX-512.
    "smoke": {"steps": 4, "batch": 1, "size": 64, "faces": 4},
    "quick": {"steps": 1000, "batch": 1, "size": 128, "faces": 200},
    "shipped": {"steps": 2000, "batch": 1, "size": 128, "faces": 400},
    "paper": {"steps": 40_000, "batch": 4, "size": 256, "faces": 10_000},  # Johnson, section 4.1
}


@click.group()
def train() -> None:
    """Train a network; a run that was stopped or killed goes on when the same command is given again."""


_COUNT: dict[str, Any] = {"type": click.IntRange(1), "metavar": "NUMBER"}


@train.command()
@click.argument("styles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="The weights (.safetensors).  [default: johnson_STYLE.safetensors]")  # fmt: skip
@click.option("--preset", type=click.Choice(list(PRESETS)), default="quick", show_default=True,
    help="Steps, batch, size and faces; shipped: as the course's own were made.")  # fmt: skip
@click.option("--pictures", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Pictures to learn on.  [default: generated faces]")  # fmt: skip
@click.option("--faces", **_COUNT, help="How many faces to generate, where no FOLDER is given.")
@click.option("--start", metavar="STYLE|FILE", help="Begin with another style's weights: quicker.")
@click.option("--steps", **_COUNT, help="Steps.")
@click.option("--batch", **_COUNT, help="Pictures a step, of all processes together.")
@click.option("--size", type=click.IntRange(16, 1024), metavar="PIXELS", help="Side of the crops.")
@click.option("--style-size", type=click.IntRange(16, 4096), metavar="PIXELS", default=256, show_default=True,
    help="Longest side of the style picture; smaller gives finer strokes.")  # fmt: skip
@click.option("--style-weight", type=click.FloatRange(0), metavar="NUMBER", default=2e4, show_default=True,
    help="How much style.")  # fmt: skip
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), metavar="NUMBER", default=2e-3,
    show_default=True, help="Of Adam; it falls to a tenth.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where checkpoints and losses.csv go.  [default: OUTPUT.run]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="NUMBER", default=0, show_default=True,
    help="Of everything random.")  # fmt: skip
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu, cuda, mps.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def johnson(
    styles: tuple[Path, ...], output: Path | None, preset: str, pictures: Path | None, start: str | None,
    folder: Path | None, seed: int, device: str, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Train a network that paints in the manner of the pictures STYLES in one pass (Johnson et al. 2016).

    \b
    nst train johnson data/paintings/great_wave.jpg
    nst stylize me.jpg johnson_great_wave.safetensors --method johnson
    """
    from ..faces import generated as faces
    from ..methods.johnson import Johnson, Settings
    from ..nets import hardware
    from ..pictures import files as images
    from ..training import Schedule

    hardware.keep_freed_memory()
    output = output or Path(f"johnson_{styles[0].stem}.safetensors")
    _check_weights(output)
    if pictures is not None and options["faces"] is not None:
        raise SettingError("--faces are generated where no --pictures are given: leave one of them out.")
    chosen = PRESETS[preset] | {k: v for k, v in options.items() if v is not None}
    settings = Settings(
        size=chosen["size"], style_size=chosen["style_size"], style_weight=chosen["style_weight"],
        tv_weight=2.0, learning_rate=chosen["learning_rate"], decay=0.1,
    )  # fmt: skip
    schedule = Schedule(chosen["steps"], chosen["batch"], average=0.99, seed=seed)
    paintings = [images.load_image(path, size=settings.style_size) for path in styles]
    method = Johnson(start, settings=settings, seed=seed, device=device)
    folder = folder or output.with_suffix(".run")
    if pictures is None:
        pictures = faces.cached(chosen["faces"], 2 * settings.size, device=device, progress=not quiet)
        learned_on = f"{chosen['faces']} generated faces"
        source: Any = faces.listed(pictures, chosen["faces"])[0]
    else:
        learned_on, source = str(pictures.name), pictures
    result = method.fit(source, paintings, schedule, folder, progress=not quiet)
    if _unfinished(result, schedule.steps, folder, ("total", "content", "style")):
        return
    method.save(
        output, style=", ".join(path.stem for path in styles), start=start and Path(start).name,
        learned_on=learned_on, seed=seed,
    )  # fmt: skip
    _done(result, ("total", "content", "style"), output)


FACE_PRESETS: dict[str, dict[str, Any]] = {  # the steps of `shipped` are those of the course's own files
    "face-prior": {
        "smoke": {"steps": 2, "batch": 1, "faces": 2}, "shipped": {"steps": 500, "batch": 2, "faces": 380},
        "paper": {"steps": 50_000, "batch": 16, "faces": 10_000},
    },
    "encoder": {
        "smoke": {"steps": 2, "batch": 2}, "shipped": {"steps": 600, "batch": 6},
        "paper": {"steps": 100_000, "batch": 16},
    },
}  # fmt: skip


def _face_options(command: str) -> Any:
    """The options that both networks of faces share."""
    options = [
        click.option("--preset", type=click.Choice(list(FACE_PRESETS[command])), default="shipped",
            show_default=True, help="Steps and batch; shipped: as the course's own was made."),
        click.option("--steps", **_COUNT, help="Steps."),
        click.option("--batch", **_COUNT, help="Faces a step, of all processes together."),
        click.option("--folder", type=click.Path(path_type=Path), metavar="FOLDER",
            help="Where checkpoints and losses.csv go.  [default: OUTPUT.run]"),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="NUMBER", default=0,
            show_default=True, help="Of everything random."),
        click.option("--device", metavar="NAME", default="auto", show_default=True,
            help="auto, cpu, cuda, mps."),
        click.option("--quiet", is_flag=True, help="No progress bar."),
    ]  # fmt: skip

    def add(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@train.command("face-prior")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    default="mobilestylegan_128.safetensors", show_default=True, help="The head's weights.")  # fmt: skip
@click.option("--critic", type=click.Path(path_type=Path), metavar="FILE",
    default="face_critic.safetensors", show_default=True, help="The critic's weights.")  # fmt: skip
@click.option("--faces", **_COUNT, help="How many faces to learn from; they are drawn first.")
@_face_options("face-prior")
def face_prior(
    output: Path, critic: Path, preset: str, folder: Path | None, seed: int, device: str, quiet: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Train the head that gives faces of 128 pixels in milliseconds, and the critic of its pictures."""
    from ..assets import weights
    from ..faces import generated as faces
    from ..methods import face_networks
    from ..nets import hardware
    from ..training import Schedule

    hardware.keep_freed_memory()
    for path in (output, critic):
        _check_weights(path)
    chosen = FACE_PRESETS["face-prior"][preset] | {k: v for k, v in options.items() if v is not None}
    schedule = Schedule(chosen["steps"], chosen["batch"], average=0.995, seed=seed)
    folder = folder or output.with_suffix(".run")
    source = faces.Faces(device)
    head, judge, result = face_networks.fit_prior(
        source, chosen["faces"], schedule, folder=folder, progress=not quiet
    )
    shown = ("total", "pixel", "perceptual")
    if _unfinished(result, schedule.steps, folder, shown):
        return
    about = {"faces": chosen["faces"], "seed": seed, **_story(result, schedule.batch)}
    weights.save_weights(output, head.state_dict(), {"network": "face prior's head", **about})
    weights.save_weights(critic, judge.state_dict(), {"network": "face prior's critic", **about})
    _done(result, shown, output, critic)


@train.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    default="face_encoder.safetensors", show_default=True, help="The weights.")  # fmt: skip
@_face_options("encoder")
def encoder(
    output: Path, preset: str, folder: Path | None, seed: int, device: str, quiet: bool, **options: Any
) -> None:
    """Train the encoder that reads the codes of a face off its picture."""
    from ..assets import weights
    from ..faces import generated as faces
    from ..methods import face_networks
    from ..nets import hardware
    from ..training import Schedule

    hardware.keep_freed_memory()
    _check_weights(output)
    chosen = FACE_PRESETS["encoder"][preset] | {k: v for k, v in options.items() if v is not None}
    schedule = Schedule(chosen["steps"], chosen["batch"], average=0.995, seed=seed)
    folder = folder or output.with_suffix(".run")
    net, result = face_networks.fit_encoder(
        faces.Faces(device).prior(), schedule, folder=folder, progress=not quiet
    )
    shown = ("total", "latent", "perceptual", "identity")
    if _unfinished(result, schedule.steps, folder, shown):
        return
    weights.save_weights(
        output, net.state_dict(), {"network": "face encoder", "seed": seed, **_story(result, schedule.batch)}
    )
    _done(result, shown, output)


@train.command()
@click.argument("style", metavar="SET|FOLDER")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="The style's weights.  [default: dualstyle_SET.safetensors]")  # fmt: skip
@click.option("--preset", type=click.Choice(["smoke", "small", "paper"]), default="small", show_default=True,
    help="smoke: a few steps, to see that all stages run; small: as the course's own were made; paper: the "
    "released schedule over the authors' networks, for several GPUs.")  # fmt: skip
@click.option("--generator", type=click.Path(path_type=Path), metavar="FILE",
    help="Of paper: the authors' generator-pretrain.pt, or a StyleGAN2 in this layout.")  # fmt: skip
@click.option("--encoder", type=click.Path(path_type=Path), metavar="FILE",
    help="Of paper: the authors' encoder.pt.")  # fmt: skip
@click.option("--portraits", **_COUNT, help="How many of the set, from its first.  [default: all]")
@click.option("--folder", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where each stage keeps what is done.  [default: OUTPUT.run]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="NUMBER", default=0, show_default=True,
    help="Of everything random.")  # fmt: skip
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu, cuda, mps.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def dualstylegan(
    style: str, output: Path | None, preset: str, generator: Path | None, encoder: Path | None,
    portraits: int | None, folder: Path | None, seed: int, device: str, quiet: bool,
) -> None:  # fmt: skip
    """Teach DualStyleGAN the style of a set of portraits, in its four stages (paper A, section 3.2).

    SET is a style set of the course (oil, ink ...) or of DualStyleGAN's authors (cartoon ...), FOLDER one of
    yours.

    \b
    nst train dualstylegan ink
    nst stylize me.jpg dualstyle_ink.safetensors:12 --method dualstylegan
    accelerate launch -m nstlib train dualstylegan cartoon --preset paper --generator generator-pretrain.pt
    --encoder encoder.pt
    """
    from ..faces import style_sets
    from ..methods.dualstylegan import presets, published
    from ..methods.dualstylegan.transfer import DualStyle
    from ..nets import hardware

    hardware.keep_freed_memory()
    output = output or Path(f"dualstyle_{Path(style).name}.safetensors")
    _check_weights(output)
    if (preset == "paper") != (generator is not None) or (generator is None) != (encoder is None):
        raise SettingError(
            "--preset paper learns over the authors' networks: give --generator and --encoder with it, and "
            "with no other preset."
        )
    critic = None
    if generator is None:
        found = style_sets.load_style_set(style)
        method = DualStyle(seed=seed, device=device)
        settings = presets.smoke() if preset == "smoke" else presets.Preset()
    else:
        method = published.load_published(generator, encoder, seed=seed, device=device)
        critic, settings = published.load_published_critic(generator, device), presets.released()
        found = style_sets.load_style_set(style, method.size)
    pictures = found.pictures[:portraits]
    folder = folder or output.with_suffix(".run")
    began = time.monotonic()
    follower = bool(int(os.environ.get("RANK", "0")))  # of several processes the first one saves, and speaks
    try:
        method.fit(
            None, pictures, settings, folder, seed=seed, critic=critic,
            told=lambda stage: None if follower else click.echo(stage), progress=not quiet,
        )  # fmt: skip
    except KeyboardInterrupt:
        click.echo(f"stopped; the same command goes on, from '{folder}'")
        return
    if follower:
        return
    method.save(output, style=found.name, licence=found.licence)
    seconds = time.monotonic() - began
    click.echo(f"done: {output}, {len(pictures)} portraits in {seconds:.0f} s")


def _check_weights(output: Path) -> None:
    if output.suffix != ".safetensors":
        raise SettingError(f"'{output}' is to hold weights: end its name in .safetensors.")


def _story(result: TrainingResult, batch: int) -> dict[str, Any]:
    """What a file of weights says of its training: steps, seconds, the last losses."""
    losses = {k: float(f"{v:.4g}") for k, v in result.history[-1].items() if k not in ("step", "seconds")}
    return {"steps": result.step, "batch": batch, "seconds": round(result.seconds), "losses": losses}


def _said(result: TrainingResult, names: Sequence[str]) -> str:
    row = result.history[-1]
    return ", ".join(f"{name} {row[name]:.3g}" for name in names if name in row)


def _unfinished(result: TrainingResult, steps: int, folder: Path, names: Sequence[str]) -> bool:
    """Whether there is nothing to save: in all but the first process, and after an interruption."""
    if int(os.environ.get("RANK", "0")):  # of several processes the first one saves, and speaks
        return True
    if result.interrupted:
        click.echo(
            f"stopped after {result.step} of {steps} steps ({_said(result, names)}); the same command goes "
            f"on, from '{folder}'"
        )
    return result.interrupted


def _done(result: TrainingResult, names: Sequence[str], *outputs: Path) -> None:
    files = ", ".join(str(path) for path in outputs)
    click.echo(f"done: {files}, {result.step} steps in {result.seconds:.0f} s ({_said(result, names)})")
