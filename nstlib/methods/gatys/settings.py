"""Everything that decides the result of Gatys' method, in one frozen dataclass."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from ...errors import Count, Decay, NotNegative, Positive, SettingError, settings
from ...errors import Settings as Base
from ...losses import style_normalization

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


@settings
class Settings(Base):
    """Everything that decides the result, each default with its origin."""

    # papers B and D; A and C: "vgg16"
    network: Literal["vgg19", "vgg16", "alexnet"] = Field(
        default="vgg19", description="Network to look through."
    )
    content_layers: tuple[str, ...] = ()  # (): relu4_2 (B); D: relu5_2; A: the fifth and sixth convolution
    style_layers: tuple[str, ...] = ()  # (): the five blocks (B, D); A: the first five convolutions
    layer_weights: tuple[NotNegative, ...] | None = (
        None  # w^l of D; None: 1 / number of style layers (Gatys 2016)
    )
    content_weight: NotNegative = 1.0  # alpha
    # beta, in units of the normalization below; chosen by eye on portraits
    style_weight: NotNegative = Field(
        default=10.0, description="How much style: 3 keeps the likeness, 100 lets it dissolve."
    )
    # Johnson 2016; the papers of this course have none
    tv_weight: NotNegative = Field(default=0.0, description="How much smoothness.")
    temporal_weight: NotNegative = 0.0  # Ruder et al. 2016, for films; needs a previous frame to hold on to
    # "wasserstein2": mean and covariance as Gaussians, see nstlib.losses
    style_distance: Literal["gram", "wasserstein2"] = Field(
        default="gram", description="What makes two styles alike."
    )
    style_normalization: str = "relative"  # ours: see Objective; the published ones are in nstlib.losses
    content_reduction: Literal["mean", "sum", "half_sum"] = (
        "mean"  # A: "sum"; B, D: "half_sum"; not used when the terms are relative
    )
    pooling: str = "max"  # as trained; Gatys 2016 prefers "average" for synthesis
    # Gatys 2016; B and D: "adam"; C wants Newton's and Monte-Carlo methods compared
    optimizer: Literal["lbfgs", "adam", "gradient_descent", "newton_cg", "langevin", "annealing"] = Field(
        default="lbfgs", description="What changes the picture, step by step."
    )
    # the picture changes little after that; B: 1500 and 2200 of Adam, D: 1000
    iterations: Count = Field(
        default=150,
        description="Steps of the optimizer at each size; fewer above 768 px, a third for a film's frames "
        "but a scene's first.",
    )
    # None: the optimizer's own; no paper prints one
    learning_rate: Positive | None = Field(
        default=None, description="How far a step goes.  [default: the optimizer's own]"
    )
    history_size: Count = 20  # of L-BFGS: 20 vectors do as well as Gatys' 100 and take a fifth of the memory
    smoothing: Annotated[float, Field(ge=0, le=2)] = (
        0.0  # of L-BFGS: 0.5 lets broad forms go further than fine ones, see there
    )
    restart_every: Count | None = None  # of L-BFGS: forget the history every so often
    # decay of an average over the iterates, which is then the result; 0.99 with Adam
    averaging: Decay = Field(default=0.0, description="Average over the last steps; 0.99 suits adam.")
    # D; "noise": A; "style" starts from the painting
    init: Literal["content", "noise", "style"] = Field(
        default="content", description="Picture to start from."
    )
    # Keep the content's colors: "luminance", "histogram", "coral", see nstlib.pictures.color.
    color: Literal["style", "luminance", "histogram", "coral"] = "style"
    # coarse to fine: longest side to begin with, then larger; None: full size
    smallest: Annotated[int, Field(ge=16)] | None = Field(
        default=None,
        description="Coarse to fine: longest side to begin with, then up in steps.  "
        "[default: 256 for results above 768 and no recipe, else one size]",
    )
    # from one size to the next; 2 in Gatys et al. 2017
    size_factor: Annotated[float, Field(ge=1.1, le=8)] = 2**0.5
    # Before the last size: a number for the smallest, then fewer (see plan), or one for each; None: as at the
    # last.
    coarse_iterations: Count | tuple[Count, ...] | None = None
    tile: Annotated[int, Field(ge=64, multiple_of=16)] | None = (
        None  # side of the tiles in pixels; None: tiles only where the whole would not fit
    )

    def __post_init__(self) -> None:
        content, style = DEFAULT_LAYERS["alexnet" if self.network == "alexnet" else "vgg"]
        for name, default in (("content_layers", content), ("style_layers", style)):
            layers = getattr(self, name)
            layers = tuple(layers or ())
            if len(set(layers)) < len(layers):
                raise SettingError(f"{name} names a layer twice: name each once and give it a larger weight.")
            # A frozen dataclass fills its own defaults this way only; now the settings say what was used.
            object.__setattr__(self, name, layers or default)
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

    def changed(self, **changes: Any) -> Self:
        """A copy with single settings changed; a change of network resets the layers not given anew.

        Raises:
            SettingError: an unknown setting, or a value out of range.
        """
        if changes.get("network", self.network) != self.network:
            # The layers of one network mean nothing to another.
            changes = {"content_layers": (), "style_layers": (), **changes}
        return super().changed(**changes)
