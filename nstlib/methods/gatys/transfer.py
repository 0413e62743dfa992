"""Gatys' method from pictures to picture: starts, colors, tiles, and the loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import ImageError, OptimizationError, SettingError
from ...nets.features import FeatureExtractor
from ...nets.hardware import give_back_memory
from ...nets.vgg import smallest_side
from ...pictures import color
from ..base import Method, color_mode
from .loop import Checkpoint, Progress, Result, Run
from .objective import NOTHING, Anchor, Guide, Objective, as_guides, check_fit, painted
from .settings import Settings
from .sizes import enlarged, ladder, plan, scaled
from .tiles import TiledObjective

# No paper says how strong its noise is. Noise over all of [0, 1] leaves a finely checkered rest that hundreds
# of steps do not remove, as deep layers hardly see it; at 0.3 of that far less of it is left.
NOISE_AMPLITUDE = 0.3

# Above this many pixels the whole picture's activations do not fit a small laptop (about 3 GB in bfloat16).
WHOLE_PIXELS = 1_200_000
TILE = 512  # larger ones waste less on margins, but are no faster, as less of them stays in the caches


def initial_image(
    init: str,
    content: Tensor | None,
    style: Tensor | None,
    size: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The picture an optimization starts from, (1, 3, H, W).

    Args:
        init: "content", "style" (resized to the content) or "noise" (gray with faint noise, paper A's start).
        content: gives the size, if there is one.
        style: gives the size if there is no content.
        size: (H, W), wins over both.
        generator: makes the noise reproducible.

    Raises:
        SettingError: the picture to start from is missing.
    """
    source = {"content": content, "style": style}.get(init)
    if init != "noise" and source is None:
        raise SettingError(f"init='{init}' needs a {init} picture; give one or start from 'noise'.")
    shape = size or next(tuple(p.shape[-2:]) for p in (content, style) if p is not None)
    if init == "noise":
        noise = torch.rand((1, 3, *shape), generator=generator)
        return 0.5 + NOISE_AMPLITUDE * (noise - 0.5)
    assert source is not None
    return source.clone() if tuple(source.shape[-2:]) == tuple(shape) else scaled(source, shape)


def stylize(
    content: Tensor | None,
    style: Tensor | Sequence[Tensor] | Sequence[Guide] | None,
    settings: Settings | None = None,
    *,
    size: tuple[int, int] | None = None,
    start: Tensor | None = None,
    anchor: Anchor | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str | torch.dtype = "auto",
    extractor: FeatureExtractor | None = None,
    callback: Callable[[Progress], bool | None] | None = None,
    progress: bool = True,
    checkpoint: Checkpoint | None = None,
    **changes: Any,
) -> Result:
    """Paint the content picture in the style picture's manner.

    Args:
        content: (1, 3, H, W), RGB in [0, 1]; None gives a texture (Gatys et al. 2015).
        style: (1, 3, H', W') of any size; several pictures are blended; :class:`Guide` objects bind styles to
            regions; None gives a reconstruction of the content.
        settings: all that decides the result.
        size: (H, W) of the result if not the content's (textures).
        start: (1, 3, H, W), a picture to start from that takes the place of ``init``, resized where it must.
        anchor: the picture of the temporal term (films).
        seed: of the noise, if the start is noise, and of the random optimizers.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: see :func:`nstlib.nets.hardware.resolve_precision`.
        extractor: a network already loaded, to save the time.
        callback: called with :class:`Progress` after each iteration; returning False stops.
        progress: show a progress bar.
        checkpoint: a file from which the run goes on when it was killed; whoever has saved the result removes
            it (:meth:`Checkpoint.remove`).
        **changes: single settings by name, ``stylize(c, s, iterations=50)``.

    Returns:
        :class:`Result`, the picture in the content's size.

    Raises:
        SettingError: a setting that is unknown or out of range.
        ImageError: not one picture (1, 3, H, W), or values that are not numbers.
        AssetError: the network's weights cannot be had.
        OptimizationError: the loss is no longer a number.

    Example:
        >>> result = stylize(load_image("me.jpg", size=512), load_image("starry_night.jpg"))  # doctest: +SKIP
    """
    settings = (settings or Settings()).changed(**changes)
    guides = as_guides(style)
    if style is not None and not guides:
        raise SettingError("The list of styles is empty: give a style picture, or None to go without.")
    if content is None and not guides:
        raise SettingError(NOTHING)  # before the network is loaded
    pictures = {"content": content, "start": start}
    pictures |= {f"style[{i}]": p for i, p in enumerate(p for guide in guides for p in guide.styles)}
    for name, picture in pictures.items():
        if picture is not None:
            _check("style" if name == "style[0]" else name, picture)
    if content is None and settings.init == "content":
        settings = replace(settings, init="noise")
    if content is not None:
        for guide in guides:
            if guide.mask is not None:
                check_fit(guide.mask, content, "content")
        guides = [
            replace(g, styles=tuple(color.prepare_style(settings.color, p, content) for p in g.styles))
            for g in guides
        ]
    extractor = _extractor_for(settings, content, guides, extractor, device, precision)
    first = guides[0].styles[0] if guides else None
    generator = torch.Generator().manual_seed(seed)
    shape = size or next(tuple(p.shape[-2:]) for p in (content, start, first) if p is not None)
    least = max(smallest_side(extractor.network, name) for name in extractor.layer_names)
    sizes = ladder(shape, settings.smallest, settings.size_factor)
    sizes = [now for now in sizes[:-1] if min(now) >= least] + sizes[-1:]  # a panorama is soon too narrow
    steps = plan(sizes, settings)
    finish = None
    if content is not None and settings.color == "luminance":
        finish = partial(_recolored, settings.color, content)
    run = Run(
        settings, sum(steps), seed=seed, callback=callback, progress=progress, checkpoint=checkpoint,
        fingerprint=_fingerprint(settings, content, guides, start, anchor, seed, shape, extractor),
        finish=finish,
    )  # fmt: skip
    image = start if start is not None else initial_image(settings.init, content, first, sizes[0], generator)
    reached: Tensor | None = None
    try:
        for stage, (now, count) in enumerate(zip(sizes, steps, strict=True)):
            if stage < run.stage:
                continue  # done by the run that this one goes on from
            factor = max(now) / max(shape)
            image = image if tuple(image.shape[-2:]) == now else enlarged(image, now)
            objective = _objective(extractor, content, guides, settings, now, factor, anchor)
            reached = image = run.minimize(objective, image, count)
            if run.stopped:
                break
            if stage + 1 < len(sizes):
                run.next_size(objective)
                del objective
                give_back_memory()  # freed in pieces that the next size is too large for
    except KeyboardInterrupt:  # between two sizes, when the larger pictures are looked through
        if reached is None:
            raise
        run.interrupted = True
    except OptimizationError as error:
        if isinstance(error.result, Result):
            error.result.image = run.shown(_whole(error.result.image, shape, content, guides))
        raise
    assert reached is not None
    return Result(run.shown(_whole(reached, shape, content, guides)), settings, run.history, run.interrupted)


def _check(name: str, picture: Tensor) -> None:
    found = tuple(picture.shape) if isinstance(picture, Tensor) else type(picture).__name__
    if not isinstance(picture, Tensor) or picture.ndim != 4 or picture.shape[:2] != (1, 3):
        raise ImageError(
            f"The {name} picture has the shape (1, 3, H, W), not {found}: load it with load_image."
        )
    if not picture.is_floating_point():
        raise ImageError(
            f"The {name} picture's values are floats in [0, 1], not {picture.dtype}: use image.float() / 255."
        )
    if not bool(torch.isfinite(picture).all()):
        raise ImageError(f"The {name} picture holds values that are not numbers: load it anew.")


def _extractor_for(
    settings: Settings,
    content: Tensor | None,
    guides: Sequence[Guide],
    extractor: FeatureExtractor | None,
    device: str | torch.device,
    precision: str | torch.dtype,
) -> FeatureExtractor:
    """The network with the layers that are needed; one that was given is held to them."""
    wanted = (settings.content_layers if content is not None else ()) + (
        settings.style_layers if guides else ()
    )
    if extractor is None:
        return FeatureExtractor(
            settings.network,
            wanted or settings.content_layers,
            pooling=settings.pooling,
            precision=precision,
            device=device,
        )
    missing = set(wanted) - set(extractor.layer_names)
    if extractor.net.pooling != settings.pooling:
        raise SettingError(
            f"The extractor's pooling is '{extractor.net.pooling}', the settings' is '{settings.pooling}': "
            "make one with theirs, or leave it out."
        )
    if missing or extractor.network != settings.network:
        raise SettingError(
            f"The extractor gives {', '.join(extractor.layer_names)} of {extractor.network}; the settings "
            f"need {', '.join(wanted)} of {settings.network}: make one with these, or leave it out."
        )
    return extractor


def _objective(
    extractor: FeatureExtractor,
    content: Tensor | None,
    guides: Sequence[Guide],
    settings: Settings,
    shape: tuple[int, int],
    factor: float,
    anchor: Anchor | None,
) -> Objective:
    """The objective at one size: style pictures shrink as the content does, so that strokes keep in step."""
    if content is not None:
        content = scaled(content, shape)
    if factor < 1 or any(g.mask is not None and tuple(g.mask.shape[-2:]) != tuple(shape) for g in guides):
        guides = [_scaled_guide(guide, shape, factor) for guide in guides]
        anchor = anchor and Anchor(scaled(anchor.image, shape), scaled(anchor.mask, shape))
    # AlexNet's first layer has a sixteenth of the pixels: it needs no tiles, and cannot have any.
    large = shape[0] * shape[1] > WHOLE_PIXELS and settings.network != "alexnet"
    tiled = settings.tile is not None or large
    kind = partial(TiledObjective, tile=settings.tile or TILE) if tiled else Objective
    return kind(extractor, content, guides, settings, anchor=anchor)


def _scaled_guide(guide: Guide, shape: tuple[int, int], factor: float) -> Guide:
    def smaller(picture: Tensor) -> Tensor:
        # At least 32 pixels a side, what the deepest layers need.
        return scaled(picture, [max(min(32, n), round(n * factor)) for n in picture.shape[-2:]])

    masks = guide.style_masks or ()
    return replace(
        guide,
        styles=tuple(smaller(style) for style in guide.styles),
        mask=None if guide.mask is None else scaled(guide.mask, shape),
        style_masks=tuple(None if mask is None else smaller(mask) for mask in masks),
    )


def _whole(image: Tensor, shape: Sequence[int], content: Tensor | None, guides: Sequence[Guide]) -> Tensor:
    """A picture that was stopped at a smaller size: enlarged, and the content itself outside the masks."""
    if tuple(image.shape[-2:]) == tuple(shape):
        return image
    image = enlarged(image, shape)
    paint = painted(guides)
    if content is None or paint is None:
        return image
    content, paint = scaled(content, shape).to(image), scaled(paint, shape).to(image)
    return content + paint * (image - content)


def _recolored(how: str, content: Tensor, image: Tensor) -> Tensor:
    return color.finish(how, image, scaled(content, image.shape[-2:]))


def _fingerprint(
    settings: Settings,
    content: Tensor | None,
    guides: Sequence[Guide],
    start: Tensor | None,
    anchor: Anchor | None,
    seed: int,
    shape: Sequence[int],
    extractor: FeatureExtractor,
) -> str:
    """A digest of everything that decides the result."""
    values = [asdict(settings), seed, list(shape), str(extractor.precision), extractor.device.type]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    pictures = [content, start, *((anchor.image, anchor.mask) if anchor is not None else ())]
    for guide in guides:
        digest.update(repr((guide.shares, guide.strength)).encode())
        pictures += [*guide.styles, guide.mask, *(guide.style_masks or ())]
    for picture in pictures:
        digest.update(b"-" if picture is None else repr(tuple(picture.shape)).encode())
        digest.update(b"" if picture is None else picture.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Gatys(Method):
    """Gatys' method behind the common protocol: nothing is learned, each picture is a run of its own."""

    summary = "any style, in minutes"
    settings_class = Settings
    takes = frozenset(
        {"size", "film", "style_size", "movement", "shares", "color", "recipe", "regions", "softness",
         "precision", "checkpoint"}
    )  # fmt: skip

    def stylize(
        self, content: Tensor, style: Any = None, *, strength: float = 1.0, keep_colors: bool | str = False,
        masks: Sequence[Tensor] | None = None, **own: Any,
    ) -> Tensor:  # fmt: skip
        """See :meth:`Method.stylize`; ``strength`` multiplies the style weight; ``own``: :func:`stylize`."""
        changes: dict[str, Any] = {"color": color_mode(keep_colors)} if keep_colors else {}
        changes["style_weight"] = strength * self.settings.style_weight
        if masks is not None:
            styles = [style] * len(masks) if isinstance(style, Tensor) else style
            style = [Guide((one,), mask=mask) for one, mask in zip(styles, masks, strict=True)]
        options = {"seed": self.seed, "device": self.device, "precision": self.precision, **own}
        return stylize(content, style, self.settings.changed(**changes), **options).image
