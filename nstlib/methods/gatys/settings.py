"""Everything that decides the result of Gatys' method, in one frozen dataclass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from ...errors import Changeable, SettingError
from ...losses import style_normalization
from ...pictures.color import COLOR_MODES

FIVE_BLOCKS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

# (content, style) layers where the settings name none: B's and Gatys' for the VGGs; AlexNet, which B wants
# compared and no paper specifies, has five convolutions, so all of them for style and the middle for content.
DEFAULT_LAYERS = {
    "vgg": (("relu4_2",), FIVE_BLOCKS),
    "alexnet": (("relu3",), ("relu1", "relu2", "relu3", "relu4", "relu5")),
}

OPTIMIZER_NAMES = ("gradient_descent", "adam", "lbfgs", "newton_cg", "langevin", "annealing")
STYLE_DISTANCES = ("gram", "wasserstein2")
INITS = ("content", "noise", "style")

# Optional terms and options that are off by default, and numbers that may be 0.
_WEIGHTS = ("content_weight", "style_weight", "tv_weight", "temporal_weight")
_COUNTS = {"iterations": 1, "history_size": 1, "coarse_iterations": 1, "restart_every": 1, "smallest": 16}
_OPTIONAL = ("coarse_iterations", "restart_every", "smallest")


@dataclass(frozen=True)
class Settings(Changeable):
    """Everything that decides the result, each default with its origin."""

    network: str = "vgg19"  # papers B and D; A and C: "vgg16"
    content_layers: tuple[str, ...] = ()  # (): relu4_2 (B); D: relu5_2; A: the fifth and sixth convolution
    style_layers: tuple[str, ...] = ()  # (): the five blocks (B, D); A: the first five convolutions
    layer_weights: tuple[float, ...] | None = None  # w^l of D; None: 1 / number of style layers (Gatys 2016)
    content_weight: float = 1.0  # alpha
    style_weight: float = 10.0  # beta, in units of the normalization below; chosen by eye on portraits
    tv_weight: float = 0.0  # Johnson 2016; the papers of this course have none
    temporal_weight: float = 0.0  # Ruder et al. 2016, for films; needs a previous frame to hold on to
    style_distance: str = "gram"  # "wasserstein2": mean and covariance as Gaussians, see nstlib.losses
    style_normalization: str = "relative"  # ours: see Objective; the published ones are in nstlib.losses
    content_reduction: str = "mean"  # A: "sum"; B, D: "half_sum"; not used when the terms are relative
    pooling: str = "max"  # as trained; Gatys 2016 prefers "average" for synthesis
    optimizer: str = "lbfgs"  # Gatys 2016; B and D: "adam"; C wants Newton's and Monte-Carlo methods compared
    iterations: int = 150  # the picture changes little after that; B: 1500 and 2200 of Adam, D: 1000
    learning_rate: float | None = None  # None: the optimizer's own; no paper prints one
    history_size: int = 20  # of L-BFGS: 20 vectors do as well as Gatys' 100 and take a fifth of the memory
    smoothing: float = 0.0  # of L-BFGS: 0.5 lets broad forms go further than fine ones, see there
    restart_every: int | None = None  # of L-BFGS: forget the history every so often
    averaging: float = 0.0  # decay of an average over the iterates, which is then the result; 0.99 with Adam
    init: str = "content"  # D; "noise": A; "style" starts from the painting
    color: str = (
        "style"  # keep the content's colors: "luminance", "histogram", "coral", see nstlib.pictures.color
    )
    smallest: int | None = None  # coarse to fine: longest side to begin with, then larger; None: full size
    size_factor: float = 2**0.5  # from one size to the next; 2 in Gatys et al. 2017
    # Before the last size: a number for the smallest, then fewer (see plan), or one for each; None: as at the
    # last.
    coarse_iterations: int | tuple[int, ...] | None = None
    tile: int | None = None  # side of the tiles in pixels; None: tiles only where the whole would not fit

    def __post_init__(self) -> None:
        content, style = DEFAULT_LAYERS["alexnet" if self.network == "alexnet" else "vgg"]
        for name, default in (("content_layers", content), ("style_layers", style)):
            layers = getattr(self, name)
            if isinstance(layers, str):
                raise SettingError(f"{name} is a list of layers: write {name}=('{layers}',).")
            layers = tuple(layers or ())
            if len(set(layers)) < len(layers):
                raise SettingError(f"{name} names a layer twice: name each once and give it a larger weight.")
            # A frozen dataclass fills its own defaults this way only; now the settings say what was used.
            object.__setattr__(self, name, layers or default)
        if self.layer_weights is not None:
            object.__setattr__(self, "layer_weights", tuple(self.layer_weights))
        if isinstance(self.coarse_iterations, list):
            object.__setattr__(self, "coarse_iterations", tuple(self.coarse_iterations))
        for name, least in _COUNTS.items():
            given = getattr(self, name)
            if name in _OPTIONAL and given is None:
                continue
            several = name == "coarse_iterations" and isinstance(given, tuple)
            for value in given if several and given else (given,):
                if not isinstance(value, int) or isinstance(value, bool) or value < least:
                    raise SettingError(
                        f"{name} must be at least {least}, not {value!r}: give a whole number."
                    )
        if not isinstance(self.size_factor, int | float) or not 1.1 <= self.size_factor <= 8:
            raise SettingError(f"size_factor is a number from 1.1 to 8, not {self.size_factor!r}.")
        if self.tile is not None and (not isinstance(self.tile, int) or self.tile < 64 or self.tile % 16):
            raise SettingError(f"tile must be a multiple of 16 and at least 64 pixels, not {self.tile!r}.")
        weights = {name: getattr(self, name) for name in _WEIGHTS}
        weights |= {f"layer_weights [{i}]": weight for i, weight in enumerate(self.layer_weights or ())}
        for name, value in weights.items():
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise SettingError(f"{name} must be 0 or a positive number, not {value!r}.")
        if not isinstance(self.averaging, int | float) or not 0 <= self.averaging < 1:
            raise SettingError(f"averaging is a decay from 0 (none) to below 1, not {self.averaging!r}.")
        if not isinstance(self.smoothing, int | float) or not 0 <= self.smoothing <= 2:
            raise SettingError(f"smoothing is an exponent from 0 to 2, not {self.smoothing!r}.")
        _one_of("optimizer", self.optimizer, OPTIMIZER_NAMES)
        _one_of("init", self.init, INITS)
        _one_of("color", self.color, COLOR_MODES)
        _one_of("style_distance", self.style_distance, STYLE_DISTANCES)
        _one_of("content_reduction", self.content_reduction, ("mean", "sum", "half_sum"))
        if self.style_normalization != "relative":
            style_normalization(self.style_normalization)
            if self.style_distance != "gram":
                raise SettingError(
                    "The published normalizations are of Gram matrices: leave style_normalization 'relative' "
                    f"with style_distance='{self.style_distance}'."
                )
        if self.layer_weights is not None and len(self.layer_weights) != len(self.style_layers):
            raise SettingError(
                f"{len(self.style_layers)} style layers need as many layer_weights, "
                f"not {len(self.layer_weights)}."
            )
        rate = self.learning_rate
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate < math.inf):
            raise SettingError(f"The learning rate must be a positive number, not {rate!r}.")

    def changed(self, **changes: Any) -> Self:
        """A copy with single settings changed; a change of network resets the layers not given anew.

        Raises:
            SettingError: an unknown setting, or a value out of range.
        """
        if changes.get("network", self.network) != self.network:
            # The layers of one network mean nothing to another.
            changes = {"content_layers": (), "style_layers": (), **changes}
        return super().changed(**changes)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = ", ".join(f"'{choice}'" for choice in choices[:-1]) + f" or '{choices[-1]}'"
        raise SettingError(f"{name} is {listed}, not '{value}'.")
