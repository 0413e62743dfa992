"""``nst stylize --method dualstylegan`` and ``--method jojogan``: the face of a picture, by a generator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingError
from .outputs import write_picture

if TYPE_CHECKING:
    from torch import Tensor


SMALL, PUBLISHED = 128, 1024  # pixels a side of the face: of the course's own generator, of the authors'
SEARCH = 40  # steps from the encoder's codes to a photograph's: without them it is another person


def stylize(
    content: Path, styles: tuple[Path, ...], output: Path, moving: bool, quiet: bool, options: dict[str, Any]
) -> None:
    """Find the face, draw it in the style, put it back if that is wanted."""
    from ..faces import align as portraits
    from ..pictures import files as images

    if moving:
        raise SettingError(f"--method {options['method']} is for pictures, and '{content}' is a film.")
    if not styles:
        raise SettingError("There is no style: name one after the content; nst stylize -h shows how.")
    image = images.load_image(content)
    size = PUBLISHED if any(_parted(str(style))[0].endswith(".pt") for style in styles) else SMALL
    portrait = portraits.align_portrait(image, size=size, face=options["face"])
    began = time.perf_counter()
    draw = {"dualstylegan": _dualstylegan, "jojogan": _jojogan}[options["method"]]
    made, about = draw(portrait.picture, styles, quiet, options)
    seconds = time.perf_counter() - began
    if options["paste"]:
        made = portraits.paste(image, portrait.theta, made)
    write_picture(
        made, output, seconds, method=options["method"], content=content, styles=styles, about=about
    )


def _dualstylegan(
    portrait: Tensor, styles: tuple[Path, ...], quiet: bool, options: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    from ..methods.dualstylegan.published import AS_RELEASED, load_published
    from ..methods.dualstylegan.transfer import SHIPPED, DualStyle

    named = [_parted(str(path)) for path in styles]
    names = list(dict.fromkeys(name for name, _ in named))
    if len(names) > 1:
        raise SettingError(
            f"Portraits of one style can be fused, not {names[0]} and {names[1]}: name one of them only."
        )
    name, theirs = names[0], names[0].endswith(".pt")
    if not theirs and (options["encoder"] or options["codes"]):
        raise SettingError(
            f"--encoder and --codes go with the authors' generator.pt, and '{name}' is none: leave them out."
        )
    if theirs:
        if options["encoder"] is None or options["codes"] is None:
            raise SettingError(
                f"'{name}' needs the files it was published with: --encoder encoder.pt and --codes "
                "refined_exstyle_code.npy."
            )
        method = load_published(name, options["encoder"], options["codes"], device=options["device"])
    else:
        stem = Path(name).stem
        if not name.endswith(".safetensors") and stem not in SHIPPED:
            raise SettingError(
                f"No style '{name}' has been learned: take one of {', '.join(SHIPPED)}, as in ink:12, or a "
                "file that nst train dualstylegan has written."
            )
        method = DualStyle(name if name.endswith(".safetensors") else stem, device=options["device"])
    numbers = [number for _, number in named]
    shares = list(options["shares"]) or [1.0] * len(numbers)
    if len(shares) != len(numbers):
        raise SettingError(
            f"There are {len(numbers)} portraits and {len(shares)} shares: give one --share for each."
        )
    seed = options["seed"]
    if "random" in numbers:
        if len(numbers) > 1:
            raise SettingError("A random style stands alone: name it once, and no other portrait.")
        exemplar: Any = method.sample(1, seed)[0]
    else:
        exemplar = {}
        for number, share in zip(numbers, shares, strict=True):
            exemplar[int(number)] = exemplar.get(int(number), 0.0) + share
    usual = AS_RELEASED if theirs else {"structure": 1.0, "color": 1.0, "truncation": 1.0}
    given = {"structure": options["structure"], "color": options["color_strength"]}
    chosen = usual | {key: value for key, value in given.items() if value is not None}
    steps = (0 if theirs else SEARCH) if options["iterations"] is None else options["iterations"]
    made = method.stylize(portrait, exemplar, steps=steps, **chosen)
    about = {"iterations": steps, "shares": shares, "seed": seed, "truncation": chosen["truncation"]}
    return made, about | {"structure": chosen["structure"], "color_strength": chosen["color"]}


def _parted(text: str) -> tuple[str, str]:
    """NAME[:NUMBER] -> name and number, which is 0 if it is not said."""
    name, sign, number = text.rpartition(":")
    if not sign:
        return text, "0"
    if number != "random" and not number.isdigit():
        raise SettingError(
            f"'{text}' names no portrait of a style: write {name}:0 or another number, or {name}:random."
        )
    return name, number


def _jojogan(
    portrait: Tensor, styles: tuple[Path, ...], quiet: bool, options: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    import torch

    from ..faces import align as portraits
    from ..methods.jojogan import JoJoGAN
    from ..pictures import files as images
    from ..training import Schedule

    strength = 1.0 if options["strength"] is None else options["strength"]
    if styles[0].suffix == ".safetensors":
        if len(styles) > 1:
            raise SettingError("A file of weights is one style: name it alone.")
        method = JoJoGAN.load(styles[0], device=options["device"])
        return method.stylize(portrait, alpha=strength), {"strength": strength, "network": method.about}
    if options["color_strength"] not in (None, 0):
        raise SettingError(
            "--color-strength of --method jojogan is 0, the content's colors, or is left out: the style's."
        )
    pictures = [portraits.align_portrait(images.load_image(path), size=128).picture for path in styles]
    method = JoJoGAN(device=options["device"])
    if options["iterations"] is not None:
        method.settings = method.settings.changed(steps=options["iterations"])
    schedule = Schedule(method.settings.steps, len(pictures), seed=options["seed"])
    method.fit(torch.cat(pictures), schedule, progress=not quiet)
    made = method.stylize(portrait, alpha=strength, keep_colors=options["color_strength"] == 0)
    return made, {"strength": strength, "network": method.about}
