"""FID's Inception: held to torchvision's blocks with the three differences put in, and to the real one."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torchvision.models.inception as theirs
from conftest import waves
from torch import Tensor

from nstlib import assets
from nstlib.errors import SettingError
from nstlib.nets.inception import FIDInception, from_official, published_names


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random tensors in the published layout; activations keep their size through the net."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    with torch.device("meta"):
        weights = [one for one in FIDInception().state_dict().values() if one.ndim == 4]
    for name, weight in zip(published_names(), weights, strict=True):
        scale = math.sqrt(2 / weight[0].numel())
        tensors[f"{name}.weight"] = torch.randn(weight.shape, generator=generator) * scale
        for part, low, high in (("beta", -0.1, 0.1), ("mean", -0.1, 0.1), ("var", 0.7, 1.3)):
            tensors[f"{name}.{part}"] = torch.empty(len(weight)).uniform_(low, high, generator=generator)
    return tensors


@pytest.fixture(scope="module")
def net(published) -> FIDInception:
    return from_official(published)


def test_the_layout_has_the_published_sizes(published):
    assert len(published) == 94 * 4
    assert 4 * sum(tensor.numel() for tensor in published.values()) == 87_211_136
    assert assets.info("fid_inception").bytes == 87_211_136


def test_the_net_is_torchvisions_but_for_the_pools_and_the_scales(published, net, monkeypatch):
    twin = theirs.Inception3(aux_logits=False, transform_input=False, init_weights=False).eval()
    twin.fc = torch.nn.Identity()
    state = {key: torch.ones_like(one) for key, one in twin.state_dict().items()}
    layers = [key.removesuffix(".conv.weight") for key in state if key.endswith(".conv.weight")]
    for name, layer in zip(published_names(), layers, strict=True):
        state[f"{layer}.conv.weight"] = published[f"{name}.weight"]
        for part, its in (("beta", "bias"), ("mean", "running_mean"), ("var", "running_var")):
            state[f"{layer}.bn.{its}"] = published[f"{name}.{part}"]
    twin.load_state_dict(state)
    pools = 0

    def pool(x: Tensor, kernel_size: int, stride: int, padding: int) -> Tensor:
        nonlocal pools
        pools += 1
        if pools == 9:  # the last block
            return F.max_pool2d(x, kernel_size, stride, padding)
        return F.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=False)

    fake = SimpleNamespace(avg_pool2d=pool, max_pool2d=F.max_pool2d, relu=F.relu)
    with torch.no_grad():
        with monkeypatch.context() as patch:
            patch.setattr(theirs, "F", fake)
            expected = twin(waves(299, 299))
        found = net(waves(299, 299))
    assert pools == 9
    assert found.shape == (1, 2048)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert found.std() > 0.1


def test_another_shape_is_refused(net):
    with pytest.raises(SettingError, match=r"takes \(N, 3, 299, 299\)"):
        net(torch.zeros(1, 3, 256, 256))


def test_other_weights_are_refused_by_name(published):
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
