"""Two sets of pictures measured by a protocol: ``measure("photos/", "stylized/")``.

Pictures stream through in small batches: whatever their number, the memory holds one batch, the numbers and,
for FID and KID, 2048 features of each. A picture that fails costs its own numbers only, and is named.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import os
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..assets.writing import reason
from ..errors import AssetError, SettingError
from ..faces.identity import Identity
from ..nets.hardware import resolve_device
from ..pictures import files
from . import pixel
from .distribution import FidBiasWarning, InceptionFeatures, bootstrap, fid, kid
from .perceptual import Lpips, VggDistance
from .protocol import DEFAULT, METRICS, Protocol, digest
from .table import Measurement, Problem

LARGE = 512  # pixels a side; larger pictures come one pair at a time, or a batch would not fit into memory

Pictures = str | os.PathLike[str] | Tensor | Sequence[str | os.PathLike[str] | Tensor]
Instrument = Callable[..., Tensor]  # (N, 3, H, W), one or two of them, to (N,) or (N, D)
Failures = dict[tuple[str, str], list[str]]  # (file, why): the metrics that failed; none if it was not read


def instruments(protocol: Protocol, device: torch.device) -> dict[str, Instrument]:
    """What measures, by the metric of pairs; FID and KID share "features".

    Raises:
        AssetError: a network cannot be had.
    """

    @functools.cache
    def vgg() -> VggDistance:
        distance = VggDistance(device=device)
        # Content and style ask for the features of the same two batches.
        distance.features = functools.lru_cache(maxsize=2)(distance.features)
        return distance

    makers: dict[str, Callable[[], Instrument]] = {
        "mse": lambda: pixel.mse,
        "psnr": lambda: pixel.psnr,
        "ssim": lambda: functools.partial(pixel.ssim, window=protocol.ssim_window),
        "lpips": lambda: Lpips(protocol.lpips_backbone, device=device),
        "identity": lambda: Identity(device=device),
        "content": lambda: vgg().content,
        "style": lambda: vgg().style,
        "features": lambda: InceptionFeatures(protocol.fid_resize, device=device),
    }
    names = [*protocol.of_pairs, *(["features"] if protocol.of_sets else [])]
    return {name: makers[name]() for name in names}


def measure(
    a: Pictures, b: Pictures, protocol: Protocol = DEFAULT, *, device: str | torch.device = "auto",
    batch: int = 8, progress: bool = True,
) -> Measurement:  # fmt: skip
    """Measure the pictures B against the pictures A.

    A picture that cannot be read or measured has NaN in its row and stands in ``problems`` with the reason;
    so has one without a partner, and FID of one picture. Ctrl-C ends it early and keeps what was measured.

    Args:
        a: the references: a folder (its pictures by name; no subfolders), a file, a list of files, a tensor
            (N, 3, H, W) or a list of tensors (1, 3, H, W), RGB in [0, 1].
        b: what is measured against them. FID and KID use all its pictures, also those without a partner.
        protocol: what is measured and how.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        batch: pictures of up to 512 px at a time; changes speed and memory, not the numbers (but in the
            seventh digit).
        progress: show a bar.

    Returns:
        A :class:`Measurement`; ``save`` writes it, ``summary`` and ``rows`` are tables.

    Raises:
        ImageError: a folder that is missing, or without pictures.
        SettingError: no pair at all, a wrong argument.
        AssetError: a network cannot be had; nothing has been measured then.
    """
    began = time.monotonic()
    device = resolve_device(device)
    files.check_whole("batch", batch)
    names = [os.fspath(x) if isinstance(x, str | os.PathLike) else y for x, y in ((a, "A"), (b, "B"))]
    failures: Failures = {}
    pairs = pair_up([list_pictures(a, 0, names[0]), list_pictures(b, 1, names[1])], names, protocol, failures)
    tools = instruments(protocol, device)  # now: a network that cannot be had is told before minutes of work
    if protocol.resolution is None or protocol.resolution > LARGE:
        batch = 1
    done: list[Pair] = []
    interrupted = False
    try:
        with tqdm(total=len(pairs), desc="measured", disable=not progress) as bar:
            for start in range(0, len(pairs), batch):
                chunk = pairs[start : start + batch]
                _read(chunk, protocol, failures)
                _measure(chunk, tools, device, failures)
                done += chunk  # not before all of it is measured
                bar.update(len(chunk))
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    rows = [{"picture": pair[0].name, **pair[0].values} for pair in done if protocol.of_pairs and pair[1:]]
    table = pd.DataFrame(rows, columns=["picture", *protocol.of_pairs])
    sides = [[picture for pair in done for picture in pair if picture.side == side] for side in (0, 1)]
    features = [[x.values["features"] for x in side if "features" in x.values] for side in sides]
    summary, notes, stopped = _summarize(table, features, names, protocol, failures)
    contents = [[(picture.name, picture.digest) for picture in side] for side in sides]
    if protocol.pairs != "order":  # then the order in which they came means nothing
        contents = [sorted(side) for side in contents]
    counts = [len(side) for side in (features if protocol.of_sets else sides)]
    problems = [
        Problem(file, f"{', '.join(metrics)} failed on '{file}': {why}" if metrics else why)
        for (file, why), metrics in failures.items()
    ]
    return Measurement(
        rows=table, summary=summary, problems=problems, protocol=protocol, pictures=digest(contents),
        reference=digest(contents[:1]), sources=names, counts=counts, notes=notes,
        interrupted=interrupted or stopped, seconds=time.monotonic() - began, device=str(device),
    )  # fmt: skip


def _read(chunk: list[Pair], protocol: Protocol, failures: Failures) -> None:
    """Read the pictures of a few pairs; one without a partner is only of use for sets."""
    for picture in itertools.chain(*(pair for pair in chunk if len(pair) == 2 or protocol.of_sets)):
        try:
            picture.image = picture.load(protocol)
        except Exception as error:  # decoders raise nearly everything, and one picture must not end it all
            failures[picture.label, f"{reason(error)}."] = []


@torch.no_grad()
def _measure(
    chunk: list[Pair], tools: dict[str, Instrument], device: torch.device, failures: Failures
) -> None:
    """Put what the instruments say of a few pairs into their pictures' values, and let the images go."""
    pairs = [pair for pair in chunk if len(pair) == 2]
    singles: list[Pair] = [(picture,) for pair in chunk for picture in pair]
    of_pairs = [name for name in tools if name != "features"]
    for names, looks in ((of_pairs, pairs), (["features"] if "features" in tools else [], singles)):
        read = [look for look in looks if all(picture.image is not None for picture in look)]
        for _, same in itertools.groupby(read, key=lambda look: [picture.image.shape for picture in look]):
            group = list(same)
            # Moved once for all metrics: those that share a network know the batch again.
            batches = [torch.cat([x.image for x in side]).to(device) for side in zip(*group, strict=True)]
            for name in names:
                title = METRICS[name].title if name in METRICS else "Inception"
                for look, value in zip(group, _apply(tools[name], batches), strict=True):
                    if isinstance(value, str):
                        failures.setdefault((look[-1].label, value), []).append(title)
                    else:
                        look[0].values[name] = value
    for (picture,) in singles:
        picture.image = None


def _apply(instrument: Instrument, batches: Sequence[Tensor]) -> list[Any]:
    """Of each picture or pair in a batch: a number, a row of features, or why there is none."""
    try:
        values = instrument(*batches).detach().cpu().double()
        return ["it gives no number." if x.isnan().any() else x if x.ndim else x.item() for x in values]
    except AssetError:  # a network that is loaded at its first use: no picture's fault
        raise
    except Exception as error:  # also out of memory; then each alone, so that one fails alone
        if len(batches[0]) == 1:
            return [f"{reason(error)}."]
    return [_apply(instrument, one)[0] for one in zip(*(x.split(1) for x in batches), strict=True)]


def _summarize(
    rows: pd.DataFrame, features: list[list[Tensor]], names: list[str], protocol: Protocol, failures: Failures
) -> tuple[pd.DataFrame, list[str], bool]:
    """The table of means and distances, notes on it, and whether Ctrl-C has ended it early."""
    lines, interrupted = [], False
    sets = [torch.stack(side) if side else torch.empty(0, 1) for side in features]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FidBiasWarning)
        for name in protocol.metrics:  # means first, which take no time
            title, better, of_sets = METRICS[name]
            statistic: Callable[..., Any] = {"fid": fid, "kid": kid}.get(name, torch.mean)
            values = sets if of_sets else [torch.tensor(rows[name].dropna().to_numpy(dtype=float))]
            count = protocol.set_bootstrap if of_sets else protocol.bootstrap
            value = low = high = math.nan
            try:
                value = float(statistic(*values))
                if not math.isnan(value):
                    _, low, high = bootstrap(
                        statistic, *values, count=count, seed=protocol.seed, level=protocol.level
                    )
            except SettingError as error:
                smaller = names[len(sets[0]) >= len(sets[1])]
                failures[smaller, f"{title} of '{smaller}' is not measured: {error}"] = []
            except KeyboardInterrupt:  # intervals of large sets take minutes; the value is kept
                interrupted = True
            lines.append((name, value, low, high, min(map(len, values)), better))
    summary = pd.DataFrame(lines, columns=["metric", "value", "low", "high", "n", "better"])
    # A table is a better place for them than a terminal that has scrolled on.
    notes = dict.fromkeys(str(w.message) for w in caught if w.category is FidBiasWarning)
    return summary, list(notes), interrupted


# ------------------------------------------------------------------------------------------ which pictures


@dataclass
class Picture:
    """A file or a tensor, and what is known of it."""

    side: int  # 0 is A
    name: str  # in the table
    label: str  # in problems
    content: Path | Tensor
    image: Any = None  # (1, 3, H, W), while it is measured
    values: dict[str, Any] = field(default_factory=dict)  # by instrument; those of a pair are at A's picture

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the file's bytes, or of the tensor's shape and values."""
        if isinstance(self.content, Path):
            try:
                return hashlib.sha256(self.content.read_bytes()).hexdigest()
            except OSError:  # which reading it will tell
                return "unreadable"
        values = self.content.detach().float().cpu().contiguous()
        return hashlib.sha256(f"{tuple(values.shape)}".encode() + values.numpy().tobytes()).hexdigest()

    def load(self, protocol: Protocol) -> Tensor:
        """(1, 3, H, W) on the CPU, in the protocol's crop and resolution.

        Raises:
            ImageError: it cannot be read, or is no picture in [0, 1].
        """
        image = files.load_image(self.content) if isinstance(self.content, Path) else self.content
        image = pixel.check_pictures(f"picture {self.label}", image, count=1)
        image = image.detach().float().cpu().clamp(0, 1)
        if protocol.crop == "center":
            image = files.square(image)
        return files.resize(image, protocol.resolution, allow_upscale=True)


Pair = tuple[Picture, ...]  # one of A and one of B, or one without a partner


def list_pictures(source: Pictures, side: int, name: str) -> list[Picture]:
    """The pictures of a folder (by name), a list or a tensor.

    Raises:
        ImageError: the folder is missing, or holds no picture.
        SettingError: the list is empty.
    """
    if isinstance(source, str | os.PathLike):
        source = [source] if Path(source).is_file() else files.list_pictures(source)
    found = []
    for i, item in enumerate(source.split(1) if isinstance(source, Tensor) and len(source) else source):
        if isinstance(item, Tensor):
            found.append(Picture(side, f"{i:04d}", f"{name}[{i}]", item))
        else:
            found.append(Picture(side, Path(item).name, os.fspath(item), Path(item)))
    if not found:
        raise SettingError(f"There are no pictures in '{name}' (subfolders are not looked into): add some.")
    return found


def pair_up(
    sides: list[list[Picture]], names: list[str], protocol: Protocol, failures: Failures
) -> list[Pair]:
    """Who is measured with whom; those without a partner are named and follow, for FID and for the digests.

    Raises:
        SettingError: nobody has a partner.
    """
    by_name = protocol.pairs == "name" and protocol.of_pairs
    # "ë" may be one sign or two, depending on who has written the name.
    stems = [[unicodedata.normalize("NFC", Path(picture.name).stem) for picture in side] for side in sides]
    keys: list[Any] = stems if by_name else [range(len(side)) for side in sides]
    firsts, seconds = (dict(zip(key, side, strict=True)) for key, side in zip(keys, sides, strict=True))
    twice = {key for side in keys for key, count in Counter(side).items() if count > 1}
    pairs: list[Pair] = [(firsts[k], seconds[k]) for k in firsts if k in seconds and k not in twice]
    paired = {id(picture) for pair in pairs for picture in pair}
    alone = [picture for side in sides for picture in side if id(picture) not in paired]
    if protocol.of_pairs and not pairs:
        raise SettingError(
            f"No picture of '{names[0]}' has a partner of the same name in '{names[1]}' (such as "
            f"'{sides[0][0].name}' and '{sides[1][0].name}'): name them alike, or pair by order."
        )
    for picture in alone if protocol.of_pairs else ():
        why = f"'{names[0]}' holds {len(sides[0])} pictures and '{names[1]}' {len(sides[1])}, paired by order"
        if by_name:
            why = "its name, with any ending, must stand once on each side"
        failures[picture.label, f"'{picture.label}' has no partner: {why}; look which one is missing."] = []
    return [*pairs, *((picture,) for picture in alone)]
