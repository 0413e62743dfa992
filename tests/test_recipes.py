"""The papers' settings by name: valid, complete, and with the layers, counts and sizes the papers print."""

from __future__ import annotations

import pytest

from nstlib.errors import SettingError
from nstlib.methods.gatys import Objective, recipe
from nstlib.nets.features import FeatureExtractor

FIVE_BLOCKS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
# Network, content layers, style layers, optimizer, iterations, start, size: what each source says, or None.
PRINTED = {
    "paper_a": (
        "vgg16", ("relu3_1", "relu3_2"), ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1"),
        None, 500, "noise", None,
    ),
    "paper_a_as_printed": (
        "vgg16", ("relu3_1", "relu3_2"), ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1"),
        None, 500, "noise", None,
    ),
    "paper_b": ("vgg19", ("relu4_2",), FIVE_BLOCKS, "adam", 2200, "noise", None),
    "paper_d": ("vgg19", ("relu5_2",), FIVE_BLOCKS, "adam", 1000, "content", 512),
    "gatys_2016": ("vgg19", ("relu4_2",), FIVE_BLOCKS, "lbfgs", 500, "content", 512),
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_a_recipe_holds_what_its_source_prints(name):
    found = recipe(name)
    settings = found.settings
    values = (
        settings.network, settings.content_layers, settings.style_layers, settings.optimizer,
        settings.iterations, settings.init, found.size,
    )  # fmt: skip
    for value, printed in zip(values, PRINTED[name], strict=True):
        assert printed in (value, None)


def test_gatys_layer_weights_are_his():
    weights = recipe("gatys_2016").settings.layer_weights
    assert weights == pytest.approx([1e3 / 4096, 1e3 / 16384, 1e3 / 65536, 1e3 / 262144, 1e3 / 262144])
    assert recipe("gatys_2016").settings.content_weight == 1


@pytest.mark.parametrize("name", ["paper_a", "paper_a_as_printed"])
def test_paper_a_sums_over_its_layers(name, weights, picture):
    """Equations (2) to (4): sums over the layers, none of which has a weight; alpha is 1."""
    settings = recipe(name).settings
    layers = (*settings.content_layers, *settings.style_layers)
    net = FeatureExtractor("vgg16", layers, precision="float32", device="cpu", tensors=weights["vgg16"])
    content, style, image = picture(24, 20, 1), picture(20, 22, 2), picture(24, 20, 3)
    terms = Objective(net, content, style, settings).value(image)
    found, wanted = net(image), net(content)
    scale = "mean" if name == "paper_a" else "sum"
    content_sum = sum(
        getattr((found[layer] - wanted[layer]).square(), scale)().item() for layer in settings.content_layers
    )
    style_sum = sum(terms[f"style/{layer}"] for layer in settings.style_layers)
    assert terms["total"] == pytest.approx(content_sum + 5000 * style_sum, rel=1e-4)


def test_an_unknown_recipe_is_told_with_the_known_ones():
    with pytest.raises(
        SettingError, match=r"no recipe 'paper_c' .*: choose one of paper_a, .*, gatys_2016\.$"
    ):
        recipe("paper_c")
