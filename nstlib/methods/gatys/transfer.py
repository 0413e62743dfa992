"""Gatys' method from pictures to picture: starts, coarse to fine, colors, tiles, films."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...errors import OptimizationError, SettingError
from ...faces.align import align
from ...faces.detect import find_faces
from ...nets.features import FeatureExtractor
from ...nets.hardware import give_back_memory
from ...nets.vgg import receptive_field, smallest_side
from ...pictures import color
from ...pictures.files import check_mask, check_picture, resize
from ...pictures.flow import consistency, optical_flow, warp
from ...training import digest
from ..base import Method, color_mode, pad_to_multiple
from .objective import Anchor, Guide, Objective, as_guides, painted
from .run import Callback, Checkpoint, Result, Run
from .settings import Settings
from .tiles import TiledObjective

# No paper says how strong its noise is. Noise over all of [0, 1] leaves a finely checkered rest that hundreds
# of steps do not remove, as deep layers hardly respond to it; at 0.3 of that far less of it is left.
NOISE_AMPLITUDE = 0.3

# Above this many pixels the whole picture's activations do not fit a small laptop (about 3 GB in bfloat16).
WHOLE_PIXELS = 1_200_000
TILE = 512  # larger ones waste less on margins, but are no faster, as less of them stays in the caches

# What makes flicker invisible without painting the first frame's errors into all others (notebook 03b).
TEMPORAL_WEIGHT = 300.0
# Below this share of trusted flow a new scene has begun: across a cut 2 to 7 % are trusted by chance, within
# a scene 94 % and more (six portraits, 96 and 192 px).
CUT = 0.3


def initial_image(
    init: str, content: Tensor | None, style: Tensor | None, size: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
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
    shape = size or next(tuple(p.shape[-2:]) for p in (content, style) if p is not None)
    if init == "noise":
        noise = torch.rand((1, 3, *shape), generator=generator)
        return 0.5 + NOISE_AMPLITUDE * (noise - 0.5)
    source = {"content": content, "style": style}[init]
    if source is None:
        raise SettingError(f"init='{init}' needs a {init} picture; give one or start from 'noise'.")
    return resize(source, shape).clone()


# -------------------------------------------------------------------------------------------- coarse to fine


def enlarged(image: Tensor, shape: Sequence[int]) -> Tensor:
    """The unclamped picture of one size as the start of the next, (1, 3, H, W) -> (1, 3, h, w)."""
    # Apple's MPS can do this from torch 2.8 on; it is done once a size, so the processor will do.
    here = image.detach().cpu() if image.device.type == "mps" else image.detach()
    return interpolate(here, tuple(shape), mode="bicubic", antialias=True).to(image.device)


def pyramid_sizes(shape: Sequence[int], smallest: int | None) -> list[tuple[int, int]]:
    """The sizes of a coarse-to-fine run, (H, W) each, up to ``shape``: √2 from one to the next (crowsonkb).

    Args:
        shape: (H, W) of the last size.
        smallest: the first size's longest side is at least this; None or too large: the last size alone.

    Example:
        >>> pyramid_sizes((512, 384), 256)
        [(256, 192), (362, 272), (512, 384)]
    """
    height, width = int(shape[0]), int(shape[1])
    longest = max(height, width)
    if smallest is None or smallest >= longest:
        return [(height, width)]
    count = math.floor(2 * math.log2(longest / smallest) + 1e-9)
    factors = [2 ** (-k / 2) for k in range(count, -1, -1)]
    return [(max(1, round(height * f)), max(1, round(width * f))) for f in factors]


def iterations_per_size(sizes: Sequence[tuple[int, int]], settings: Settings) -> list[int]:
    """Iterations at each size: what the settings say at the smallest and the last, fewer in between.

    The larger a size, the nearer to its end it begins, and the more each iteration costs: with as many at
    each, the sizes before the last took as long as the last.
    """
    first = settings.coarse_iterations or 2 * settings.iterations
    coarse = [max(1, round(first * max(sizes[0]) / max(size))) for size in sizes[:-1]]
    return [*coarse, settings.iterations]


# -------------------------------------------------------------------------------------------------- a picture


def stylize(
    content: Tensor | None, style: Tensor | Sequence[Tensor] | Sequence[Guide] | None,
    settings: Settings | None = None, *, size: tuple[int, int] | None = None, start: Tensor | None = None,
    anchor: Anchor | None = None, seed: int = 0, device: str | torch.device = "auto",
    precision: str | torch.dtype = "auto", extractor: FeatureExtractor | None = None,
    callback: Callback | None = None, progress: bool = True, checkpoint: Checkpoint | None = None,
    **changes: Any,
) -> Result:  # fmt: skip
    """Paint the content picture in the style picture's manner.

    Poolings cut odd pixels off, which the deep layers then never see. So at each size pictures are mirrored
    at the lower and right border up to a multiple of the deepest layer's step, and cut again.

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
    if not guides and (content is None or style is not None):
        raise SettingError("There is nothing to aim at: give a content picture, a style picture, or both.")
    for name, picture in (("content", content), ("start", start)):
        if picture is not None:
            check_picture(f"{name} picture", picture, count=1)
    if content is None and settings.init == "content":
        settings = settings.changed(init="noise")
    if content is not None:
        for guide in guides:
            if guide.mask is not None:
                check_mask("mask of a region", guide.mask, content)
        guides = [
            g.changed(styles=tuple(color.prepare_style(settings.color, p, content) for p in g.styles))
            for g in guides
        ]
    faces = []
    if settings.keep_face and content is not None and guides:
        faces = [align(content, face) for face in find_faces(content)]
        if not faces:
            warnings.warn("No face is found in the picture, so keep_face has no effect.", stacklevel=2)
    extractor = _extractor_for(settings, content, guides, extractor, device, precision)
    first = guides[0].styles[0] if guides else None
    shape = size or next(tuple(p.shape[-2:]) for p in (content, start, first) if p is not None)
    least = max(smallest_side(extractor.network, name) for name in extractor.layer_names)
    sizes = pyramid_sizes(shape, settings.smallest)
    sizes = [now for now in sizes[:-1] if min(now) >= least] + sizes[-1:]  # a panorama is soon too narrow
    steps = iterations_per_size(sizes, settings)
    step = max(receptive_field(extractor.network, name)[1] for name in extractor.layer_names)
    step = step if min(shape) >= least else 1  # too small for the network, which says so

    def finish(x: Tensor) -> Tensor:
        height, width = shape if x.shape[-2:] == tuple(shape) else sizes[run.stage]
        x = x[..., :height, :width]
        return x if content is None else color.finish(settings.color, x, content)

    run = Run(
        settings, sum(steps), seed, callback, progress, checkpoint,
        _fingerprint(settings, content, guides, start, anchor, seed, (*shape, step), extractor), finish,
    )  # fmt: skip
    if start is None:
        start = initial_image(settings.init, content, first, sizes[0], torch.Generator().manual_seed(seed))
    image, reached = start, False
    try:
        for stage in range(run.stage, len(sizes)):  # those before were done by the run this one goes on from
            now = sizes[stage]
            image = image if tuple(image.shape[-2:]) == now else enlarged(image, now)
            objective = _objective(extractor, content, guides, settings, now, shape, anchor, faces, step)
            image = run.minimize(objective, pad_to_multiple(image, step), steps[stage])
            image, reached = image[..., : now[0], : now[1]], True
            if run.stopped:
                break
            if stage + 1 < len(sizes):
                run.stage, run.step = stage + 1, 0
                del objective
                give_back_memory()  # freed in pieces that the next size is too large for
    except KeyboardInterrupt:  # between two sizes, when the larger pictures are looked through
        if not reached:
            raise
        run.interrupted = True
    except OptimizationError as error:
        error.result = run.result(_whole(error.result.image, shape, content, guides))
        raise
    return run.result(_whole(image, shape, content, guides))


def _extractor_for(
    settings: Settings, content: Tensor | None, guides: Sequence[Guide],
    extractor: FeatureExtractor | None, device: str | torch.device, precision: str | torch.dtype,
) -> FeatureExtractor:  # fmt: skip
    """The network with the layers that are needed; one that was given is held to them."""
    content_layers = settings.content_layers if content is not None else ()
    wanted = content_layers + (settings.style_layers if guides else ())
    if extractor is None:
        return FeatureExtractor(
            settings.network, wanted, pooling=settings.pooling, precision=precision, device=device
        )
    given = (extractor.network, extractor.net.pooling)
    if given != (settings.network, settings.pooling) or not set(wanted) <= set(extractor.layer_names):
        raise SettingError(
            f"The extractor is not that of the settings ({settings.network}, {settings.pooling} pooling, "
            f"{', '.join(wanted)}): make one with these, or leave it out."
        )
    return extractor


def _objective(
    extractor: FeatureExtractor, content: Tensor | None, guides: list[Guide], settings: Settings,
    now: tuple[int, int], shape: Sequence[int], anchor: Anchor | None, faces: Sequence[Tensor], step: int,
) -> Objective:  # fmt: skip
    """The objective at one size: style pictures shrink as the content does, so that strokes keep in step."""
    factor = max(now) / max(shape)

    def smaller(picture: Tensor) -> Tensor:
        # At least 32 pixels a side, what the deepest layers need.
        return resize(picture, tuple(max(min(32, n), round(n * factor)) for n in picture.shape[-2:]))

    def padded(picture: Tensor) -> Tensor:
        return pad_to_multiple(resize(picture, now), step)

    if content is not None:
        content = padded(content)
        part = torch.tensor(now[::-1])[:, None] / torch.tensor(content.shape[:1:-1])[:, None]
        faces = [part * face + (part - 1) * torch.tensor([0.0, 0.0, 1.0]) for face in faces]
    guides = [
        guide.changed(
            styles=tuple(smaller(style) for style in guide.styles),
            mask=None if guide.mask is None else padded(guide.mask),
        )
        for guide in guides
    ]
    anchor = anchor and Anchor(padded(anchor.image), padded(anchor.mask))
    # AlexNet's first layer has a sixteenth of the pixels: it needs no tiles, and cannot have any.
    large = now[0] * now[1] > WHOLE_PIXELS and settings.network != "alexnet"
    if settings.tile is None and not large:
        return Objective(extractor, content, guides, settings, anchor=anchor, faces=faces)
    return TiledObjective(
        extractor, content, guides, settings, anchor=anchor, faces=faces, tile=settings.tile or TILE
    )


def _whole(image: Tensor, shape: Sequence[int], content: Tensor | None, guides: Sequence[Guide]) -> Tensor:
    """A picture that was stopped at a smaller size: enlarged, and the content itself outside the masks."""
    if tuple(image.shape[-2:]) == tuple(shape):
        return image
    image, paint = enlarged(image, shape), painted(guides)
    if content is None or paint is None:
        return image
    content, paint = resize(content, shape).to(image), resize(paint, shape).to(image)
    return content + paint * (image - content)


def _fingerprint(
    settings: Settings, content: Tensor | None, guides: Sequence[Guide], start: Tensor | None,
    anchor: Anchor | None, seed: int, shape: Sequence[int], extractor: FeatureExtractor,
) -> str:  # fmt: skip
    """A digest of everything that decides the result."""
    given = [content, start, *(vars(anchor).values() if anchor is not None else ())]
    given += [picture for guide in guides for picture in (*guide.styles, guide.mask)]
    pictures = [None if picture is None else (tuple(picture.shape), digest(picture)) for picture in given]
    shares = [guide.shares for guide in guides]
    values = asdict(settings), seed, shape, extractor.precision, extractor.device, shares, pictures
    return hashlib.sha256(repr(values).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------ films


@dataclass(frozen=True)
class Frame:
    """One painted frame."""

    image: Tensor  # (1, 3, H, W)
    flow: Tensor | None  # backward, to the frame before: (1, 2, H, W); None for the first of a scene
    mask: Tensor | None  # (1, 1, H, W), where that flow is trusted
    result: Result


def stylize_clip(
    frames: Iterable[Tensor], style: Tensor | Sequence[Tensor] | Sequence[Guide] | None,
    settings: Settings | None = None, *, flow: Callable[[Tensor, Tensor], Tensor] | None = optical_flow,
    seed: int = 0, device: str | torch.device = "auto", precision: str | torch.dtype = "auto",
    progress: bool = True, **changes: Any,
) -> Iterator[Frame]:  # fmt: skip
    """Paint a film frame by frame; frames are given out as they are ready.

    The first frame is painted as a picture. Each further one starts from the painted frame before, moved
    along the optical flow (where the flow is not trusted: from the frame itself, in the paint's colors), and
    the temporal term ``mean(mask (I - warped)²)`` holds it there; its weight is ``settings.temporal_weight``.
    It takes a third of the iterations, as it starts near its end. After a cut a frame is painted like the
    first.

    Args:
        frames: (1, 3, H, W) each, all of one size; read as they are needed.
        style: as for :func:`stylize`.
        settings: as for :func:`stylize`; a temporal_weight of 0 is taken as given: no temporal term.
        flow: ``flow(first, second)`` in pixels; None paints every frame by itself (what flickers).
        seed: of the noise, the same for every frame.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: see :func:`nstlib.nets.hardware.resolve_precision`.
        progress: show a progress bar for each frame.
        **changes: single settings by name.

    Yields:
        :class:`Frame`, in order; after Ctrl-C that frame as far as it is painted, and no more.

    Raises:
        SettingError: as for :func:`stylize`.
        ImageError: a frame is no picture, or two neighbors differ in size.

    Source: Ruder, Dosovitskiy & Brox 2016, "Artistic style transfer for videos"; no paper of this course has
    films.
    """
    settings = (settings or Settings(temporal_weight=TEMPORAL_WEIGHT)).changed(**changes)
    # A painted frame to start from is fine already: going back to a coarse one would lose its strokes.
    after = settings.changed(iterations=max(1, settings.iterations // 3), smallest=None)
    options: dict[str, Any] = {"seed": seed, "device": device, "precision": precision, "progress": progress}
    options["extractor"] = FeatureExtractor(
        settings.network, (*settings.content_layers, *settings.style_layers), pooling=settings.pooling,
        precision=precision, device=device,
    )  # fmt: skip
    before: Tensor | None = None
    painted: Tensor | None = None
    for number, frame in enumerate(frames, start=1):
        check_picture(f"film's frame {number}", frame, count=1)
        moved = mask = None
        if before is not None and flow is not None:
            moved = flow(frame, before)
            mask = consistency(flow(before, frame), moved)
        if painted is None or moved is None or mask is None or mask.mean() < CUT:
            moved = mask = None
            result = stylize(frame, style, settings, **options)
        else:
            warped = warp(painted, moved)
            # Where nothing can be moved there, the frame itself: in the colors of the paint, because bare
            # photograph keeps its own through a third of the iterations.
            start = mask * warped + (1 - mask) * color.coral(frame, painted)
            anchor = Anchor(warped, mask) if after.temporal_weight else None
            result = stylize(frame, style, after, start=start, anchor=anchor, **options)
        before, painted = frame, result.image
        yield Frame(painted, moved, mask, result)
        if result.interrupted:
            return


# ------------------------------------------------------------------------------------------ common protocol


class Gatys(Method):
    """Gatys' method behind the common protocol: nothing is learned, each picture is a run of its own."""

    summary = "any style, in minutes"
    settings_class = Settings
    takes = frozenset(
        {"size", "film", "style_size", "movement", "shares", "color", "recipe", "fast", "regions", "softness",
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
