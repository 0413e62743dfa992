"""Files of weights: ours, half as large as they were trained, with their story in the header; and others'.

What a file says of itself is JSON under "nstlib" in the header of the safetensors. Nothing is unpickled but
tensors, arrays, and plain values.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import SettingError
from .writing import reason, write_atomic


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write tensors as float16 safetensors, with what is known of them in the header.

    Raises:
        ImageError: the file cannot be written.
    """
    half = {k: (one.half() if _fits(one) else one).detach().cpu().contiguous() for k, one in state.items()}
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
    if path.suffix == ".safetensors":
        with _told(path, otherwise), safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get("nstlib", "{}")
            return safetensors.torch.load_file(path), dict(json.loads(said))
    loaded = read_checkpoint(path, otherwise)
    if not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise SettingError(f"{_no_weights(path)}: give a state dict, key by key.")
    return loaded, {}


def read_checkpoint(path: Path, otherwise: str = "") -> dict[str, Any]:
    """What torch has saved under names: tensors, numbers, words, options, and dictionaries of these.

    Args:
        path: the file, as it was published.
        otherwise: see :func:`read_weights`.

    Raises:
        SettingError: the file is missing, or holds something else.
    """
    with _told(path, otherwise), torch.serialization.safe_globals([argparse.Namespace]):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise SettingError(f"{_no_weights(path)}: give a state dict, key by key.")
    return loaded


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """A dictionary of arrays that numpy has pickled into a .npy file; nothing else is unpickled.

    Raises:
        SettingError: the file is missing, or holds something else.
    """
    with _told(path, ", a .npy with a dictionary of codes"), open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)  # a dictionary's is short, so that numpy takes version 1
        loaded = RestrictedUnpickler(file, _NUMPY).load()
        found = loaded.item() if isinstance(loaded, np.ndarray) and loaded.ndim == 0 else loaded
    if not isinstance(found, dict) or not all(
        isinstance(one, np.ndarray) and one.dtype.kind == "f" for one in found.values()
    ):
        raise SettingError(f"'{path}' holds no dictionary of arrays: give the published .npy as it is.")
    return {str(key): one for key, one in found.items()}


def read_pickle(path: Path) -> Any:
    """Nested dictionaries of numpy's arrays from a pickle, and from nothing else.

    Raises:
        pickle.UnpicklingError: the pickle asks for anything but numpy's array constructors.
    """
    with path.open("rb") as file:
        return RestrictedUnpickler(file, _NUMPY).load()


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows the given names only, each as ``module.name``."""

    def __init__(self, file: IO[bytes], allowed: Mapping[str, Any]) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """What stands under the name, if it is one of the given."""
        if f"{module}.{name}" not in self._allowed:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which was refused")
        return self._allowed[f"{module}.{name}"]


# numpy 2 moved the constructor from numpy.core to numpy._core; an array's own recipe names the right one.
_NUMPY = {
    "numpy.core.multiarray._reconstruct": np.zeros(0).__reduce__()[0],
    "numpy._core.multiarray._reconstruct": np.zeros(0).__reduce__()[0],
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
}


def _no_weights(path: Path) -> str:
    return f"'{path}' holds no weights that can be used"


@contextmanager
def _told(path: Path, otherwise: str) -> Iterator[None]:
    """What goes wrong in reading a file becomes one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise SettingError(f"There is no file '{path}': name one{otherwise}.") from error
    except pickle.UnpicklingError as error:  # it met something else than tensors
        raise SettingError(f"{_no_weights(path)}: it holds more than a plain state dict.") from error
    except Exception as error:  # decoders raise nearly everything on damaged data
        raise SettingError(f"{_no_weights(path)} ({reason(error)}): get it again from its source.") from error


def _fits(tensor: Tensor) -> bool:
    """Whether float16 can hold it: batch normalization's variances and counts may be too large."""
    return tensor.is_floating_point() and bool(tensor.abs().max() <= torch.finfo(torch.float16).max)
