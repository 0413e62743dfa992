"""Everything that decides the result of Gatys' method, and the papers' own values of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from ...errors import Count, Decay, Fraction, NotNegative, Positive, SettingError, known, settings
from ...errors import Settings as Base
from ...losses import style_normalization

FIVE_BLOCKS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

# (content, style) layers where the settings name none: B's and Gatys' for the VGGs; AlexNet, which B wants
# compared and no paper specifies, has five convolutions, so all of them for style and the middle for content.
DEFAULT_LAYERS = {
    "vgg": (("relu4_2",), FIVE_BLOCKS),
    "alexnet": (("relu3",), ("relu1", "relu2", "relu3", "relu4", "relu5")),
}


@settings
class Settings(Base):
    """Everything that decides the result, each default with its origin."""

    # Papers B and D; A and C: "vgg16".
    network: Literal["vgg19", "vgg16", "alexnet"] = Field(
        default="vgg19", description="Network to look through."
    )
    content_layers: tuple[str, ...] = ()  # (): relu4_2 (B); D: relu5_2; A: the fifth and sixth convolution
    style_layers: tuple[str, ...] = ()  # (): the five blocks (B, D); A: the first five convolutions
    layer_weights: tuple[NotNegative, ...] | None = None  # w^l of D; None: 1 / number of style layers (Gatys)
    content_weight: NotNegative = 1.0  # alpha
    # Beta, in units of the normalization below; chosen by eye on portraits.
    style_weight: NotNegative = Field(
        default=10.0, description="How much style: 3 keeps the likeness, 100 lets it dissolve."
    )
    # As crowsonkb: it takes the grain off; 20 takes the brush strokes. The papers of this course have none.
    tv_weight: NotNegative = Field(default=2.0, description="How much smoothness.")
    # Ours, see Objective: no paper of this course keeps the face.
    keep_face: Fraction = Field(
        default=0.5,
        description="How much a face stays the person's: 0 paints it like the rest, 1 hardly at all.",
    )
    temporal_weight: NotNegative = 0.0  # Ruder et al. 2016, for films; needs a previous frame to hold on to
    # Gram matrices: papers A, B, D, E; mean and covariance as Gaussians: crowsonkb, see nstlib.losses.
    style_distance: Literal["gram", "wasserstein2"] = Field(
        default="wasserstein2", description="What makes two styles alike."
    )
    style_normalization: str = "relative"  # ours: see Objective; the published ones are in nstlib.losses
    # A: "sum"; B, D: "half_sum"; not used when the terms are relative.
    content_reduction: Literal["mean", "sum", "half_sum"] = "mean"
    pooling: str = "max"  # as trained; Gatys 2016 prefers "average" for synthesis
    # Gatys 2016; B and D: "adam"; C wants Newton's and Monte-Carlo methods compared.
    optimizer: Literal["lbfgs", "adam", "gradient_descent", "newton_cg", "langevin", "annealing"] = Field(
        default="lbfgs", description="What changes the picture, step by step."
    )
    # B: 1500 and 2200 of Adam, D: 1000, all at one size.
    iterations: Count = Field(
        default=50,
        description="Steps of the optimizer at the last size, twice as many at the smallest; fewer above "
        "512 px, a third for a film's frames but a scene's first.",
    )
    # None: the optimizer's own; no paper prints one.
    learning_rate: Positive | None = Field(
        default=None, description="How far a step goes.  [default: the optimizer's own]"
    )
    history_size: Count = 20  # of L-BFGS: 20 vectors do as well as Gatys' 100 and take a fifth of the memory
    smoothing: Annotated[float, Field(ge=0, le=2)] = 0.0  # of L-BFGS: 0.5 lets broad forms go further
    restart_every: Count | None = None  # of L-BFGS: forget the history every so often
    # Decay of an average over the iterates, which is then the result; 0.99 with Adam.
    averaging: Decay = Field(default=0.0, description="Average over the last steps; 0.99 suits adam.")
    # D; "noise": A; "style" starts from the painting.
    init: Literal["content", "noise", "style"] = Field(
        default="content", description="Picture to start from."
    )
    # Keep the content's colors: "luminance", "histogram", "coral", see nstlib.pictures.color.
    color: Literal["style", "luminance", "histogram", "coral"] = "style"
    # Coarse to fine (crowsonkb; Gatys et al. 2017): None: full size only, as in the papers of this course.
    smallest: Annotated[int, Field(ge=16)] | None = Field(
        default=128,
        description="Coarse to fine: longest side to begin with, then up by √2. A recipe has one size.",
    )
    # At the smallest size, then fewer until the last (see iterations_per_size); None: twice the last's.
    coarse_iterations: Count | None = None
    # Side of the tiles in pixels; None: tiles only where the whole would not fit.
    tile: Annotated[int, Field(ge=64, multiple_of=16)] | None = None

    def __post_init__(self) -> None:
        content, style = DEFAULT_LAYERS["alexnet" if self.network == "alexnet" else "vgg"]
        for name, default in (("content_layers", content), ("style_layers", style)):
            layers = getattr(self, name)
            if len(set(layers)) < len(layers):
                raise SettingError(f"{name} names a layer twice: name each once and give it a larger weight.")
            # A frozen dataclass fills its own defaults this way only; now the settings say what was used.
            object.__setattr__(self, name, layers or default)
        if self.style_normalization != "relative":
            style_normalization(self.style_normalization)
            if self.style_distance != "gram":
                raise SettingError(
                    "The published normalizations are of Gram matrices: take style_distance='gram' with "
                    f"'{self.style_normalization}', or leave style_normalization 'relative'."
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


# --------------------------------------------------------------------------------------------------- recipes

# What papers A, B and D describe, where they say no more: Gram matrices at one size, each face like the rest.
PLAIN = Settings(style_distance="gram", smallest=None, tv_weight=0.0, keep_face=0.0, iterations=150)

# "The first five convolutions" for style, "the fifth and sixth" for content: paper A, section 3.1, VGG-16.
_A_STYLE = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1")
_A_CONTENT = ("relu3_1", "relu3_2")


@dataclass(frozen=True)
class Recipe:
    """A paper's own settings, their source, and what it leaves open: built on others' or chosen by us."""

    settings: Settings
    size: int | None  # longest side in pixels, where the paper says one
    source: str
    open: str


RECIPES: dict[str, Recipe] = {
    "paper_a": Recipe(
        PLAIN.changed(
            network="vgg16", style_layers=_A_STYLE, content_layers=_A_CONTENT, init="noise",
            # (2) and (3) sum over the layers; the content term is a mean over its two, twice that is the sum.
            layer_weights=(1.0,) * 5, content_weight=2.0,
            style_normalization="neural_style_pt", style_weight=5000.0, iterations=500,
        ),
        None,
        "paper A, section 3.1, Figures 4 to 6: style weights 10, 100, 5000; 50, 100, 200, 500 epochs",
        "size, optimizer, before or after the ReLU, scale of the losses: as printed, (2) makes weights of 10 "
        "to 5000 all alike, pure texture; with that of PyTorch's tutorial, G/(c·h·w) and means, which is "
        "taken here, 5000 tints the photograph and 10 leaves it; with G/(h·w) they lead to texture",
    ),
    "paper_a_as_printed": Recipe(
        PLAIN.changed(
            network="vgg16", style_layers=_A_STYLE, content_layers=_A_CONTENT, init="noise",
            layer_weights=(1.0,) * 5, style_normalization="as_printed", content_reduction="sum",
            style_weight=5000.0, iterations=500,
        ),
        None,
        "paper A, equations (1) to (5) to the letter, but (3) over the text's content layers: printed is l_s",
        "size, optimizer, before or after the ReLU",
    ),
    "paper_b": Recipe(
        PLAIN.changed(
            network="vgg19", style_layers=FIVE_BLOCKS, content_layers=("relu4_2",), optimizer="adam",
            iterations=2200, init="noise",
        ),
        None,
        "paper B, sections 2 and 3, Figures 3 and 4: random start, Adam, 1500 and 2200 iterations",
        "size, learning rate, weights, scale of the losses: ours; section 3 calls the start empty",
    ),
    "paper_d": Recipe(
        PLAIN.changed(
            network="vgg19", style_layers=FIVE_BLOCKS, content_layers=("relu5_2",), optimizer="adam",
            iterations=1000, init="content",
        ),
        512,
        "paper D, sections 3 to 6, Figures 6 and 8 to 13: 512 px, block5_conv2, content start, 1000 steps "
        "of Adam",
        "learning rate, weights alpha, beta and w^l, constants M^l: ours",
    ),
    "gatys_2016": Recipe(
        PLAIN.changed(
            network="vgg19", style_layers=FIVE_BLOCKS, content_layers=("relu4_2",),
            # 1e3 / n_c² for n_c = 64, 128, 256, 512, 512 channels
            layer_weights=tuple(1e3 / n**2 for n in (64, 128, 256, 512, 512)),
            # His is 1, on the Caffe network, whose activations are k times ours: content grows with k², style
            # with k⁴. With k² = 20,000, ours times k² is 367,372 after 500 evaluations (256 px), his 368,494.
            style_weight=2e4, style_normalization="gatys_notebook", optimizer="lbfgs", iterations=500,
            history_size=100, init="content",
        ),
        512,
        "the notebook Gatys published in 2017, with the trace of its loss",
        "the style weight, which makes the normalized network behave like his, the Caffe network",
    ),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        SettingError: unknown name.
    """
    return RECIPES[known("recipe", name, RECIPES)]
