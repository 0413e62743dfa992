"""The face parser's network: the published network's numbers, any size, labels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import waves
from torch import Tensor

from nstlib.nets.bisenet import LABELS, BiSeNet, from_official


def formula_weights() -> dict[str, Tensor]:
    """Weights out of whole-number arithmetic: the same on every machine."""
    with torch.device("meta"):
        shapes = {name: one.shape for name, one in BiSeNet().state_dict().items()}
    tensors = {}
    for number, (name, shape) in enumerate(shapes.items()):
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
            continue
        values = ((torch.arange(math.prod(shape)) + number) * 2654435761 % 2**32).double() / 2**31 - 1
        if len(shape) == 4:
            values = values * math.sqrt(4 / math.prod(shape[1:]))
        elif name.endswith((".weight", "running_var")):
            values = 1 + 0.3 * values
        else:
            values = 0.2 * values
        tensors[name] = values.reshape(shape).float()
    return tensors


@pytest.fixture(scope="module")
def net() -> BiSeNet:
    return from_official(formula_weights())


def test_the_scores_are_those_of_the_published_network(net):
    """Recorded from the published code with the same weights; classes 0, 7 and 18 at three pixels."""
    recorded = (
        [[-0.64496, 1.18288, -0.03783], [-0.79485, 1.21353, -0.13974], [-0.64152, 1.13061, -0.03705]],
        [[-0.2853, -0.00221, -0.22114], [-0.48934, 0.04854, -0.31116], [-0.42678, -0.00213, -0.31663]],
        [[-0.69639, -0.01654, -0.54278], [-0.4254, 0.29649, 0.00223], [-0.21976, 0.05679, 0.08185]],
    )
    for scores, expected in zip(net(waves(64, 96)), recorded, strict=True):
        found = [scores[0, [0, 7, 18], y, x].tolist() for y, x in ((0, 0), (20, 70), (63, 95))]
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 40)])
def test_any_size_gives_scores_of_its_own_size(net, size):
    scores = net(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert [tuple(s.shape) for s in scores] == [(2, len(LABELS), *size)] * 3
    assert all(bool(s.isfinite().all()) for s in scores)


class Given(torch.nn.Module):
    """Stands in for a head: whatever it gets, it gives these scores."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, _: Tensor) -> Tensor:
        return self.scores


@pytest.mark.parametrize("size", [(64, 96), (1, 1), (37, 200)])
def test_labels_are_the_best_of_the_enlarged_scores(size):
    net = BiSeNet().eval()
    net.conv_out = Given(torch.randn(1, 19, 8, 12, generator=torch.Generator().manual_seed(0)))
    labels = net.labels(waves(64, 96), size)
    assert labels.dtype == torch.int64
    expected = F.interpolate(net.conv_out.scores, size, mode="bilinear", align_corners=True).argmax(1)
    assert torch.equal(labels, expected)
