"""What two sets of pictures differ in, without pairs: FID, KID, and how far a measured number can be trusted.

Both compare what the Inception network of 2015 says of the pictures. FID fits a normal distribution to each
set and is too high for small sets; KID averages a kernel over pairs and is right on average for any number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import assets
from ..errors import SettingError
from ..nets import inception
from ..nets.hardware import resolve_device
from .pixel import check_pictures

RESIZES = ("antialiased", "tensorflow")
_BLOCK = 1024  # rows of a kernel matrix held at once: memory stays linear in the number of pictures


class FidBiasWarning(UserWarning):
    """The FID of fewer pictures than the features have dimensions is far too high."""


class InceptionFeatures(nn.Module):
    """Pictures of any size in, the 2048 numbers that FID and KID compare out.

    Args:
        resize: how a picture becomes 299 × 299. "antialiased": bicubic with antialiasing, as Pillow and
            clean-fid (Parmar et al. 2022) do it. "tensorflow": bilinear without antialiasing, as Heusel et
            al. 2017 have it; it skips pixels, but most published FIDs were measured so. FIDs of the two
            must not be compared.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        tensors: the network's weights instead of the asset's (tests).
        batch: pictures that go through the network at once; memory grows with it, the result does not change.

    Shape:
        input (N, 3, H, W) in [0, 1], any H and W; output (N, 2048) in float64 on the processor, where the
        statistics are computed: 16 kB a picture.

    Raises:
        SettingError: unknown resize or device.
        ImageError: not pictures, values that are not numbers or lie outside [0, 1].
        AssetError: the weights cannot be had.
    """

    def __init__(
        self,
        resize: str = "antialiased",
        *,
        device: str | torch.device = "auto",
        tensors: Mapping[str, Tensor] | None = None,
        batch: int = 8,
    ) -> None:
        super().__init__()
        if resize not in RESIZES:
            raise SettingError(f"The resize of FID is one of {', '.join(RESIZES)}, not '{resize}'.")
        if batch < 1:
            raise SettingError(f"batch is {batch}, but at least one picture has to go through the network.")
        self.resize, self.batch = resize, batch
        self.device = resolve_device(device)
        self.net = inception.from_official(
            assets.load_tensors("fid_inception") if tensors is None else tensors
        )
        self.requires_grad_(False).eval()
        self.to(self.device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2048)."""
        check_pictures(images)
        shrink = resize_antialiased if self.resize == "antialiased" else resize_tensorflow
        found = []
        for part in images.split(self.batch):
            small = shrink(part.to(self.device, torch.float32), inception.SIDE)
            # The published preprocessing of 8-bit values is (x - 128) / 128, which leaves [-1, 1] unfilled.
            small = ((255 * small - 128) / 128).contiguous(memory_format=torch.channels_last)
            found.append(self.net(small).cpu().double())
        return torch.cat(found)


def resize_antialiased(images: Tensor, side: int) -> Tensor:
    """To side × side by antialiased bicubic interpolation, clamped to [0, 1]: clean-fid's."""
    return F.interpolate(images, (side, side), mode="bicubic", align_corners=False, antialias=True).clamp(
        0, 1
    )


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
        SettingError: fewer than 2 pictures, features of different length, values that are not numbers.
    """
    a, b = _check_features(features_a, features_b, "FID")
    count, dimensions = min(len(a), len(b)), a.shape[1]
    if count < dimensions:
        halves = ""
        if len(a) >= 4:
            apart = frechet_distance(a[::2], a[1::2])
            halves = f" (two halves of the first set, whose distance should be 0, are {apart:.4g} apart)"
        warnings.warn(
            f"The FID of {len(a)} and {len(b)} pictures with {dimensions} features is too high{halves}: "
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
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = a - mean_a, b - mean_b
    spread_a, spread_b = a.square().sum() / (len(a) - 1), b.square().sum() / (len(b) - 1)
    # More pictures than features: the triangle of QR has the same XᵀX in D rows.
    small_a, small_b = (torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x for x in (a, b))
    root = torch.linalg.svdvals(small_a @ small_b.T).sum() / math.sqrt((len(a) - 1) * (len(b) - 1))
    return max(0.0, float((mean_a - mean_b).square().sum() + spread_a + spread_b - 2 * root))


def kid(
    features_a: Tensor, features_b: Tensor, subsets: int | None = None, *, size: int = 1000, seed: int = 0
) -> float:
    """Kernel Inception Distance: the unbiased estimate of the squared maximum mean discrepancy of two sets.

    ``mean_{i≠j} k(a_i, a_j) + mean_{i≠j} k(b_i, b_j) - 2 mean_{i,j} k(a_i, b_j)`` with
    ``k(x, y) = (x·y / D + 1)³``. Without the pairs of a picture with itself the mean is right for any N, so
    sets of 20 and of 2,000 can be compared; for equal distributions it scatters around 0 and is often below.

    Args:
        features_a: (N, D), at least 2 pictures.
        features_b: (M, D).
        subsets: None takes all pictures at once; a number, the mean over so many random subsets (Bińkowski et
            al. 2018 have 100), whose expectation is the same and whose scatter is larger.
        size: pictures in a subset, at most as many as the smaller set has.
        seed: of the subsets.

    Raises:
        SettingError: as :func:`fid`, or no subsets, or subsets of fewer than 2.

    Source: Bińkowski et al. 2018, "Demystifying MMD GANs", section 4; Gretton et al. 2012, (3).
    """
    a, b = _check_features(features_a, features_b, "KID")
    if subsets is None:
        return _mmd(a, b)
    if subsets < 1 or size < 2:
        raise SettingError(f"KID takes 1 subset or more of 2 pictures or more, not {subsets} of {size}.")
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(a), len(b))
    draws = [[torch.randperm(len(x), generator=generator)[:size] for x in (a, b)] for _ in range(subsets)]
    return math.fsum(_mmd(a[i], b[j]) for i, j in draws) / subsets


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mmd(a: Tensor, b: Tensor) -> float:
    def total(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([_kernel(part, y).sum() for part in x.split(_BLOCK)]).sum()

    def within(x: Tensor) -> Tensor:
        itself = ((x.square().sum(1) / x.shape[1] + 1) ** 3).sum()
        return (total(x, x) - itself) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b)))


def _check_features(a: Tensor, b: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Both sets in float64 on the processor, if they can be compared."""
    sets = []
    for x, which in ((a, "first"), (b, "second")):
        if not isinstance(x, Tensor) or x.ndim != 2:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise SettingError(
                f"{what} compares features (N, D), and the {which} set is {got}: pass tensors."
            )
        if len(x) < 2:
            raise SettingError(
                f"{what} needs at least 2 pictures a set, and the {which} has {len(x)}: it compares how sets "
                "spread, for single pictures take LPIPS or SSIM."
            )
        x = x.detach().cpu().double()
        if not bool(torch.isfinite(x).all()):
            row = int(torch.nonzero(~torch.isfinite(x).all(1))[0])
            raise SettingError(
                f"The features of picture {row + 1} of the {which} set are not numbers: leave it out."
            )
        sets.append(x)
    if a.shape[1] != b.shape[1]:
        raise SettingError(
            f"{what} compares features of one network, but these have {a.shape[1]} and {b.shape[1]} numbers "
            "a picture: take both sets through the same network."
        )
    return sets[0], sets[1]


# ---------------------------------------------------------------------------------------------- intervals


class Interval(NamedTuple):
    """A measured value and where it would lie, in most cases, had other pictures been taken."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., float | Tensor],
    *samples: Tensor,
    count: int = 1000,
    seed: int = 0,
    level: float = 0.95,
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
        statistic: of tensors like the samples, a number. :func:`fid` and :func:`kid` are recognized and
            computed from products taken once, which is several times faster.
        samples: tensors (N, ...), one row a picture, drawn from independently of each other.
        count: draws.
        seed: of the draws: equal seeds, equal intervals.
        level: share of the draws that the interval holds.

    Returns:
        The statistic of the samples themselves, and the interval's ends. One picture says nothing about
        others: from minus to plus infinity. An infinite statistic (a mean PSNR with an equal pair) has
        itself for both ends.

    Raises:
        SettingError: no sample, an empty one, values that are not numbers, wrong count or level.
    """
    if count < 1 or not 0 < level < 1:
        raise SettingError(
            f"A bootstrap has one draw or more and a level between 0 and 1, not {count} and {level}."
        )
    if not samples or any(len(sample) == 0 for sample in samples):
        raise SettingError("There is nothing to draw from: a bootstrap needs at least one picture a set.")
    value = _number(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Interval(value, -math.inf, math.inf)
    if math.isinf(value):
        return Interval(value, value, value)
    drawn_statistic = _BY_COUNTS.get(statistic, _by_copies)(statistic, samples)
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FidBiasWarning)  # said once, for the value
        for _ in range(count):
            draws = [torch.randint(len(sample), (len(sample),), generator=generator) for sample in samples]
            drawn.append(drawn_statistic(draws))
    # A draw of one picture N times over has no KID; it is left out (sets of three or more hardly have any).
    values = torch.tensor([x for x in drawn if not math.isnan(x)], dtype=torch.float64)
    if not len(values):
        return Interval(value, -math.inf, math.inf)
    values = values + (value - values.mean())
    ends = torch.quantile(values, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return Interval(value, float(ends[0]), float(ends[1]))


def mean_interval(values: Tensor, *, count: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """The mean of one number a picture with its interval; the rest and errors as :func:`bootstrap`.

    Args:
        values: (N,), for example what :func:`nstlib.metrics.ssim` gave.
        count: draws.
        seed: of the draws.
        level: share of the draws that the interval holds.
    """
    values = torch.as_tensor(values).detach().cpu().double().flatten()
    if bool(torch.isnan(values).any()):
        row = int(torch.nonzero(torch.isnan(values))[0])
        raise SettingError(f"Value {row + 1} of {len(values)} is not a number: leave it out of the mean.")
    return bootstrap(torch.mean, values, count=count, seed=seed, level=level)


def _number(value: float | Tensor) -> float:
    number = float(value)
    if math.isnan(number):
        raise SettingError("The statistic of these samples is not a number: look which picture has none.")
    return number


Draws = list[Tensor]


def _by_copies(
    statistic: Callable[..., float | Tensor], samples: tuple[Tensor, ...]
) -> Callable[[Draws], float]:
    def drawn(draws: Draws) -> float:
        return float(statistic(*(x[i.to(x.device)] for x, i in zip(samples, draws, strict=True))))

    return drawn


def _fid_by_counts(
    statistic: Callable[..., float | Tensor], samples: tuple[Tensor, ...]
) -> Callable[[Draws], float]:
    """FID of drawn sets from one product X_a X_bᵀ; a picture drawn w times is a row with weight sqrt(w)."""
    a, b = _check_features(samples[0], samples[1], "FID")
    if max(len(a), len(b)) > a.shape[1]:  # then the product is larger than the features
        return _by_copies(frechet_distance, (a, b))
    center = a.mean(0)  # the same for both, or the product's digits go to a common offset
    a, b = a - center, b - center
    product, lengths = a @ b.T, (a.square().sum(1), b.square().sum(1))

    def drawn(draws: Draws) -> float:
        (mean_a, spread_a, share_a, rows), (mean_b, spread_b, share_b, columns) = (
            _drawn_moments(x, square, i) for x, square, i in zip((a, b), lengths, draws, strict=True)
        )
        part = product[rows][:, columns]
        left, right = share_a @ part, part @ share_b
        part = part - left - right.unsqueeze(1) + share_a @ right
        part = share_a.sqrt().unsqueeze(1) * part * share_b.sqrt()
        # Roots of eigenvalues are singular values; digits lost to the square are far below the scatter.
        roots = torch.linalg.eigvalsh(part @ part.T if len(rows) <= len(columns) else part.T @ part)
        unbias = math.sqrt(len(a) / (len(a) - 1) * len(b) / (len(b) - 1))
        root = unbias * roots.clamp_min(0).sqrt().sum()
        return max(0.0, float((mean_a - mean_b).square().sum() + spread_a + spread_b - 2 * root))

    return drawn


def _drawn_moments(x: Tensor, square: Tensor, draw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and total variance of a drawn set, the shares of its different pictures, and which they are."""
    counts = torch.bincount(draw, minlength=len(x)).double()
    rows = counts.nonzero()[:, 0]
    share = counts[rows] / len(x)
    mean = share @ x[rows]
    spread = (share @ square[rows] - mean.square().sum()) * len(x) / (len(x) - 1)
    return mean, spread, share, rows


def _kid_by_counts(
    statistic: Callable[..., float | Tensor], samples: tuple[Tensor, ...]
) -> Callable[[Draws], float]:
    """KID of drawn sets from the kernel matrices, taken once; a picture and its copies are no pair."""
    a, b = _check_features(samples[0], samples[1], "KID")
    within = tuple(_kernel(x, x).fill_diagonal_(0) for x in (a, b))
    between = _kernel(a, b)

    def drawn(draws: Draws) -> float:
        weights = [torch.bincount(i, minlength=len(x)).double() for i, x in zip(draws, (a, b), strict=True)]
        inner = (w @ k @ w / (w.sum() ** 2 - w.square().sum()) for w, k in zip(weights, within, strict=True))
        return float(sum(inner) - 2 * (weights[0] @ between @ weights[1]) / (len(a) * len(b)))

    return drawn


_BY_COUNTS: dict[Callable[..., float | Tensor], Callable[..., Callable[[Draws], float]]] = {
    fid: _fid_by_counts,
    frechet_distance: _fid_by_counts,
    kid: _kid_by_counts,
}
