"""What a network accepts: published weights, strictly, and pictures of the size it was made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import SettingError

Net = TypeVar("Net", bound=nn.Module)


def load_strict(what: str, make: Callable[[], Net], state_dict: Mapping[str, Tensor]) -> Net:
    """A frozen network in evaluation mode with published weights, on their device.

    Args:
        what: the network's name in errors, for example "StyleGAN2's generator".
        make: builds it, with sizes that it reads from the weights.
        state_dict: weights with the names and shapes of the network's own; they are copied.

    Raises:
        SettingError: a tensor is missing, unexpected or of another shape.
    """
    try:
        # On "meta" nothing is allocated: drawing 270 million random weights first would take seconds.
        with torch.device("meta"):
            net = make()
    except KeyError as error:
        raise _not_those_of(what, f"lack {error}") from None
    check_layout(what, net.state_dict(), state_dict)
    net = net.to_empty(device=next(iter(state_dict.values())).device)
    net.load_state_dict(dict(state_dict))
    return net.requires_grad_(False).eval()


def load_in_order(what: str, asset: str, make: Callable[[], Net], tensors: Sequence[Tensor]) -> Net:
    """As :func:`load_strict`, for a file without names, whose tensors lie in the order of the network's own.

    Raises:
        SettingError: a tensor is missing, unexpected or of another size.
    """
    with torch.device("meta"):
        own = make().state_dict()
    state = {key: torch.tensor(0) for key in own if key.endswith("num_batches_tracked")}
    keys = [key for key in own if key not in state]
    if [own[key].numel() for key in keys] != [one.numel() for one in tensors]:
        raise SettingError(f"These are not {what}'s tensors: take assets.load_tensors('{asset}').")
    state |= {key: tensor.reshape(own[key].shape) for key, tensor in zip(keys, tensors, strict=True)}
    return load_strict(what, make, state)


def check_layout(what: str, needed: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> None:
    """Raises a SettingError unless the tensors have exactly the names and shapes of those needed."""
    shapes = {key: getattr(one, "shape", None) for key, one in state_dict.items()}
    wrong = {
        "lack": [key for key in needed if key not in shapes],
        "have, beyond what it takes,": [key for key in shapes if key not in needed],
        "have another shape of": [k for k, one in needed.items() if shapes.get(k, one.shape) != one.shape],
    }
    for how, keys in wrong.items():
        if keys:
            raise _not_those_of(what, f"{how} '{keys[0]}' ({len(keys)} such, of {len(needed)} needed)")


def _not_those_of(what: str, how: str) -> SettingError:
    return SettingError(
        f"These weights are not those of {what}: they {how}; give the published state dict, which a "
        "checkpoint may hold under a name such as 'g_ema'."
    )


def blocks(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks there are: for "convs." one more than the highest n of "convs.n. ..."."""
    numbers = (key[len(prefix) :].split(".")[0] for key in state_dict if key.startswith(prefix))
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)


def check_size(who: str, images: Tensor, side: int, advice: str = "cut the faces out to that size") -> Tensor:
    """The pictures, if they are (N, 3, side, side); a SettingError with the advice otherwise."""
    if images.ndim != 4 or images.shape[1:] != (3, side, side):
        raise SettingError(f"{who} takes (N, 3, {side}, {side}), not {tuple(images.shape)}: {advice} first.")
    return images
