"""``nst stylize --method adain`` and ``--method johnson``: a picture, or a film, in one forward pass."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingError
from .options import STYLE_SIDE
from .outputs import thinned, write_film, write_picture

if TYPE_CHECKING:
    from torch import Tensor

    Stylize = Callable[[Tensor], Tensor]


def stylize(
    content: Path, styles: tuple[Path, ...], pairs: list[tuple[str, Path | None]], output: Path, moving: bool,
    quiet: bool, options: dict[str, Any],
) -> None:  # fmt: skip
    """Paint a picture or a film by a method of one forward pass, and say how long it took."""
    prepare = {"johnson": _johnson, "adain": _adain}[options["method"]]
    if moving:
        _film(content, output, prepare, styles, quiet, options)
        return
    from ..pictures import files as images

    image = images.load_image(content, size=options["size"])
    paint, about = prepare(image, styles, pairs, options)
    began = time.perf_counter()
    made = paint(image)
    seconds = time.perf_counter() - began
    write_picture(
        made, output, seconds, method=options["method"], content=content, styles=styles, about=about
    )


def _johnson(
    image: Tensor, styles: tuple[Path, ...], pairs: object, options: dict[str, Any]
) -> tuple[Stylize, dict[str, Any]]:
    from ..methods.johnson import SHIPPED, Johnson

    if len(styles) != 1:
        raise SettingError(
            f"A network has learned one style, and {len(styles)} are named: name one of "
            f"{', '.join(SHIPPED)}, or a file of weights."
        )
    (style,) = styles
    weights: str | Path = style.stem if style.stem in SHIPPED else style
    if style.stem not in SHIPPED and style.suffix.lower() not in (".safetensors", ".pth", ".pt", ".model"):
        raise SettingError(
            f"No network has learned '{style}': take one of {', '.join(SHIPPED)}, train one (nst train "
            "johnson -h), or take --method adain, which paints any style."
        )
    method = Johnson(
        weights, color=options["color"] or "style", device=options["device"], precision=options["precision"]
    )
    return method.stylize, {"color": method.color, "network": method.about}


def _adain(
    image: Tensor, styles: tuple[Path, ...], pairs: list[tuple[str, Path | None]], options: dict[str, Any]
) -> tuple[Stylize, dict[str, Any]]:
    from ..methods.adain import AdaIN
    from ..pictures import files as images
    from .stylize import masks_of

    strength = 1.0 if options["strength"] is None else options["strength"]
    color = options["color"] or "style"
    if pairs and len(styles) > 1:
        raise SettingError(
            f"With --method adain a region has one style, and {len(styles)} are named: name one, or "
            "NAME=FILE for each region."
        )
    method = AdaIN(
        strength=strength, color=color, device=options["device"], precision=options["precision"]
    )  # fmt: skip
    size = options["style_size"] or max(*image.shape[-2:], STYLE_SIDE)
    shares = list(options["shares"]) or None
    about = {"strength": strength, "color": color, "style_size": size, "shares": shares}
    if not pairs:
        found: list[Any] = [images.load_image(path, size=size) for path in styles]
        if color == "style":
            found = [method.statistics(style) for style in found]  # once for all frames of a film
        return lambda picture: method.stylize(picture, found, shares=shares), about
    own = [images.load_image(path or styles[0], size=size) for _, path in pairs]
    masks = list(masks_of(image, pairs, options).values())
    about["regions"] = [f"{name}={path.name}" if path else name for name, path in pairs]
    return lambda picture: method.stylize(picture, own, masks=masks), about


def _film(
    content: Path, output: Path, prepare: Callable[..., tuple[Stylize, dict[str, Any]]],
    styles: tuple[Path, ...], quiet: bool, options: dict[str, Any],
) -> None:  # fmt: skip
    """Frame by frame; the frames painted so far are kept, whatever ends it."""
    from ..pictures import video

    frames, fps = video.read_film(content, size=options["size"])
    first = next(frames)
    paint, _ = prepare(first, styles, [], options)
    wanted, rate = thinned(itertools.chain([first], frames), fps, output)
    write_film(output, rate, ((paint(frame), False) for frame in wanted), quiet, every=1.0)
