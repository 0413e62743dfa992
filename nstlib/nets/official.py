"""How a network takes published weights: strictly, with a sentence where they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import SettingError

Net = TypeVar("Net", bound=nn.Module)


def build(what: str, make: Callable[[], Net], state_dict: Mapping[str, Tensor]) -> Net:
    """A frozen network in evaluation mode with published weights, on the device where these lie.

    Args:
        what: the network's name for the reader of an error, for example "StyleGAN2's generator".
        make: constructs it, with the sizes that were read off the weights.
        state_dict: weights with the names and shapes of the network's own; they are copied.

    Raises:
        SettingError: a tensor is missing, left over or of another shape.
    """
    # Drawing numbers for 270 million weights only to replace them would take seconds.
    with torch.device("meta"):
        net = make()
    needed = net.state_dict()
    wrong = {
        "lack": [key for key in needed if key not in state_dict],
        "have, beyond what it takes,": [key for key in state_dict if key not in needed],
        "have another shape of": [
            key for key, own in needed.items()
            if key in state_dict and getattr(state_dict[key], "shape", None) != own.shape
        ],
    }  # fmt: skip
    for how, keys in wrong.items():
        if keys:
            raise SettingError(
                f"These weights are not those of {what}: they {how} '{keys[0]}' ({len(keys)} such, of "
                f"{len(needed)} needed); give the state dict as it was published, which a checkpoint may "
                "hold under a name such as 'g_ema'."
            )
    net = net.to_empty(device=next(iter(state_dict.values())).device)
    net.load_state_dict(dict(state_dict))
    return net.requires_grad_(False).eval()


def blocks(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks there are: for "convs." one more than the highest n of "convs.n. ..."."""
    numbers = (key[len(prefix) :].split(".")[0] for key in state_dict if key.startswith(prefix))
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)


def length(state_dict: Mapping[str, Tensor], key: str, axis: int, default: int) -> int:
    """The length of a tensor along an axis, or a default where there is no such tensor or axis."""
    tensor = state_dict.get(key)
    return default if not isinstance(tensor, Tensor) or tensor.ndim <= axis else tensor.shape[axis]
