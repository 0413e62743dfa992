"""What is measured and how, in one frozen dataclass: two tables are comparable if its hash is the same.

An SSIM of 0.52 says nothing by itself: with another window, another size or another crop the same pictures
give 0.44 or 0.61. So whatever decides a number stands in the protocol, and its hash stands in the table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from ..errors import Changeable, SettingError

DEFINITIONS = 1
"""Raised whenever the same protocol and pictures would give other numbers than before."""


class Metric(NamedTuple):
    """What a column of a table is.

    Attributes:
        title: how tables call it, with its unit.
        better: "higher" or "lower".
        of_sets: whether it compares two sets (FID, KID) and not two pictures.
        equal_sizes: whether the two pictures must have the same size.
    """

    title: str
    better: str
    of_sets: bool = False
    equal_sizes: bool = True


METRICS: dict[str, Metric] = {
    "mse": Metric("MSE", "lower"),
    "psnr": Metric("PSNR (dB)", "higher"),
    "ssim": Metric("SSIM", "higher"),
    "lpips": Metric("LPIPS", "lower"),
    "identity": Metric("Identity", "higher", equal_sizes=False),
    "content": Metric("Content loss", "lower"),
    "style": Metric("Style loss", "lower", equal_sizes=False),
    "fid": Metric("FID", "lower", of_sets=True),
    "kid": Metric("KID", "lower", of_sets=True),
}
"""Every metric by name, in the order of the tables' columns."""

CHOICES: dict[str, tuple[str, ...]] = {
    "crop": ("center", "none"),
    "pairs": ("name", "order", "none"),
    "ssim_window": ("gaussian", "uniform"),
    "lpips_backbone": ("alexnet", "vgg16"),
    "fid_resize": ("antialiased", "tensorflow"),
}


@dataclass(frozen=True)
class Protocol(Changeable):
    """Everything that decides a measured number but the pictures, each default with its origin.

    Raises:
        SettingError: an unknown name, or a number out of range.
    """

    metrics: tuple[str, ...] = ("mse", "psnr", "ssim", "lpips", "fid")  # A: SSIM, PSNR; C: MSE, FID; E: SSIM,
    # LPIPS, FID. Kept in the order of METRICS, so that asking in another order is the same protocol.
    resolution: int | None = 256  # side of the square, or longest side without crop; None: as they are. Ours:
    # what the course's trained methods paint. Smaller pictures are enlarged, for all must be seen alike.
    crop: str = "center"  # the largest central square; "none" keeps the proportions. Ours: E prints none
    pairs: str = "name"  # of the files, without ending; "order": first with first; "none": only FID and KID
    ssim_window: str = "gaussian"  # Wang et al. 2004: 11 px, sigma 1.5; A (11) prints no window
    lpips_backbone: str = "alexnet"  # Zhang et al. 2018: for measuring; VGG-16 as a loss; E prints neither
    fid_resize: str = "antialiased"  # Parmar et al. 2022 (clean-fid); "tensorflow": Heusel et al. 2017
    seed: int = 0  # of the bootstrap
    bootstrap: int = 1000  # resamples of a mean's interval; Efron and Tibshirani 1993
    set_bootstrap: int = 100  # resamples of FID's and KID's interval, of which one takes up to a second
    level: float = 0.95  # of the intervals

    def __post_init__(self) -> None:
        if not isinstance(self.metrics, tuple | list):
            raise SettingError(f"metrics is a list of names, not {self.metrics!r}: write metrics=('ssim',).")
        wanted = tuple(self.metrics)
        unknown = [name for name in wanted if not isinstance(name, str) or name not in METRICS]
        if unknown:
            raise SettingError(f"There is no metric {unknown[0]!r}: choose from {', '.join(METRICS)}.")
        if not wanted:
            raise SettingError(f"No metric is asked for: choose from {', '.join(METRICS)}.")
        # A frozen dataclass fills its own fields this way only.
        object.__setattr__(self, "metrics", tuple(name for name in METRICS if name in wanted))
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise SettingError(f"{name} is {' or '.join(map(repr, choices))}, not {value!r}.")
        for name, least in (("resolution", 1), ("seed", 0), ("bootstrap", 1), ("set_bootstrap", 1)):
            value = getattr(self, name)
            if value is None and name == "resolution":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SettingError(f"{name} must be a whole number of at least {least}, not {value!r}.")
        if not isinstance(self.level, float) or not 0 < self.level < 1:
            raise SettingError(f"level is a share between 0 and 1, such as 0.95, not {self.level!r}.")
        if self.pairs == "none" and self.of_pairs:
            raise SettingError(
                f"Without pairs there is no {self.of_pairs[0]}: measure fid and kid only, or pair the "
                "pictures by 'name' or 'order'."
            )

    @property
    def of_pairs(self) -> tuple[str, ...]:
        """The metrics asked for that compare two pictures."""
        return tuple(name for name in self.metrics if not METRICS[name].of_sets)

    @property
    def of_sets(self) -> tuple[str, ...]:
        """The metrics asked for that compare two sets of pictures."""
        return tuple(name for name in self.metrics if METRICS[name].of_sets)

    @property
    def hash(self) -> str:
        """12 hex digits over all fields and the version of the definitions."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All fields and ``definitions``, in values that JSON has."""
        return {**asdict(self), "metrics": list(self.metrics), "definitions": DEFINITIONS}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Protocol:
        """The protocol that :meth:`to_dict` has written; fields that are left out have their defaults.

        Raises:
            SettingError: a field that is not known, a value out of range, or other definitions than here.
        """
        if not isinstance(content, Mapping):
            raise SettingError(f"A protocol is read from a dictionary, not from a {type(content).__name__}.")
        given = dict(content)
        definitions = given.pop("definitions", DEFINITIONS)
        if definitions != DEFINITIONS:
            raise SettingError(
                f"This protocol is of definitions {definitions!r}, and here are definitions {DEFINITIONS}: "
                "measure the pictures again."
            )
        known = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise SettingError(f"A protocol has no field {unknown[0]!r}: its fields are {', '.join(known)}.")
        return cls(**given)


DEFAULT = Protocol()


def digest(content: Any) -> str:
    """12 hex digits over the canonical JSON of anything JSON can hold: too many to meet by chance."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
