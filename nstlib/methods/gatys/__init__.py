"""Gatys' neural style transfer: a picture is optimized until it has one picture's content, another's style.

Sources: Gatys, Ecker & Bethge 2016 (CVPR), the ground of papers A (1)-(7), B (1)-(5), D. The picture itself
is the variable: I* = argmin_I alpha L_c(I_c, I) + beta L_s(I_s, I), paper A (5). No network is trained.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import ImageError, OptimizationError, SettingError
from ..features import FeatureExtractor
from ..losses import content_loss, gram_distance, gram_matrix, style_normalization, total_variation

FIVE_BLOCKS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

# (content, style) layers where the settings name none: B's and Gatys' for the VGGs; AlexNet, which B wants
# compared and no paper specifies, has five convolutions, so all of them for style and the middle for content.
DEFAULT_LAYERS = {
    "vgg": (("relu4_2",), FIVE_BLOCKS),
    "alexnet": (("relu3",), ("relu1", "relu2", "relu3", "relu4", "relu5")),
}

# No paper says how strong its noise is. Noise over all of [0, 1] leaves a finely checkered rest that hundreds
# of steps do not remove, as deep layers hardly see it; at 0.3 of that far less of it is left.
NOISE_AMPLITUDE = 0.3


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result, each default with its origin."""

    network: str = "vgg19"  # papers B and D; A and C: "vgg16"
    content_layers: tuple[str, ...] = ()  # (): relu4_2 (B); D: relu5_2; A: the fifth and sixth convolution
    style_layers: tuple[str, ...] = ()  # (): the five blocks (B, D); A: the first five convolutions
    layer_weights: tuple[float, ...] | None = None  # w^l of D; None: 1 / number of style layers (Gatys 2016)
    content_weight: float = 1.0  # alpha
    style_weight: float = 10.0  # beta, in units of the normalization below; chosen by eye on portraits
    tv_weight: float = 0.0  # Johnson 2016; the papers of this course have none
    style_normalization: str = "relative"  # ours: see Objective; the published ones are in nstlib.losses
    content_reduction: str = "mean"  # A: "sum"; B, D: "half_sum"; not used when the terms are relative
    pooling: str = "max"  # as trained; Gatys 2016 prefers "average" for synthesis
    optimizer: str = "lbfgs"  # Gatys 2016; B and D: "adam"
    iterations: int = 150  # the picture changes little after that; B: 1500 and 2200 of Adam, D: 1000
    learning_rate: float | None = None  # None: 1 for L-BFGS, 0.02 for Adam; no paper prints one
    history_size: int = 20  # of L-BFGS: 20 vectors do as well as Gatys' 100 and take a fifth of the memory
    init: str = "content"  # D; "noise": A; "style" starts from the painting

    def __post_init__(self) -> None:
        content, style = DEFAULT_LAYERS["alexnet" if self.network == "alexnet" else "vgg"]
        for name, default in (("content_layers", content), ("style_layers", style)):
            layers = getattr(self, name)
            if isinstance(layers, str):
                raise SettingError(f"{name} is a list of layers: write {name}=('{layers}',).")
            if len(set(layers)) < len(layers):
                raise SettingError(f"{name} names a layer twice: name each once and give it a larger weight.")
            # A frozen dataclass fills its own defaults this way only; now the settings say what was used.
            object.__setattr__(self, name, tuple(layers) or default)
        for name in ("iterations", "history_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SettingError(f"{name} must be at least 1, not {value!r}: give a whole number.")
        weights = {name: getattr(self, name) for name in ("content_weight", "style_weight", "tv_weight")}
        weights |= {f"layer_weights [{i}]": weight for i, weight in enumerate(self.layer_weights or ())}
        for name, value in weights.items():
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise SettingError(f"{name} must be 0 or a positive number, not {value!r}.")
        if self.optimizer not in ("lbfgs", "adam"):
            raise SettingError(f"The optimizer is 'lbfgs' or 'adam', not '{self.optimizer}'.")
        if self.init not in ("content", "noise", "style"):
            raise SettingError(f"init is 'content', 'noise' or 'style', not '{self.init}'.")
        if self.style_normalization != "relative":
            style_normalization(self.style_normalization)
        if self.content_reduction not in ("mean", "sum", "half_sum"):
            raise SettingError(
                f"content_reduction is 'mean', 'sum' or 'half_sum', not '{self.content_reduction}'."
            )
        if self.layer_weights is not None and len(self.layer_weights) != len(self.style_layers):
            raise SettingError(
                f"{len(self.style_layers)} style layers need as many layer_weights, "
                f"not {len(self.layer_weights)}."
            )
        rate = self.learning_rate
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate < math.inf):
            raise SettingError(f"The learning rate must be a positive number, not {rate!r}.")


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each iteration."""

    iteration: int  # 1, 2, ...
    iterations: int
    losses: Mapping[
        str, float
    ]  # of the picture before this step: "total", "content", "style", "tv", "style/relu1_1", ...
    seconds: float  # since the start
    image: Tensor  # after this step: (1, 3, H, W), clamped to [0, 1], on the CPU


@dataclass
class Result:
    """The picture and how it came about."""

    image: Tensor  # (1, 3, H, W), RGB in [0, 1], on the CPU
    settings: Settings
    history: list[dict[str, float]] = field(default_factory=list)  # one row an iteration: losses and seconds
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        """Time the optimization took."""
        return self.history[-1]["seconds"] if self.history else 0.0

    def describe(self) -> dict[str, Any]:
        """Settings and outcome, to be saved with the picture; "final" holds the last row of the history."""
        final = dict(self.history[-1]) if self.history else {}
        return {"method": "gatys", **asdict(self.settings), "interrupted": self.interrupted, "final": final}


class Objective:
    """L_total of paper A (4) for one pair of pictures: ``objective(image)`` gives every term by name.

    With ``style_normalization="relative"`` each layer's style term is ``|G - G_s|² / |G_s|²`` and the content
    term ``|F - F_c|² / |F_c|²``: 1 means "as far off as an empty feature map". Published normalizations
    depend on the network's scale, so a weight found for VGG-19 fails on AlexNet; relative terms carry over.

    Args:
        extractor: gives all content and style layers of ``settings``.
        content: (1, 3, H, W) or None (texture synthesis: no content term).
        style: (1, 3, H', W') of any size, or None (content reconstruction: no style term).
        settings: see :class:`Settings`.
    """

    def __init__(
        self, extractor: FeatureExtractor, content: Tensor | None, style: Tensor | None, settings: Settings
    ) -> None:
        if content is None and style is None:
            raise SettingError(
                "There is nothing to aim at: give a content picture, a style picture, or both."
            )
        self.extractor, self.settings = extractor, settings
        self.relative = settings.style_normalization == "relative"
        self.how = style_normalization("gatys_notebook" if self.relative else settings.style_normalization)
        self.content_targets: dict[str, Tensor] = {}
        self.style_targets: dict[str, Tensor] = {}
        with torch.no_grad():
            if content is not None:
                found = extractor(content)
                self.content_targets = {name: found[name] for name in settings.content_layers}
            if style is not None:
                found = extractor(style)
                self.style_targets = {
                    name: gram_matrix(found[name], self.how.divisor) for name in settings.style_layers
                }
        count = len(settings.style_layers)
        self.layer_weights = dict(
            zip(settings.style_layers, settings.layer_weights or (1 / count,) * count, strict=True)
        )

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Every term: "total" is what is minimized; the others come before their weights alpha, beta."""
        features = self.extractor(image)
        zero = image.new_zeros(())
        content, style, terms, s = zero, zero, {}, self.settings
        for name, target in self.content_targets.items():
            term = content_loss(features[name], target, "mean" if self.relative else s.content_reduction)
            if self.relative:
                term = term / target.float().square().mean().clamp_min(1e-12)
            # A (3), B (3) and D sum over their layers; a mean over positions goes with a mean over layers.
            summed = not self.relative and s.content_reduction != "mean"
            content = content + (term if summed else term / len(self.content_targets))
        for name, target in self.style_targets.items():
            gram = gram_matrix(features[name], self.how.divisor)
            term = gram_distance(gram, target, self.how.reduction)
            if self.relative:
                term = term / target.square().mean().clamp_min(1e-12)
            terms[f"style/{name}"] = term
            style = style + self.layer_weights[name] * term
        tv = total_variation(image) if s.tv_weight else zero
        total = s.content_weight * content + s.style_weight * style + s.tv_weight * tv
        return {"total": total, "content": content, "style": style, "tv": tv, **terms}


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
    if tuple(source.shape[-2:]) == tuple(shape):
        return source.clone()
    resized = torch.nn.functional.interpolate(source, shape, mode="bicubic", antialias=True)
    return resized.clamp(0, 1)


def minimize(
    objective: Objective,
    image: Tensor,
    *,
    callback: Callable[[Progress], bool | None] | None = None,
    progress: bool = True,
) -> Result:
    """Change ``image`` until ``objective`` is small; the loop of papers A, B and D.

    Pixels are free during the optimization and are clamped to [0, 1] only when looked at: clamping inside it
    would falsify the differences of gradients from which L-BFGS estimates curvature, the usual cause of black
    pictures.

    Args:
        objective: what to minimize, with the settings.
        image: (1, 3, H, W) to start from; it is not changed.
        callback: called after each iteration; returning False stops, with everything up to then kept.
        progress: show a progress bar on standard error.

    Returns:
        The result; after Ctrl-C the picture reached so far, with ``interrupted=True``.

    Raises:
        OptimizationError: the loss is no longer a number; its ``result`` holds the last good picture.
    """
    s = objective.settings
    x = image.detach().to(objective.extractor.device).clone().requires_grad_(True)
    optimizer: torch.optim.Optimizer
    if s.optimizer == "lbfgs":
        # max_iter=1: one step is one iteration and one evaluation, so iterations mean the same for both.
        optimizer = torch.optim.LBFGS([x], lr=s.learning_rate or 1.0, max_iter=1, history_size=s.history_size)
    else:
        optimizer = torch.optim.Adam([x], lr=s.learning_rate or 0.02)
    result = Result(image.detach().clone(), s)
    losses: dict[str, float] = {}
    good = x.detach().clone()

    scale = 0.0

    def closure() -> Tensor:
        nonlocal scale
        optimizer.zero_grad()
        terms = objective(x)
        losses.update({name: value.item() for name, value in terms.items()})
        if not scale:
            # torch's L-BFGS has absolute thresholds and stands still on a loss far below 1.
            scale = max(1.0, 1 / max(losses["total"], 1e-30)) if math.isfinite(losses["total"]) else 1.0
        scaled = scale * terms["total"]
        scaled.backward()
        return scaled.detach()

    start = time.perf_counter()
    bar = tqdm(range(1, s.iterations + 1), desc=f"{s.network} {s.optimizer}", unit="it", disable=not progress)
    try:
        for iteration in bar:
            evaluated = x.detach().clone()
            optimizer.step(closure)
            if not math.isfinite(losses["total"]):
                result.image = _shown(good)
                raise OptimizationError(
                    f"The loss is not a number at iteration {iteration}: lower the learning rate or the "
                    "weights, or take precision float32; the last good picture is kept.",
                    result,
                )
            good = evaluated
            seconds = time.perf_counter() - start
            result.history.append({"iteration": iteration, "seconds": seconds, **losses})
            bar.set_postfix(loss=f"{losses['total']:.4g}", refresh=False)
            if callback is not None:
                told = Progress(iteration, s.iterations, dict(losses), seconds, _shown(x))
                if callback(told) is False:
                    break
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        bar.close()
    # The last step may have gone anywhere, and nobody has seen its loss: no picture of NaNs comes out.
    result.image = _shown(x if bool(torch.isfinite(x).all()) else good)
    return result


def _shown(x: Tensor) -> Tensor:
    """The picture as it would be saved."""
    return x.detach().clamp(0, 1).cpu().float()


def stylize(
    content: Tensor | None,
    style: Tensor | None,
    settings: Settings | None = None,
    *,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str | torch.dtype = "auto",
    extractor: FeatureExtractor | None = None,
    callback: Callable[[Progress], bool | None] | None = None,
    progress: bool = True,
    **changes: Any,
) -> Result:
    """Paint the content picture in the style picture's manner.

    Args:
        content: (1, 3, H, W), RGB in [0, 1]; None gives a texture (Gatys et al. 2015).
        style: (1, 3, H', W') of any size; None gives a reconstruction of the content.
        settings: all that decides the result.
        size: (H, W) of the result if not the content's (textures).
        seed: of the noise, if the start is noise.
        device: see :func:`nstlib.hardware.resolve_device`.
        precision: see :func:`nstlib.hardware.resolve_precision`.
        extractor: a network already loaded, to save the time.
        callback: see :func:`minimize`.
        progress: show a progress bar.
        **changes: single settings by name, ``stylize(c, s, iterations=50)``.

    Returns:
        :class:`Result`, the picture in the content's size.

    Raises:
        SettingError: a setting that is unknown or out of range.
        ImageError: a picture with values that are not numbers.
        AssetError: the network's weights cannot be had.
        OptimizationError: the loss is no longer a number.

    Example:
        >>> result = stylize(load_image("me.jpg", size=512), load_image("starry_night.jpg"))  # doctest: +SKIP
    """
    for name, picture in (("content", content), ("style", style)):
        if picture is not None and not bool(torch.isfinite(picture).all()):
            raise ImageError(f"The {name} picture holds values that are not numbers: load it anew.")
    settings = settings or Settings()
    unknown = set(changes) - set(asdict(settings))
    if unknown:
        raise SettingError(
            f"Gatys' method has no setting {', '.join(map(repr, sorted(unknown)))}: "
            f"its settings are {', '.join(asdict(settings))}."
        )
    if changes.get("network", settings.network) != settings.network:
        # The layers of one network mean nothing to another: those not given anew go back to its defaults.
        changes = {"content_layers": (), "style_layers": (), **changes}
    settings = replace(settings, **changes)
    if content is None and settings.init == "content":
        settings = replace(settings, init="noise")
    wanted = (settings.content_layers if content is not None else ()) + (
        settings.style_layers if style is not None else ()
    )
    if extractor is None:
        extractor = FeatureExtractor(
            settings.network,
            wanted or settings.content_layers,
            pooling=settings.pooling,
            precision=precision,
            device=device,
        )
    missing = set(wanted) - set(extractor.layer_names)
    if missing or extractor.network != settings.network:
        raise SettingError(
            f"The extractor gives {', '.join(extractor.layer_names)} of {extractor.network}; the settings "
            f"need {', '.join(wanted)} of {settings.network}: make one with these, or leave it out."
        )
    objective = Objective(extractor, content, style, settings)
    generator = torch.Generator().manual_seed(seed)
    start = initial_image(settings.init, content, style, size, generator)
    return minimize(objective, start, callback=callback, progress=progress)


class Gatys:
    """Gatys' method behind the course's common protocol: ``fit`` and ``stylize``."""

    def __init__(self, settings: Settings | None = None, **options: Any) -> None:
        self.settings = settings or Settings()
        self.options = options

    def fit(self, faces: object = None, styles: object = None) -> Gatys:
        """Nothing is learnt beforehand: each picture is an optimization of its own."""
        return self

    def stylize(self, content: Tensor, style: Tensor) -> Tensor:
        """(1, 3, H, W) and (1, 3, H', W') -> (1, 3, H, W)."""
        return stylize(content, style, self.settings, **self.options).image
