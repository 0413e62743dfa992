"""What two sets of pictures differ in, without pairs: FID, KID, and how far a measured number can be trusted.

Both compare what the Inception network of 2015 says of the pictures. FID fits a normal distribution to each
set and is too high for small sets; KID averages a kernel over pairs and is right on average for any number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import assets
from ..errors import SettingError, known
from ..nets import inception
from ..nets.hardware import resolve_device
from ..pictures.files import resize
from .pixel import check_pictures


class FidBiasWarning(UserWarning):
    """The FID of fewer pictures than the features have dimensions is far too high."""


def resize_antialiased(images: Tensor, side: int) -> Tensor:
    """To side × side by antialiased bicubic interpolation, clamped to [0, 1]: clean-fid's."""
    return resize(images, (side, side))


def resize_tensorflow(images: Tensor, side: int) -> Tensor:
    """To side × side as TensorFlow 1 does: pixel i is taken at i · old/new, mixed from its two neighbors.

    Half a pixel up and left of where it should be, and shrinking skips pixels: Parmar et al. 2022 show it.
    """
    for dim in (2, 3):
        length = images.shape[dim]
        at = torch.arange(side, device=images.device, dtype=images.dtype) * (length / side)
        low = at.floor().long().clamp_max(length - 1)
        high = (low + 1).clamp_max(length - 1)
        share = (at - low).view([-1 if d == dim else 1 for d in range(4)])
        images = torch.lerp(images.index_select(dim, low), images.index_select(dim, high), share)
    return images


_BATCH = 8  # pictures that go through the network at once
RESIZES = {"antialiased": resize_antialiased, "tensorflow": resize_tensorflow}


class InceptionFeatures:
    """Pictures of any size in, the 2048 numbers that FID and KID compare out.

    Args:
        resize: how a picture becomes 299 × 299. "antialiased": bicubic with antialiasing, as Pillow and
            clean-fid (Parmar et al. 2022) do it. "tensorflow": bilinear without antialiasing, as Heusel et
            al. 2017 have it; it skips pixels, but most published FIDs were measured so. FIDs of the two
            must not be compared.
        device: see :func:`nstlib.nets.hardware.resolve_device`.

    Shape:
        input (N, 3, H, W) in [0, 1], any H and W; output (N, 2048) in float64 on the CPU, where the
        statistics are computed: 16 kB a picture.

    Raises:
        SettingError: unknown resize or device.
        ImageError: not pictures, or values outside [0, 1].
        AssetError: the weights cannot be had.
    """

    def __init__(self, resize: str = "antialiased", *, device: str | torch.device = "auto") -> None:
        self.resize, self.device = RESIZES[known("resize of FID", resize, RESIZES)], resolve_device(device)
        net = inception.from_official(assets.load_tensors("fid_inception"))
        self.net = net.to(self.device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2048)."""
        found = []
        for part in check_pictures("batch", images).split(_BATCH):
            small = self.resize(part.to(self.device, torch.float32), inception.SIDE)
            # The published preprocessing of 8-bit values is (x - 128) / 128, which leaves [-1, 1] unfilled.
            small = ((255 * small - 128) / 128).contiguous(memory_format=torch.channels_last)
            found.append(self.net(small).cpu().double())
        return torch.cat(found)


# -------------------------------------------------------------------------------------------- FID and KID


def fid(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet Inception Distance of two sets (paper E, section 4.1): see :func:`frechet_distance`.

    Its expectation falls as the sets grow, roughly as FID + c/N (Bińkowski et al. 2018; Chong & Forsyth
    2020): only FIDs of equal numbers of pictures can be compared. With fewer pictures than dimensions it is
    mostly bias, and a :class:`FidBiasWarning` says how much: what two halves of the first set, whose
    distance should be 0, are apart.

    Args:
        features_a: (N, D), at least 2 pictures; D = 2048 from :class:`InceptionFeatures`.
        features_b: (M, D); M need not be N.

    Returns:
        The distance, 0 or more (0 for equal sets), in the features' units squared.

    Raises:
        SettingError: fewer than 2 pictures.
    """
    a, b = _check_features(features_a, features_b, "FID")
    if min(len(a), len(b)) < a.shape[1]:
        halves = ""
        if len(a) >= 4:
            apart = frechet_distance(a[::2], a[1::2])
            halves = f" (two halves of the first set, whose distance should be 0, are {apart:.4g} apart)"
        warnings.warn(
            f"The FID of {len(a)} and {len(b)} pictures with {a.shape[1]} features is too high{halves}: "
            "compare only FIDs of equal numbers of pictures, or take KID, which has no such bias.",
            FidBiasWarning,
            stacklevel=2,
        )
    return frechet_distance(a, b)


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Distance of the normal distributions fitted to two sets of features.

    ``|mu_a - mu_b|² + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``: the squared Wasserstein-2 distance of the two.
    With the centered features X as rows, C_a = X_aᵀX_a / (N - 1), and the trace of the root is the sum of
    the singular values of X_a X_bᵀ over ``sqrt((N - 1)(M - 1))``. That is exact, has no root of a matrix
    that is singular for N ≤ D, and is fast for small sets. Arguments and errors as :func:`fid`; no warning.

    Source: Dowson & Landau 1982; Heusel et al. 2017.
    """
    a, b = _check_features(features_a, features_b, "FID")
    return _counted_fid(a, b)(*(torch.ones(len(x), dtype=torch.float64) for x in (a, b)))


def kid(features_a: Tensor, features_b: Tensor) -> float:
    """Kernel Inception Distance: the unbiased estimate of the squared maximum mean discrepancy of two sets.

    ``mean_{i≠j} k(a_i, a_j) + mean_{i≠j} k(b_i, b_j) - 2 mean_{i,j} k(a_i, b_j)`` with
    ``k(x, y) = (x·y / D + 1)³``. Without the pairs of a picture with itself the mean is right for any N, so
    sets of 20 and of 2,000 can be compared; for equal distributions it scatters around 0 and is often below.
    Arguments and errors as :func:`fid`.

    Source: Bińkowski et al. 2018, "Demystifying MMD GANs", section 4; Gretton et al. 2012, (3).
    """
    a, b = _check_features(features_a, features_b, "KID")
    return _counted_kid(a, b)(*(torch.ones(len(x), dtype=torch.float64) for x in (a, b)))


def _check_features(a: Tensor, b: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Both sets in float64 on the CPU, if they can be compared."""
    for x, which in ((a, "first"), (b, "second")):
        if len(x) < 2:
            raise SettingError(
                f"{what} needs at least 2 pictures a set, and the {which} has {len(x)}: it compares how sets "
                "spread, for single pictures take LPIPS or SSIM."
            )
    return a.detach().cpu().double(), b.detach().cpu().double()


# ---------------------------------------------------------------------------------------------- intervals


class Interval(NamedTuple):
    """A measured value and where it would lie, in most cases, had other pictures been taken."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., Any], *samples: Tensor, count: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """A confidence interval without assumptions: the statistic of many sets drawn from the sets themselves.

    Each sample is drawn from with replacement, as many as it has, ``count`` times. A drawn set repeats
    pictures and so has fewer different ones, which lifts a biased statistic a second time: the FID of a drawn
    set lies above the FID of the set, and a plain percentile interval may not even contain the value. So the
    drawn values are shifted until their mean is the value, and the percentiles are taken then: the interval
    is the scatter of a measurement *with this number of pictures*, not a correction of its bias.
    (In KID a repeated picture would also meet itself; such pairs are left out.)

    Fewer than ten pictures give intervals that are too narrow. Those of FID with fewer pictures than
    dimensions, and of KID where both sets have one distribution, are about half too wide (in simulation).

    Args:
        statistic: of tensors like the samples, a number: :func:`fid`, :func:`kid`, ``torch.mean``.
        samples: tensors (N, ...), one row a picture, drawn from independently of each other.
        count: draws.
        seed: of the draws: equal seeds, equal intervals.
        level: share of the draws that the interval holds.

    Returns:
        The statistic of the samples themselves, and the interval's ends. One picture says nothing about
        others: from minus to plus infinity. An infinite statistic (a mean PSNR with an equal pair) has
        itself for both ends.

    Raises:
        SettingError: of ``statistic``.
    """
    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Interval(value, -math.inf, math.inf)
    if math.isinf(value):
        return Interval(value, value, value)
    counted = {fid: _counted_fid, kid: _counted_kid}[statistic](*samples) if statistic in (fid, kid) else None
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(count):
        draws = [torch.randint(len(x), (len(x),), generator=generator) for x in samples]
        if counted is None:
            drawn.append(float(statistic(*(x[draw] for x, draw in zip(samples, draws, strict=True)))))
        else:
            drawn.append(counted(*(draw.bincount(minlength=len(draw)).double() for draw in draws)))
    # A draw of one picture N times over has no KID; it is left out (sets of three or more hardly have any).
    values = torch.tensor(drawn, dtype=torch.float64)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = (values + (value - values.nanmean())).nanquantile(ends).tolist()
    return Interval(value, low, high)


Counted = Callable[..., float]  # how often each picture of a and of b was drawn -> the statistic


def _counted_fid(a: Tensor, b: Tensor) -> Counted:
    """FID of drawn sets; a picture drawn n times is one row with weight sqrt(n)."""

    def distance(*times: Tensor) -> float:
        means, rows = [], []
        for x, n in zip((a, b), times, strict=True):
            drawn, weights = x[n > 0], n[n > 0] / n.sum()
            means.append(weights @ drawn)
            drawn = (drawn - means[-1]) * (weights * n.sum() / (n.sum() - 1)).sqrt()[:, None]
            # More pictures than features: the triangle of QR has the same XᵀX in D rows.
            rows.append(torch.linalg.qr(drawn, mode="r").R if len(drawn) > drawn.shape[1] else drawn)
        spread = rows[0].square().sum() + rows[1].square().sum()
        root = torch.linalg.svdvals(rows[0] @ rows[1].T).sum()
        return max(0.0, float((means[0] - means[1]).square().sum() + spread - 2 * root))

    return distance


def _counted_kid(a: Tensor, b: Tensor) -> Counted:
    """KID of drawn sets from the kernel of all pictures; a picture and its copies are no pair."""
    kernel_a, kernel_b, between = ((x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    kernel_a.fill_diagonal_(0)
    kernel_b.fill_diagonal_(0)

    def within(kernel: Tensor, times: Tensor) -> Tensor:
        return times @ kernel @ times / (times.sum() ** 2 - times.square().sum())

    def distance(n: Tensor, m: Tensor) -> float:
        cross = n @ between @ m / (n.sum() * m.sum())
        return float(within(kernel_a, n) + within(kernel_b, m) - 2 * cross)

    return distance
