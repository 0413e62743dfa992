"""The command ``nst train``: every method that learns, from pictures or from generated faces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..errors import SettingError
from ..faces import generated
from ..methods import METHODS, Method
from ..methods.base import schedule_of
from ..nets import hardware
from ..training import Schedule
from .options import DEVICE, QUIET, SEED, described, option


@click.group()
def train() -> None:
    """Train a network; a run that was stopped or killed goes on when the same command is given again.

    \b
    nst train johnson data/paintings/great_wave.jpg
    nst stylize me.jpg johnson_great_wave.safetensors --method johnson
    nst train dualstylegan ink
    nst stylize me.jpg dualstylegan_ink.safetensors:12 --method dualstylegan
    """


def command(name: str, method: type[Method]) -> click.Command:
    """``nst train NAME``, with the options of the method's settings."""
    first, values = next(iter(method.presets.items()))
    fields = (described(Schedule) if "steps" in values else {}) | described(method.settings_class)
    own = [option(key, field, values.get(key)) for key, field in fields.items()]
    path: dict[str, Any] = {"type": click.Path(path_type=Path)}
    # fmt: off
    options = [
        click.Argument(["styles"], nargs=-1, required=True),
        click.Option(["-o", "--output"], **path, metavar="FILE",
            help=f"The weights (.safetensors).  [default: {name}_STYLE.safetensors]"),
        click.Option(["--preset"], type=click.Choice(list(method.presets)), default=first, show_default=True,
            help="Values for what follows; shipped: as the course's own were made; paper: for GPUs."),
        *([click.Option(["--pictures"], **path, metavar="FOLDER",
            help="Pictures to learn on.  [default: generated faces]"),
           click.Option(["--faces"], type=click.IntRange(1), metavar="NUMBER",
            help="How many faces to generate, where no FOLDER is given.")] if "faces" in values else []),
        click.Option(["--start"], metavar="STYLE|FILE", help="Begin with another style's weights: quicker."),
        *own,
        click.Option(["--folder"], **path, metavar="FOLDER",
            help="Where checkpoints and losses.csv go.  [default: OUTPUT.run]"),
        SEED, DEVICE, QUIET,
    ]
    # fmt: on
    text = f"Teach {name} a style: {method.summary}."
    return click.Command(name, params=options, help=text, callback=lambda **given: run(name, method, **given))


def run(
    name: str, method: type[Method], *, styles: tuple[str, ...], output: Path | None, preset: str,
    start: str | None, folder: Path | None, seed: int, device: str, quiet: bool, pictures: Path | None = None,
    faces: int | None = None, **given: Any,
) -> None:  # fmt: skip
    """Read the styles, learn, save; of several processes the first one saves, and speaks."""
    hardware.keep_freed_memory()
    output = output or Path(f"{name}_{Path(styles[0]).stem}.safetensors")
    if output.suffix != ".safetensors":
        raise SettingError(f"'{output}' is to hold weights: end its name in .safetensors.")
    if pictures is not None and faces is not None:
        raise SettingError("--faces are generated where no --pictures are given: leave one of them out.")
    values = dict(method.presets[preset]) | {k: v for k, v in given.items() if v is not None}
    known = method.settings_class.__dataclass_fields__
    settings = method.settings_class(**{k: v for k, v in values.items() if k in known})
    schedule = schedule_of(values, seed=seed)
    options: dict[str, Any] = {"device": device, "seed": seed}
    learner = method.load(start, **options) if start else method(settings, **options)
    learner.settings = settings
    wanted = learner.read_styles(styles, getattr(settings, "style_size", None))
    source: Any = pictures
    if pictures is None and "faces" in values:
        count = faces or values["faces"]
        drawn = generated.cached(count, 2 * int(values["size"]), device=device, progress=not quiet)
        source = generated.listed(drawn, count)[0]
    folder = folder or output.with_suffix(".run")
    try:
        result = learner.fit(source, wanted, schedule=schedule, folder=folder, progress=not quiet)
    except KeyboardInterrupt:  # between two trainings of one method
        click.echo(f"stopped; the same command goes on, from '{folder}'")
        return
    if int(os.environ.get("RANK", "0")):
        return
    shown = ", ".join(f"{key} {value:.3g}" for key, value in list(result.losses.items())[:3])
    if result.interrupted:
        planned = f" of {schedule.steps}" if "steps" in values else ""  # other methods' stages have their own
        click.echo(
            f"stopped after {result.step}{planned} steps ({shown}); the same command goes on, from '{folder}'"
        )
        return
    learned_on = str(pictures.name) if pictures else f"{len(source)} generated faces" if source else ""
    names = ", ".join(Path(word).stem for word in styles)
    learner.save(output, style=names, start=start and Path(start).name, learned_on=learned_on, seed=seed)
    click.echo(f"done: {output}, {result.step} steps in {result.seconds:.0f} s ({shown})")


for _name, _method in METHODS.items():
    if _method.presets:
        train.add_command(command(_name, _method))
