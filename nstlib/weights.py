"""Files of weights: ours, half as large as they were trained, with their story in the header; and others'.

What a file says of itself is JSON under "nstlib" in the header of the safetensors. Nothing is unpickled but
plain tensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ._image_decode import reason, write_atomic
from .errors import SettingError


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write tensors as float16 safetensors, with what is known of them in the header.

    Raises:
        ImageError: the file cannot be written.
    """
    half = {
        key: (tensor.half() if _fits(tensor) else tensor)
        .detach()
        .to("cpu", memory_format=torch.contiguous_format)
        for key, tensor in state.items()
    }
    content = safetensors.torch.save(half, {"nstlib": json.dumps(dict(about))})
    write_atomic(Path(path), memoryview(content))
    return Path(path)


def read_weights(path: Path, otherwise: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a weight file, and what its header says of their training.

    Args:
        path: safetensors of ours, or a plain state dict of torch.
        otherwise: what else might be named, for who named a file that is not there.

    Raises:
        SettingError: the file is missing, or neither safetensors nor a plain state dict of torch.
    """
    wrong = f"'{path}' holds no weights that can be used"
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                said = (file.metadata() or {}).get("nstlib", "{}")
            return safetensors.torch.load_file(path), dict(json.loads(said))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SettingError(
            f"There is no file '{path}': name one{f', {otherwise}' if otherwise else ''}."
        ) from error
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError) as error:
        why = reason(error).splitlines()[0]
        raise SettingError(f"{wrong} ({why}): get it again from its source.") from error
    except Exception as error:  # an unpickler that met something else than tensors
        raise SettingError(
            f"{wrong}: it is not a plain state dict, and nothing else is unpickled."
        ) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in loaded.items()
    ):
        raise SettingError(f"{wrong}: give a state dict, key by key.")
    return loaded, {}


def _fits(tensor: Tensor) -> bool:
    """Whether float16 can hold it: batch normalization's variances and counts may be too large."""
    return tensor.is_floating_point() and bool(tensor.abs().max() <= torch.finfo(torch.float16).max)
