"""Two sets of pictures measured by a protocol: ``measure("photos/", "stylized/")``.

Pictures stream through in small batches: whatever their number, the memory holds one batch, the numbers and,
for FID and KID, 2048 features of each. A picture that fails costs its own numbers only, and is named.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import AssetError, NstError, SettingError
from ..nets.hardware import resolve_device
from . import pixel
from .distribution import FidBiasWarning, InceptionFeatures, bootstrap, fid, kid, mean_interval
from .perceptual import Lpips, VggDistance
from .pictures import Picture, Pictures, Problem, list_pictures, pair_up, source_name
from .protocol import DEFAULT, METRICS, Protocol, digest
from .table import Measurement

Instrument = Callable[..., Tensor]
Factory = Callable[[Protocol, torch.device, dict[str, Any]], Instrument]

DISTANCES: dict[str, Callable[[Tensor, Tensor], float]] = {"fid": fid, "kid": kid}
BATCH_PIXELS = 2**18  # per picture: where resolution is None, a batch of large pictures is ended early


# ---------------------------------------------------------------------------------------------- instruments


def _pixel(name: str) -> Factory:
    def factory(protocol: Protocol, device: torch.device, shared: dict[str, Any]) -> Instrument:
        if name == "ssim":
            return lambda a, b: pixel.ssim(a, b, window=protocol.ssim_window)
        return getattr(pixel, name)

    return factory


def _lpips(protocol: Protocol, device: torch.device, shared: dict[str, Any]) -> Instrument:
    return Lpips(backbone=protocol.lpips_backbone, device=device)


def _identity(protocol: Protocol, device: torch.device, shared: dict[str, Any]) -> Instrument:
    from ..faces.identity import Identity

    return Identity(device=device)


def _vgg(name: str) -> Factory:
    def factory(protocol: Protocol, device: torch.device, shared: dict[str, Any]) -> Instrument:
        if "vgg" not in shared:
            shared["vgg"] = VggDistance(device=device)
            shared["vgg"].features = _Remembering(shared["vgg"].features)
        return getattr(shared["vgg"], name)

    return factory


class _Remembering(nn.Module):
    """Feature maps with those of the last two batches: content and style ask for the same ones."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.last: list[tuple[Tensor, Any]] = []

    def forward(self, x: Tensor) -> Any:
        for batch, maps in self.last:
            if batch is x:
                return maps
        self.last = [*self.last[-1:], (x, self.features(x))]
        return self.last[-1][1]


def _features(protocol: Protocol, device: torch.device, shared: dict[str, Any]) -> Instrument:
    return InceptionFeatures(resize=protocol.fid_resize, device=device)


FACTORIES: dict[str, Factory] = {
    "mse": _pixel("mse"), "psnr": _pixel("psnr"), "ssim": _pixel("ssim"), "lpips": _lpips,
    "identity": _identity, "content": _vgg("content"), "style": _vgg("style"), "features": _features,
}  # fmt: skip
"""What builds each instrument, called once a measurement with (protocol, device, a dictionary for what they
share): for a metric of pairs (N,3,H,W), (N,3,H,W) -> (N,), for "features", which FID and KID want,
(N,3,H,W) -> (N,D). Tests and experiments put their own here."""


# ------------------------------------------------------------------------------------------------ measuring


def measure(
    a: Pictures,
    b: Pictures,
    protocol: Protocol = DEFAULT,
    *,
    device: str | torch.device = "auto",
    batch: int = 8,
    progress: bool = True,
) -> Measurement:
    """Measure the pictures B against the pictures A.

    A picture that cannot be read or measured has NaN in its row and stands in ``problems`` with the reason;
    so has one without a partner, and FID of one picture. Ctrl-C ends it early and keeps what was measured.

    Args:
        a: the references: a folder (its pictures by name; no subfolders), a file, a list of files, a tensor
            (N, 3, H, W) or a list of tensors (1, 3, H, W), RGB in [0, 1].
        b: what is measured against them. FID and KID use all its pictures, also those without a partner.
        protocol: what is measured and how.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        batch: pictures at a time; changes speed and memory, not the numbers (but in the seventh digit).
        progress: show a bar.

    Returns:
        A :class:`Measurement`; ``save`` writes it, ``summary`` and ``rows`` are tables.

    Raises:
        SettingError: a folder that is missing or without pictures, no pair at all, a wrong argument.
        AssetError: a network cannot be had; nothing has been measured then.
    """
    began = time.monotonic()
    device = resolve_device(device)
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise SettingError(f"batch is the number of pictures at a time, at least 1, not {batch!r}.")
    if not isinstance(protocol, Protocol):
        raise SettingError(f"protocol is a Protocol, not {protocol!r}: write Protocol(metrics=('ssim',)).")
    sources = (source_name(a, "A"), source_name(b, "B"))
    problems: list[Problem] = []
    plan = pair_up(list_pictures(a, "A"), list_pictures(b, "B"), protocol, sources, problems)
    run = _Run(protocol, device, problems)
    bar = tqdm(
        total=len(plan), desc="measured", unit="pair" if protocol.of_pairs else "", disable=not progress
    )
    try:
        with bar, torch.no_grad():
            for chunk in run.load(plan, batch):
                run.add(chunk)
                bar.update(len(chunk))
    except KeyboardInterrupt:
        if not run.began:
            raise
        run.interrupted = True
    summary = run.summary(sources)
    return Measurement(
        rows=pd.DataFrame(run.rows, columns=["picture", *protocol.of_pairs]),
        summary=summary, problems=problems, protocol=protocol, pictures=run.digest(0, 1),
        reference=run.digest(0), sources=sources, counts=(run.counts[0], run.counts[1]), notes=run.notes,
        interrupted=run.interrupted, seconds=time.monotonic() - began, device=str(device),
    )  # fmt: skip


class _Loaded(NamedTuple):
    """A pair of the plan; a picture that is not there or failed has no tensor."""

    pictures: tuple[Picture | None, Picture | None]
    tensors: tuple[Tensor | None, Tensor | None]


class _Run:
    """The instruments, and what they have shown so far."""

    def __init__(self, protocol: Protocol, device: torch.device, problems: list[Problem]) -> None:
        self.protocol, self.device, self.problems = protocol, device, problems
        names = [*protocol.of_pairs, *(["features"] if protocol.of_sets else [])]
        shared: dict[str, Any] = {}
        # All before the first picture: a network that cannot be had is told before minutes of work.
        self.instruments = {name: FACTORIES[name](protocol, device, shared) for name in names}
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.features: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.seen: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
        self.counts = [0, 0]
        self.interrupted = False

    @property
    def began(self) -> bool:
        return bool(self.seen[0] or self.seen[1])

    def load(
        self, plan: Sequence[tuple[Picture | None, Picture | None]], batch: int
    ) -> Iterator[list[_Loaded]]:
        """The pairs of the plan, a few at a time."""
        chunk: list[_Loaded] = []
        pixels = 0
        for pictures in plan:
            # One without a partner is only of use for sets; else it counts for the digests, unread.
            wanted = bool(self.protocol.of_sets) or None not in pictures
            tensors = (self._read(pictures[0]), self._read(pictures[1])) if wanted else (None, None)
            pixels += sum(t.shape[-1] * t.shape[-2] for t in tensors if t is not None)
            chunk.append(_Loaded(pictures, tensors))
            if len(chunk) == batch or pixels >= 2 * batch * BATCH_PIXELS:
                yield chunk
                chunk, pixels = [], 0
        if chunk:
            yield chunk

    def _read(self, picture: Picture | None) -> Tensor | None:
        if picture is None:
            return None
        try:
            return picture.load(self.protocol)
        except Exception as error:  # decoders raise nearly everything, and one picture must not end it all
            self.problems.append(Problem(picture.label, _told(error)))
            return None

    def add(self, chunk: list[_Loaded]) -> None:
        """Measure a few pairs; all of them or, if Ctrl-C comes, none."""
        rows = self._pairs(chunk) if self.protocol.of_pairs else []
        features: list[list[Tensor]] = [[], []]
        digests: list[list[tuple[str, str]]] = [[], []]
        read = [0, 0]
        for side in (0, 1):
            there = [(x.pictures[side], x.tensors[side]) for x in chunk]
            digests[side] = [(p.name, p.digest()) for p, _ in there if p is not None]
            loaded = [(p.label, t) for p, t in there if p is not None and t is not None]
            read[side] = len(loaded)
            if not self.protocol.of_sets:
                continue
            for _, same in itertools.groupby(loaded, key=lambda item: item[1].shape):
                labels, tensors = zip(*same, strict=True)
                values = self._try("features", "The Inception network", labels, torch.cat(tensors))
                features[side] += [value for value in values if value is not None]
            read[side] = len(features[side])
        self.rows += rows
        for side in (0, 1):
            self.features[side].extend(features[side])
            self.seen[side].extend(digests[side])
            self.counts[side] += read[side]

    def _pairs(self, chunk: list[_Loaded]) -> list[dict[str, Any]]:
        """A row for each pair, with the metrics of pairs or NaN."""
        rows: list[dict[str, Any]] = []
        loaded: list[tuple[dict[str, Any], str, Tensor, Tensor]] = []
        for (first, second), (a, b) in chunk:
            if first is None or second is None:
                continue
            rows.append({"picture": first.name, **dict.fromkeys(self.protocol.of_pairs, math.nan)})
            if a is not None and b is not None:
                loaded.append((rows[-1], second.label, a, b))
        for _, same in itertools.groupby(loaded, key=lambda item: (item[2].shape, item[3].shape)):
            of_rows, labels, of_a, of_b = zip(*same, strict=True)
            # Moved once for all metrics; two that share a network know the batch again by identity.
            batch_a, batch_b = torch.cat(of_a).to(self.device), torch.cat(of_b).to(self.device)
            for name in self._applicable(labels, batch_a, batch_b):
                values = self._try(name, METRICS[name].title, labels, batch_a, batch_b)
                for row, value in zip(of_rows, values, strict=True):
                    if value is not None:
                        row[name] = value.item()
        return rows

    def _applicable(self, labels: Sequence[str], a: Tensor, b: Tensor) -> list[str]:
        """The metrics that these sizes allow; the others are told once for each picture."""
        if a.shape == b.shape:
            return list(self.protocol.of_pairs)
        refused = [name for name in self.protocol.of_pairs if METRICS[name].equal_sizes]
        titles = ", ".join(METRICS[name].title for name in refused)
        for label in labels if refused else ():
            self.problems.append(Problem(label, (
                f"'{label}' has {b.shape[-1]} × {b.shape[-2]} pixels and its partner {a.shape[-1]} × "
                f"{a.shape[-2]}, which {titles} cannot compare: let the protocol crop and resize them."
            )))  # fmt: skip
        return [name for name in self.protocol.of_pairs if name not in refused]

    def _try(self, name: str, title: str, labels: Sequence[str], *batches: Tensor) -> list[Tensor | None]:
        """What an instrument reads of a batch; where that fails, of each alone, so that one fails alone."""
        if name not in self.instruments:
            return [None] * len(labels)
        try:
            values = self.instruments[name](*(x.to(self.device) for x in batches)).detach().cpu().double()
            if len(values) != len(labels):
                raise ValueError(f"it gave {len(values)} values")
        except AssetError as error:  # a network that is loaded at its first use: no picture's fault
            self.problems.append(Problem(name, f"{title} is left out: {error}"))
            del self.instruments[name]
            return [None] * len(labels)
        except (
            Exception
        ) as error:  # also out of memory; whatever it is, the other pictures have their numbers
            if len(labels) == 1:
                self.problems.append(Problem(labels[0], f"{title} failed on '{labels[0]}': {_told(error)}"))
                return [None]
        else:
            bad = values.reshape(len(labels), -1).isnan().any(1).tolist()
            for label in itertools.compress(labels, bad):
                self.problems.append(
                    Problem(label, f"{title} of '{label}' is not a number: look at the picture.")
                )
            return [None if wrong else value for value, wrong in zip(values, bad, strict=True)]
        singles = ([x[i : i + 1] for x in batches] for i in range(len(labels)))
        return [
            self._try(name, title, [label], *single)[0] for label, single in zip(labels, singles, strict=True)
        ]

    # --------------------------------------------------------------------------------------- summing up

    def digest(self, *sides: int) -> str:
        """12 hex digits over names and contents of the pictures of these sides, as far as they came."""
        lists: list[list[tuple[str, str]]] = [list(self.seen[side]) for side in sides]
        if self.protocol.pairs != "order":  # then the order in which they came means nothing
            lists = [sorted(each) for each in lists]
        return digest(lists)

    def summary(self, sources: tuple[str, str]) -> pd.DataFrame:
        """The table of means and distances; Ctrl-C leaves out what is not computed yet."""
        lines = []
        for name in self.protocol.metrics:  # means first, which take no time
            of_sets = METRICS[name].of_sets
            values = [] if of_sets else [row[name] for row in self.rows if not math.isnan(row[name])]
            value, low, high = self._distance(name, sources) if of_sets else self._mean(values)
            n = min(map(len, self.features)) if of_sets else len(values)
            better = METRICS[name].better
            lines.append({"metric": name, "value": value, "low": low, "high": high, "n": n, "better": better})
        return pd.DataFrame(lines)

    def _mean(self, values: list[float]) -> tuple[float, float, float]:
        p = self.protocol
        if not values:
            return math.nan, math.nan, math.nan
        try:
            return mean_interval(
                torch.tensor(values, dtype=torch.float64), count=p.bootstrap, seed=p.seed, level=p.level
            )
        except KeyboardInterrupt:
            self.interrupted = True
            return math.fsum(values) / len(values), math.nan, math.nan

    def _distance(self, name: str, sources: tuple[str, str]) -> tuple[float, float, float]:
        """FID or KID of the two sets with its interval; of too few pictures NaN and a problem."""
        p = self.protocol
        value, low, high = math.nan, math.nan, math.nan
        if "features" not in self.instruments:  # which its own problem tells
            return value, low, high
        smaller = sources[0] if len(self.features[0]) < len(self.features[1]) else sources[1]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FidBiasWarning)
            try:
                both = [torch.stack(side) if side else torch.empty(0, 1) for side in self.features]
                value = DISTANCES[name](*both)
                _, low, high = bootstrap(
                    DISTANCES[name], *both, count=p.set_bootstrap, seed=p.seed, level=p.level
                )
            except NstError as error:
                title = METRICS[name].title
                self.problems.append(Problem(smaller, f"{title} of '{smaller}' is not measured: {error}"))
            except KeyboardInterrupt:  # intervals of large sets take minutes; the value is kept
                self.interrupted = True
        # A table is a better place for them than a terminal that has scrolled on.
        self.notes += [
            text for text in dict.fromkeys(str(w.message) for w in caught) if text not in self.notes
        ]
        return value, low, high


def _told(error: Exception) -> str:
    """An error's sentence; of one that is not ours, its kind and first line."""
    if isinstance(error, NstError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[0].rstrip('.') if lines else ''}; try this picture alone."
