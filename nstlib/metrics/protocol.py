"""What is measured and how, in one frozen dataclass: two tables are comparable if its hash is the same.

An SSIM of 0.52 says nothing by itself: with another window, another size or another crop the same pictures
give 0.44 or 0.61. So whatever decides a number stands in the protocol, and its hash stands in the table.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from ..errors import Count, Seed, SettingError, Settings, known, settings

DEFINITIONS = 1
"""Raised whenever the same protocol and pictures would give other numbers than before."""


class Metric(NamedTuple):
    """What a column of a table is.

    Attributes:
        title: how tables call it, with its unit.
        better: "higher" or "lower".
        of_sets: whether it compares two sets (FID, KID) and not two pictures.
    """

    title: str
    better: str
    of_sets: bool = False

    @property
    def heading(self) -> str:
        """The title with an arrow for what is better."""
        return f"{self.title} {'↑' if self.better == 'higher' else '↓'}"


METRICS: dict[str, Metric] = {
    "mse": Metric("MSE", "lower"),
    "psnr": Metric("PSNR (dB)", "higher"),
    "ssim": Metric("SSIM", "higher"),
    "lpips": Metric("LPIPS", "lower"),
    "identity": Metric("Identity", "higher"),
    "content": Metric("Content loss", "lower"),
    "style": Metric("Style loss", "lower"),
    "fid": Metric("FID", "lower", of_sets=True),
    "kid": Metric("KID", "lower", of_sets=True),
}
"""Every metric by name, in the order of the tables' columns."""


@settings
class Protocol(Settings):
    """Everything that decides a measured number but the pictures, each default with its origin.

    Raises:
        SettingError: an unknown name, or a number out of range.
    """

    # A: SSIM, PSNR; C: MSE, FID; E: SSIM, LPIPS, FID. Kept in the order of METRICS, so that asking in another
    # order is the same protocol.
    metrics: tuple[str, ...] = ("mse", "psnr", "ssim", "lpips", "fid")
    # Ours: what the course's trained methods paint. Smaller pictures are enlarged, so that all are alike;
    # None leaves them as they are.
    resolution: Count | None = Field(
        default=256, description="Side that all pictures are brought to, or original."
    )
    # Ours: E prints none.
    crop: Literal["center", "none"] = Field(
        default="center", description="Cut out the largest central square, or keep the proportions."
    )
    # Of the files, without ending; or first with first; or none, for FID and KID only.
    pairs: Literal["name", "order", "none"] = "name"
    ssim_window: Literal["gaussian", "uniform"] = Field(  # A (11) prints no window
        default="gaussian",
        description="The window of SSIM: Gaussian (Wang et al. 2004), or uniform, scikit-image's default.",
    )
    # Zhang et al. 2018: AlexNet for measuring, VGG-16 as a loss; E prints neither.
    lpips_backbone: Literal["alexnet", "vgg16"] = Field(
        default="alexnet", description="The network LPIPS looks through."
    )
    fid_resize: Literal["antialiased", "tensorflow"] = Field(  # Parmar et al. 2022; Heusel et al. 2017
        default="antialiased",
        description="How pictures come to Inception's 299 px: clean-fid's way, or the first FID's.",
    )
    seed: Seed = Field(default=0, description="Of the resamples for the intervals.")
    bootstrap: Count = 1000  # resamples of a mean's interval; Efron and Tibshirani 1993
    set_bootstrap: Count = 100  # resamples of FID's and KID's interval, of which one takes up to a second
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95  # of the intervals

    def __post_init__(self) -> None:
        for name in self.metrics or (None,):
            known("metric", name, METRICS)
        # A frozen dataclass fills its own fields this way only.
        object.__setattr__(self, "metrics", tuple(name for name in METRICS if name in self.metrics))
        if self.pairs == "none" and self.of_pairs:
            raise SettingError(f"Without pairs there is no {self.of_pairs[0]}: pair by 'name' or 'order'.")

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


DEFAULT = Protocol()


def digest(content: Any) -> str:
    """12 hex digits over the canonical JSON of anything JSON can hold: too many to meet by chance."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
