"""The three networks: names, sizes, receptive fields, and torchvision's own modules as the measure."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.transforms.functional import normalize

from nstlib.errors import SettingError
from nstlib.nets.features import FeatureExtractor
from nstlib.nets.vgg import LayeredNet, architecture, receptive_field


@pytest.mark.parametrize(
    ("network", "names", "sentence"),
    [
        ("vgg11", ["relu1_1"], r"network 'vgg11' \(did you mean 'vgg1.'\?\): choose one of vgg16, vgg19"),
        ("alexnet", ["relu1_1"], r"no layer of alexnet 'relu1_1' \(.*\): choose one of conv1, relu1, pool1"),
        ("vgg19", [], "Name at least one layer of vgg19, for example 'relu1_1'"),
    ],
)
def test_a_wrong_name_is_one_sentence(network, names, sentence):
    with pytest.raises(SettingError, match=sentence):
        LayeredNet(network, names)


@pytest.mark.parametrize(
    ("network", "name", "expected"),
    [("vgg16", "conv1_1", (3, 1)), ("vgg16", "conv1_2", (5, 1)), ("vgg16", "pool5", (212, 32)),
     ("vgg19", "conv5_4", (252, 16)), ("alexnet", "conv1", (11, 4)), ("alexnet", "pool5", (195, 32))],
)  # fmt: skip
def test_receptive_fields_known_from_the_literature(network, name, expected):
    assert receptive_field(network, name) == expected


# --------------------------------------------------------------------------------------------- activations


def test_conv_and_relu_asked_together_are_two_tensors(weights, picture):
    image = picture(12, 14)
    both = LayeredNet("vgg16", ["conv1_1", "relu1_1", "conv1_2"]).load_layers(weights["vgg16"])(image)
    assert (both["conv1_1"] < 0).any()  # not overwritten by a ReLU in place
    assert torch.equal(both["relu1_1"], both["conv1_1"].clamp_min(0))
    # The relu that feeds the next convolution is asked for: it must not change afterwards either.
    deeper = LayeredNet("vgg16", ["relu1_1", "relu1_2", "pool1"]).load_layers(weights["vgg16"])(image)
    torch.testing.assert_close(deeper["relu1_1"], both["relu1_1"])
    torch.testing.assert_close(deeper["relu1_2"], both["conv1_2"].clamp_min(0))
    assert set(deeper) == {"relu1_1", "relu1_2", "pool1"}


@pytest.mark.parametrize(("network", "relu", "kernel"), [("vgg16", "relu1_2", 2), ("alexnet", "relu1", 3)])
def test_pooling_takes_the_greatest_or_the_average(network, relu, kernel, weights, picture):
    pool = "pool1"
    image = picture(43, 47)
    greatest = LayeredNet(network, [relu, pool], "max").load_layers(weights[network])(image)
    average = LayeredNet(network, [relu, pool], "average").load_layers(weights[network])(image)
    windows = greatest[relu].unfold(2, kernel, 2).unfold(3, kernel, 2)
    assert torch.equal(greatest[pool], windows.amax((-1, -2)))
    windows = average[relu].unfold(2, kernel, 2).unfold(3, kernel, 2)
    torch.testing.assert_close(average[pool], windows.mean((-1, -2)))


# ------------------------------------------------------------------------------------- torchvision's modules


def their_activations(network: str, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """Of torchvision's own convolutional part, with our random weights copied in order."""
    with torch.device("meta"):  # without memory for its classifier
        module = getattr(torchvision.models, network)(weights=None).features
    module = module.to_empty(device="cpu").eval()
    names = dict.fromkeys(key.split(".")[0] for key in tensors)
    convolutions = [part for part in module if isinstance(part, torch.nn.Conv2d)]
    for name, part in zip([n for n in names if n != "conv0"], convolutions, strict=True):
        part.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "bias")})
    found = []
    for part in module:
        x = part(x)
        found.append(x)
        x = x.clone()  # their ReLU works in place
    return found


LAYERS = {
    "vgg16": ["conv1_1", "relu1_2", "pool2", "conv3_3", "relu4_2", "conv5_3", "pool5"],
    "vgg19": ["relu1_1", "conv2_2", "relu3_4", "pool3", "relu4_2", "conv5_1", "relu5_4", "pool5"],
    "alexnet": ["conv1", "relu1", "pool1", "relu2", "conv3", "relu5", "pool5"],
}


@pytest.mark.parametrize("network", [*LAYERS, "vgg19_torchvision"])
@torch.no_grad()
def test_activations_are_torchvisions(network, weights, picture):
    image, theirs = picture(67, 71), network.removesuffix("_torchvision")
    tensors, names = weights[theirs], LAYERS[theirs]
    ours = FeatureExtractor(network, names, precision="float32", device="cpu", tensors=tensors)(image)
    if network == "vgg19":  # its first convolution normalizes
        normalized = torch.nn.functional.conv2d(image, tensors["conv0.weight"], tensors["conv0.bias"])
    else:
        normalized = normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    right = their_activations(theirs, tensors, normalized)
    order = [layer.name for layer in architecture(network)]
    assert len(order) == len(right)
    assert list(ours) == names
    for name in names:
        expected = right[order.index(name)]
        assert ours[name].shape == expected.shape
        assert ours[name].dtype == torch.float32
        # Relative to the layer's own size: 16 convolutions in another order of summation.
        assert (ours[name] - expected).abs().max() <= 1e-5 * expected.abs().max(), name
        assert expected.std() > 0.05  # a dead layer would agree with anything
