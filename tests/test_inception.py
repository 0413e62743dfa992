"""FID's Inception: the published network's numbers, and what is refused."""

from __future__ import annotations

import pytest
import torch
from conftest import waves
from torch import Tensor

from nstlib import assets
from nstlib.errors import SettingError
from nstlib.nets.inception import FIDInception, from_official, published_names


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Tensors in the published layout."""
    tensors = {}
    with torch.device("meta"):
        weights = [one for one in FIDInception().state_dict().values() if one.ndim == 4]
    for name, weight in zip(published_names(), weights, strict=True):
        tensors[f"{name}.weight"] = torch.ones(weight.shape)
        tensors |= {f"{name}.{part}": torch.ones(len(weight)) for part in ("beta", "mean", "var")}
    return tensors


def test_another_shape_and_other_weights_are_refused(published):
    with pytest.raises(SettingError, match=r"takes \(N, 3, 299, 299\)"):
        from_official(published)(torch.zeros(1, 3, 256, 256))
    with pytest.raises(SettingError, match=r"'mixed_9\.conv\.beta'"):
        from_official({key: one for key, one in published.items() if key != "mixed_9.conv.beta"})
    with pytest.raises(SettingError, match=r"'conv\.weight'"):
        from_official(published | {"conv.weight": torch.zeros(32, 3, 5, 5)})
    with pytest.raises(SettingError, match="'AuxLogits'"):
        from_official(published | {"AuxLogits": torch.zeros(1)})


@pytest.mark.weights
def test_the_real_net_gives_the_features_of_the_published_torchscript():
    net = from_official(assets.load_tensors("fid_inception", progress=False))
    with torch.no_grad():
        features = net(waves(299, 299))[0]
    # What the TorchScript itself says of this picture (torch 2.15, CPU).
    expected = torch.tensor(
        [0.7016965, 1.674016, 0.5164088, 0.1762761, 0.0261836, 0.4538616, 0.2372857, 0.3455129]
    )
    assert (features[::256] - expected).norm() <= 1e-5 * expected.norm()
    assert features.norm().item() == pytest.approx(19.26547, rel=1e-5)
    assert features.mean().item() == pytest.approx(0.2623819, rel=1e-5)
