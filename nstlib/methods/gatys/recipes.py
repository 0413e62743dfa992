"""The papers' own settings of Gatys' method, by name: one line of a notebook reruns a figure.

What a paper does not print is taken from what it evidently built on, or chosen by us; ``open`` says which.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SettingError
from .settings import FIVE_BLOCKS, Settings

# "The first five convolutions" for style, "the fifth and sixth" for content: paper A, section 3.1, VGG-16.
_A_STYLE = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1")
_A_CONTENT = ("relu3_1", "relu3_2")


@dataclass(frozen=True)
class Recipe:
    """Settings with their source, and what the source leaves open."""

    settings: Settings
    size: int | None  # longest side in pixels, where the paper says one
    source: str
    open: str


RECIPES: dict[str, Recipe] = {
    "paper_a": Recipe(
        Settings(
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
        Settings(
            network="vgg16", style_layers=_A_STYLE, content_layers=_A_CONTENT, init="noise",
            layer_weights=(1.0,) * 5, style_normalization="as_printed", content_reduction="sum",
            style_weight=5000.0, iterations=500,
        ),
        None,
        "paper A, equations (1) to (5) to the letter, but (3) over the text's content layers: printed is l_s",
        "size, optimizer, before or after the ReLU",
    ),
    "paper_b": Recipe(
        Settings(
            network="vgg19", style_layers=FIVE_BLOCKS, content_layers=("relu4_2",), optimizer="adam",
            iterations=2200, init="content",
        ),
        None,
        "paper B, section 3, Figures 3 and 4: Adam, 1500 and 2200 iterations",
        "size, learning rate, weights, scale of the losses: ours; so is the start, which section 2 calls "
        "random and section 3 empty",
    ),
    "paper_d": Recipe(
        Settings(
            network="vgg19", style_layers=FIVE_BLOCKS, content_layers=("relu5_2",), optimizer="adam",
            iterations=1000, init="content",
        ),
        512,
        "paper D, sections 3 to 6, Figures 6 and 8 to 13: 512 px, block5_conv2, content start, 1000 steps "
        "of Adam",
        "learning rate, weights alpha, beta and w^l, constants M^l: ours",
    ),
    "gatys_2016": Recipe(
        Settings(
            network="vgg19", style_layers=FIVE_BLOCKS, content_layers=("relu4_2",),
            # 1e3 / n_c² for n_c = 64, 128, 256, 512, 512 channels
            layer_weights=tuple(1e3 / n**2 for n in (64, 128, 256, 512, 512)),
            style_weight=1.0, style_normalization="gatys_notebook", optimizer="lbfgs", iterations=500,
            history_size=100, init="content",
        ),
        512,
        "the notebook Gatys published in 2017, with the trace of its loss",
        "nothing; but his weights are the Caffe network's, ours the normalized ones of the 2016 paper",
    ),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        SettingError: unknown name.
    """
    if name not in RECIPES:
        raise SettingError(f"There is no recipe '{name}': choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
