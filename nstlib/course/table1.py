"""Paper E's Table 1, recomputed: every method on the same faces and styles, measured by one protocol.

A row is a method, a cell is a row in one style set. Each row runs in a process of its own: its peak memory is
its own, and a crash costs this row only. Everything lies in one folder, and nothing is done twice:

    faces/0000.png ...              photographs that the course carries, then generated faces
    styles/ink/0000.png ...         the artworks of a set
    pictures/ink/adain/0000.png ... what was painted; each file holds its key
    cells/adain_ink.json            what was measured, and what it was made from
    table1.csv, .md, .json          the table, and its manifest
    ranks.csv, sheet_ink.jpg        the methods' order, and all of their pictures in one grid

A key is a digest of all that decides a result: pictures, weights, settings, protocol, the library's version.

    >>> table = run("table1", PRESETS["quick"])                        # doctest: +SKIP
    >>> table.query("style == 'ink' and metric == 'ssim'")             # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from pooch import file_hash
from safetensors.torch import load_file, save_file
from scipy.stats import kendalltau
from torch import Tensor
from tqdm import tqdm

from .. import __version__, assets
from ..assets.writing import atomic, reason, write_atomic
from ..errors import Count, CourseError, ImageError, NstError, Seed, known, settings
from ..errors import Settings as Base
from ..faces.align import align_portrait
from ..faces.generated import cached, listed
from ..faces.style_sets import load_style_set
from ..losses import gram_matrix
from ..methods import METHODS
from ..methods.base import WEIGHTS
from ..metrics import FidBiasWarning, InceptionFeatures, Protocol, bootstrap, fid, kid
from ..metrics.measure import measure
from ..metrics.perceptual import STYLE_LAYERS
from ..metrics.protocol import digest
from ..metrics.table import markdown, show
from ..nets.features import FeatureExtractor
from ..nets.hardware import keep_freed_memory
from ..pictures.files import list_pictures, load_image, read_settings, resize, save_image
from . import plots
from .manifest import peak_mib, read_json, versions, write_json

PORTRAITS = ("obama.jpg", "collins_face.jpg", "biden.jpg", "einstein.jpg", "curie.jpg")  # of data/portraits
USED_ARTWORKS = 16  # of a set are styles, number i of face i: so many DualStyleGAN has learned
FACES_SEED = 7  # of the generated faces: no network was trained on this seed's

SETS_OF_E = ("Cartoon", "Fantasy", "Illustration", "Impasto")
METRICS_OF_E = ("ssim", "lpips", "fid")
PAPER: dict[str, np.ndarray] = {  # paper E, Table 1: style set, then SSIM, LPIPS, FID
    name: np.array(numbers).reshape(4, 3)
    for name, numbers in {
        "u2_local": (.708, .331, 149.923, .708, .346, 149.605, .717, .542, 141.779, .757, .452, 112.086),
        "cyclegan": (.646, .411, 211.157, .607, .370, 177.225, .567, .582, 178.354, .599, .628, 157.179),
        "stytr2": (.522, .493, 174.257, .579, .558, 171.506, .522, .493, 174.257, .579, .558, 171.506),
        "puffnet": (.551, .564, 187.577, .601, .585, 179.294, .649, .576, 188.263, .575, .592, 161.175),
        "jojogan": (.590, .767, 167.375, .631, .638, 176.129, .649, .560, 258.653, .750, .663, 169.985),
        "dualstylegan": (.587, .408, 177.221, .624, .661, 168.441, .638, .656, 177.020, .676, .661, 146.037),
        "portrait_drawing": (.562, .468, 203.195, .583, .589, 155.117, .573, .624, 169.065, .512, .585,
                             205.168),
    }.items()
}  # fmt: skip

METRICS = {  # column: (heading, which way is better)
    "ssim": ("SSIM", "higher"), "psnr": ("PSNR (dB)", "higher"), "lpips": ("LPIPS", "lower"),
    "identity": ("identity", "higher"), "style": ("style distance", "lower"), "fid": ("FID", "lower"),
    "kid": ("KID", "lower"),
}  # fmt: skip
COSTS = {"seconds": "s a picture", "peak_mib": "peak MiB", "training_minutes": "min of training"}

# Of Gatys' method: plenty of style, and no other network that looks after the face.
GATYS = {"style_weight": 30.0, "keep_face": 0.0}
TITLES = {"dualstylegan": "DualStyleGAN", "u2_local": "Paper E (U²-Net)", "puffnet": "Puff-Net",
          "portrait_drawing": "Portrait drawing"}  # fmt: skip
NO_METHODS = ("photograph", "artwork")  # what does nothing, and what does too much
COLUMNS = ["row", "title", "style", "metric", "value", "low", "high", "n", "paper", "note"]


@settings
class Settings(Base):
    """What is compared."""

    sets: tuple[str, ...] = ("ink", "oil", "sketch", "fantasy_portraits")  # those the course carries
    faces: Count = 6
    folder: str | None = None  # of your own photographs instead of the course's faces
    size: Count = 256
    iterations: Count = 16  # of Gatys' method at the last size
    artworks: Count = 64  # of a set, which FID, KID and the style distance are measured to
    steps: Count = 60  # of JoJoGAN, which is trained here for each set
    seed: Seed = 0
    device: str = "auto"


PRESETS = {
    "smoke": Settings(sets=("ink",), faces=2, size=64, iterations=1, artworks=4, steps=1),
    "quick": Settings(),
    # E's photographs: the first 1000 of FFHQ (folder=...). Its sets are fetched.
    "paper": Settings(
        sets=("ink", "oil", "sketch", "fantasy_portraits", "cartoon", "fantasy", "illustration", "impasto"),
        faces=1000, size=512, iterations=100, artworks=317, steps=300,
    ),
}  # fmt: skip


class Row(NamedTuple):
    """One line of the table: a method's name in METHODS (None: no method) and its options."""

    title: str
    method: str | None
    options: Mapping[str, Any] = {}


def rows(s: Settings) -> dict[str, Row]:
    """All lines by name: two that are no methods, Gatys' with both networks, and every other method."""
    found = {"photograph": Row("the photograph", None), "artwork": Row("the artwork", None)}
    for name, method in METHODS.items():
        if name == "gatys":
            for network in ("vgg16", "vgg19"):
                options = GATYS | {"network": network, "iterations": s.iterations}
                found[f"gatys_{network}"] = Row(f"Gatys, {network.upper()}", name, options)
        else:
            options = {"iterations": s.steps} if name == "jojogan" else {}
            found[name] = Row(TITLES.get(name, method.__name__), name, options)
    return found


def run(
    out: str | os.PathLike[str], s: Settings, *, only: Sequence[str] = (), workers: int = 0,
    scheduler: str | None = None, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Paint and measure what is missing, and write the table.

    Args:
        out: the folder; the same call goes on there.
        s: what is compared.
        only: names of :func:`rows`; empty: all.
        workers: processes that share the rows out through Dask, each with one thread, so that their number
            changes no picture; 0: one row after the other, with all threads.
        scheduler: address of a Dask scheduler whose workers see the same folder.
        progress: show a progress bar.

    Returns:
        A line for each cell and metric: row, title, style, metric, value, low, high, n, paper. What is
        missing or failed has metric "missing" or "failed", and the reason in ``note``.

    Raises:
        SettingError: an unknown row or style set.
        CourseError: Dask is wanted and not installed.
    """
    out, all_rows = Path(out).resolve(), rows(s)
    for name in only:
        known("row", name, all_rows)
    _prepare(out, s)
    names = [name for name in all_rows if not only or name in only]
    todo = [name for name in names if not all(_done(out, s, name, kind) for kind in s.sets)]
    by_dask = todo and (workers or scheduler)
    finished = _by_dask(out, todo, workers, scheduler) if by_dask else map(partial(_job, out), todo)
    for _ in tqdm(finished, total=len(todo), desc="rows", disable=not progress):
        pass
    return _write(out, s, names)


# ---------------------------------------------------------------------------------------- faces and artworks


def _prepare(out: Path, s: Settings) -> None:
    """Write the faces, the artworks and the settings, if they are not there yet."""
    if read_json(out / "settings.json") == json.loads(json.dumps(asdict(s))):
        return
    for number, picture in enumerate(_portraits(s)):
        save_image(picture, out / "faces" / f"{number:04d}.png")
    for kind in s.sets:
        for number, picture in enumerate(load_style_set(kind, s.size).pictures[: s.artworks].split(1)):
            save_image(picture, out / "styles" / kind / f"{number:04d}.png")
    write_json(out / "settings.json", asdict(s))


def _portraits(s: Settings) -> Iterator[Tensor]:
    """(1, 3, size, size) each, framed like FFHQ."""
    files = [assets.data_path(f"portraits/{name}") for name in PORTRAITS]
    if s.folder is not None:
        files = list_pictures(s.folder)
        if len(files) < s.faces:
            raise ImageError(f"'{s.folder}' has {len(files)} pictures: ask for so many faces, or add some.")
    for file in files[: s.faces]:
        yield align_portrait(load_image(file), s.size).picture
    drawn = max(0, s.faces - len(files))
    for file in listed(cached(drawn, s.size, FACES_SEED, device=s.device, progress=False), drawn)[0]:
        yield load_image(file)


def _files(out: Path, s: Settings, kind: str) -> tuple[list[Path], list[Path]]:
    """The faces, and the artworks of a set."""
    faces, artworks = out / "faces", out / "styles" / kind
    return sorted(faces.glob("*.png"))[: s.faces], sorted(artworks.glob("*.png"))[: s.artworks]


# ------------------------------------------------------------------------------------------------ the plan


class Job(NamedTuple):
    """A picture to be painted: the words of ``nst stylize FACE WORDS``, and the key of the result."""

    face: Path
    artwork: Path
    words: list[str]
    file: Path
    key: str


def _plan(out: Path, s: Settings, name: str, kind: str) -> list[Job]:
    """The pictures of a cell; none if no network has learned the set."""
    row, (faces, artworks) = rows(s)[name], _files(out, s, kind)
    jobs = []
    for number, face in enumerate(faces):
        which = number % min(len(artworks), USED_ARTWORKS)
        words = _words(out, s, row, kind, artworks[which], which)
        if row.method and not words:
            return []
        inputs = [_sha256(face), _sha256(artworks[which]), *(_fingerprint(row, word) for word in words)]
        key = digest([__version__, name, dict(row.options), s.size, s.seed, inputs])
        jobs.append(Job(face, artworks[which], words, out / "pictures" / kind / name / face.name, key))
    return jobs


def _words(out: Path, s: Settings, row: Row, kind: str, artwork: Path, number: int) -> list[str]:
    if row.method is None:
        return []
    own = _weights(out, s, row, kind)
    if row.method == "jojogan":
        return [str(own)]
    return METHODS[row.method].words(str(own) if own.exists() else kind, str(artwork), number)


def _weights(out: Path, s: Settings, row: Row, kind: str) -> Path:
    """Where a network of one's own is looked for, and JoJoGAN's is written."""
    trained = f"_{s.steps}" if row.method == "jojogan" else ""
    return out / "weights" / f"{row.method}_{kind}{trained}.safetensors"


def _fingerprint(row: Row, word: str) -> str:
    """A word of the command: of a file its digest, of a carried network its weights'."""
    if Path(word).exists():
        return _sha256(Path(word))
    name, _, number = word.partition(":")
    carried = row.method and name in METHODS[row.method].shipped
    return _sha256(assets.data_path(f"weights/{row.method}_{name}.safetensors")) + number if carried else word


_sha256 = cache(file_hash)


def _cell_key(out: Path, s: Settings, kind: str, jobs: Sequence[Job]) -> str:
    artworks = [_sha256(file) for file in _files(out, s, kind)[1]]
    return digest([_protocol(s).to_dict(), artworks, [job.key for job in jobs]])


def _cell(out: Path, name: str, kind: str) -> Path:
    return out / "cells" / f"{name}_{kind}.json"


def _done(out: Path, s: Settings, name: str, kind: str) -> bool:
    cell = read_json(_cell(out, name, kind))
    try:
        return cell.get("key") == _cell_key(out, s, kind, _plan(out, s, name, kind))  # a failed one has none
    except NstError:  # its weights are not there: to be told in its cell
        return False


# ------------------------------------------------------------------------------------------------ one row


def _job(out: Path, name: str, threads: int = 0) -> None:
    """A row in a process of its own; that this one has died is written into its cells."""
    code = f"from nstlib.course.table1 import do_row; do_row({str(out)!r}, {name!r})"
    env = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    status = subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode
    if status:  # what had failed before is done anew, and so has no cell now
        for kind in Settings(**read_json(out / "settings.json")).sets:
            if not _cell(out, name, kind).exists():
                _fail(out, name, kind, f"its process ended with status {status}")


def _fail(out: Path, name: str, kind: str, why: str) -> None:
    write_json(_cell(out, name, kind), {"row": name, "style": kind, "failed": why})


def _by_dask(out: Path, names: Sequence[str], workers: int, scheduler: str | None) -> Iterator[Any]:
    """Share the rows out. Those of a lost worker are done by another, from the pictures there are."""
    try:
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise CourseError("Several workers need Dask: pip install 'nstlib[scale]'.") from None
    own = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with nullcontext(scheduler) if scheduler else LocalCluster(**own) as where, Client(where) as client:
        for job in as_completed([client.submit(_job, out, name, 1, pure=False) for name in names]):
            yield job.result()


def do_row(out: str | os.PathLike[str], name: str) -> None:
    """Paint and measure what is missing of one row; what fails is written into its cell."""
    keep_freed_memory()
    warnings.simplefilter("ignore", FidBiasWarning)  # all rows have it alike
    out = Path(out)
    s = Settings(**read_json(out / "settings.json"))
    cells: dict[str, dict[str, Any]] = {}
    for kind in s.sets:
        if _done(out, s, name, kind):
            continue
        _cell(out, name, kind).unlink(missing_ok=True)
        try:
            cells[kind] = _painted(out, s, name, kind)
        except Exception as error:  # whatever it is, the other sets and rows go on
            _fail(out, name, kind, reason(error))
    for kind, cell in cells.items():
        if cell["pictures"]:
            cell |= {"values": _measured(out, s, kind, cell["pictures"])}
        write_json(_cell(out, name, kind), {"row": name, "style": kind, "assets": assets.USED, **cell})


def _painted(out: Path, s: Settings, name: str, kind: str) -> dict[str, Any]:
    """A cell with its pictures; those that are there already are kept."""
    row = rows(s)[name]
    own = _weights(out, s, row, kind)
    if row.method == "jojogan" and not own.exists():  # it learns in minutes, from one artwork
        jojogan, _ = _opened(row.method, (str(_files(out, s, kind)[1][0]),), (("iterations", s.steps),), s)
        jojogan.save(own, style=kind)
    jobs, pictures = _plan(out, s, name, kind), []
    for job in jobs:
        about = _about(job)
        if not about:
            content = load_image(job.face)
            method, style = None, load_image(job.artwork)
            if row.method is not None:
                method, style = _opened(row.method, tuple(job.words), tuple(row.options.items()), s)
            began = time.perf_counter()
            quiet = {"progress": False} if row.method == "gatys" else {}
            made = style if name == "artwork" else content
            if method:
                made = method.stylize(content, style, **quiet)
            seconds, learned = time.perf_counter() - began, method.about.get("seconds") if method else None
            peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_mib()
            about = {
                "key": job.key, "seconds": round(seconds, 3),
                "training_minutes": None if learned is None else round(learned / 60, 1),
                "peak_mib": round(peak),  # of painting: the metrics' networks come afterwards
            }  # fmt: skip
            save_image(made, job.file, settings=about)
        options = [f"--{key.replace('_', '-')} {value}" for key, value in row.options.items()]
        words = [str(job.face), *job.words, f"--method {row.method}", *options]
        command = " ".join(["nst stylize", *words]) if row.method else ""
        inputs = {"face": _sha256(job.face), "artwork": _sha256(job.artwork), "picture": file_hash(job.file)}
        weights = {Path(word).name: _sha256(Path(word)) for word in job.words if Path(word).suffix in WEIGHTS}
        pictures.append({"file": str(job.file), "command": command, **about, **inputs, **weights})
    missing = "" if jobs else f"no network has learned it: train one (nst train {row.method} -h) as {own}"
    return {"key": _cell_key(out, s, kind, jobs), "pictures": pictures, "missing": missing}


def _about(job: Job) -> dict[str, Any]:
    """What a picture's file says of itself, if it is the one that is wanted."""
    try:
        found = read_settings(job.file) or {}
    except ImageError:
        return {}
    return found if found.get("key") == job.key else {}


@lru_cache(maxsize=1)
def _opened(method: str, words: tuple[str, ...], options: tuple[tuple[str, Any], ...], s: Settings) -> Any:
    return METHODS[method].open(
        list(words), dict(options), size=s.size, progress=False, device=s.device, seed=s.seed
    )


# ------------------------------------------------------------------------------------------------ measuring


def _protocol(s: Settings) -> Protocol:
    names = ("psnr", "ssim", "lpips", "identity", "fid", "kid")
    return Protocol(metrics=names, resolution=s.size, pairs="order", seed=s.seed)


def _measured(
    out: Path, s: Settings, kind: str, pictures: list[dict[str, Any]]
) -> dict[str, tuple[float, float, float, int]]:
    """Metric -> value, ends of its interval, number of pictures; each picture gets its own numbers."""
    p, (faces, _) = _protocol(s), _files(out, s, kind)
    files = [Path(one["file"]) for one in pictures]
    found = measure(list(faces), list(files), p.changed(metrics=p.of_pairs), device=s.device, progress=False)
    values = {r.metric: (r.value, r.low, r.high, r.n) for r in found.summary.itertuples()}
    looks, wanted = _looks(files, s), _artworks_looks(out, s, kind)
    each = found.rows.drop(columns="picture")
    # Share of a layer's mean Gram matrix that a picture misses; the mean over layers.
    missed = [
        (looks[n] - wanted[n].mean(0)).square().sum((1, 2)) / wanted[n].mean(0).square().sum()
        for n in STYLE_LAYERS
    ]
    each["style"] = style = torch.stack(missed).mean(0).numpy()
    of_sets: Any = {"count": p.set_bootstrap, "seed": p.seed, "level": p.level}
    ends = bootstrap(torch.mean, torch.tensor(style), count=p.bootstrap, seed=p.seed, level=p.level)
    values["style"] = (*ends, len(files))
    sets = (wanted["inception"], looks["inception"])
    values |= {k: (*bootstrap(f, *sets, **of_sets), len(files)) for k, f in (("fid", fid), ("kid", kid))}
    for one, numbers in zip(pictures, each.to_dict("records"), strict=True):
        one |= numbers
    return values


def _looks(files: Sequence[Path], s: Settings) -> dict[str, Tensor]:
    """Inception's features (N, 2048), and the Gram matrices of VGG-19 by layer, (N, C, C)."""
    inception, vgg = _networks(s.device)
    found: dict[str, list[Tensor]] = {}
    for file in files:
        picture = resize(load_image(file), (s.size, s.size), allow_upscale=True)
        grams = {name: gram_matrix(f).cpu() for name, f in vgg(picture).items()}
        for key, value in (grams | {"inception": inception(picture)}).items():
            found.setdefault(key, []).append(value)
    return {key: torch.cat(parts) for key, parts in found.items()}


@cache
def _networks(device: str) -> tuple[InceptionFeatures, FeatureExtractor]:
    vgg = FeatureExtractor("vgg19", STYLE_LAYERS, precision="float32", device=device)
    return InceptionFeatures(device=device), vgg


def _artworks_looks(out: Path, s: Settings, kind: str) -> dict[str, Tensor]:
    """Those of a set's artworks, kept beside them: all rows need them."""
    files = _files(out, s, kind)[1]
    kept = out / "styles" / f"{kind}_{digest([s.size, *map(_sha256, files)])}.safetensors"
    if not kept.exists():
        looks = _looks(files, s)
        with atomic(kept) as part:
            save_file({k: v if k == "inception" else v.mean(0, keepdim=True) for k, v in looks.items()}, part)
    return load_file(kept)


# ------------------------------------------------------------------------------------------------ the table


def _write(out: Path, s: Settings, names: Sequence[str]) -> pd.DataFrame:
    """The table of all cells, written as CSV, as Markdown and, with its manifest, as JSON."""
    cells = [read_json(_cell(out, name, kind)) for kind in s.sets for name in names]
    lines = [line for cell in cells if cell for line in _lines(cell, s)]
    table = pd.DataFrame(lines, columns=COLUMNS)
    write_atomic(out / "table1.csv", table.to_csv(index=False, lineterminator="\n").encode())
    p = _protocol(s)
    write_atomic(out / "table1.md", to_markdown(table, p.hash).encode())
    manifest = {
        "settings": asdict(s), "protocol": p.to_dict(), "hash": p.hash, "versions": versions(),
        "cells": cells,
    }  # fmt: skip
    # JSON knows no infinity, which a photograph's PSNR to itself is.
    write_json(out / "table1.json", json.loads(json.dumps(manifest), parse_constant=str))
    order = ranks([cell for cell in cells if cell])
    write_atomic(out / "ranks.csv", order.to_csv(index=False, lineterminator="\n").encode())
    for style in s.sets:
        figure = sheet(out, style)
        with atomic(out / f"sheet_{style}.jpg") as part:
            figure.savefig(part, format="jpg", dpi=150, bbox_inches="tight")
        plt.close(figure)
    return table


def _lines(cell: Mapping[str, Any], s: Settings) -> Iterator[dict[str, Any]]:
    first = {"row": cell["row"], "title": rows(s)[cell["row"]].title, "style": cell["style"]}
    for problem in ("failed", "missing"):
        if cell.get(problem):
            yield first | {"metric": problem, "note": cell[problem]}
    for metric, (value, low, high, n) in cell.get("values", {}).items():
        ends = {"value": value, "low": low, "high": high, "n": n}
        yield first | ends | {"metric": metric, "paper": of_paper(cell["row"], metric, cell["style"])}
    if pictures := cell.get("pictures"):
        for metric in COSTS:
            of_all = [one[metric] for one in pictures if one.get(metric) is not None]
            if of_all:
                yield first | {"metric": metric, "value": float(np.median(of_all)), "n": len(of_all)}


def of_paper(row: str, metric: str, style: str) -> float | None:
    """What paper E prints: for its own sets the set's number, for others the mean over its four."""
    if row not in PAPER or metric not in METRICS_OF_E:
        return None
    numbers = PAPER[row][:, METRICS_OF_E.index(metric)]
    return float(dict(zip(SETS_OF_E, numbers, strict=True)).get(style.title(), numbers.mean()))


def ranks(cells: Sequence[Mapping[str, Any]], draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The methods' ranks in each style set, and how far they agree with paper E's.

    Args:
        cells: of the manifest, ``table1.json``.
        draws: resamples of the faces for the intervals (95 %).
        seed: of these.

    Returns:
        style, metric, row, rank (1 is best), low, high. The row "tau" has, instead of a rank, Kendall's tau
        between our order and the one of the paper's means, over the methods of both. FID and KID are of a
        whole set: no face can be left out, and so they have no interval.
    """
    random, lines = np.random.default_rng(seed), []
    for style in dict.fromkeys(cell["style"] for cell in cells):
        found = {c["row"]: c for c in cells if c["style"] == style and c["row"] not in NO_METHODS}
        found = {name: cell for name, cell in found.items() if cell.get("values")}
        for metric, (_, better) in METRICS.items() if len(found) > 1 else ():
            of_set = metric in ("fid", "kid")
            each = np.array([
                [cell["values"][metric][0]] if of_set else [one[metric] for one in cell["pictures"]]
                for cell in found.values()
            ], dtype=float)  # fmt: skip
            sign = -1 if better == "higher" else 1
            picks = [np.arange(each.shape[1]), *random.integers(each.shape[1], size=(draws, each.shape[1]))]
            means = [pd.Series(sign * np.nanmean(each[:, pick], 1), list(found)) for pick in picks]
            orders = pd.DataFrame([mean.rank() for mean in means])
            both = [name for name in found if name in PAPER]
            if metric in METRICS_OF_E and len(both) > 2:
                paper = [sign * (of_paper(name, metric, style) or 0.0) for name in both]
                orders["tau"] = [kendalltau(mean[both], paper).statistic for mean in means]
            for name, values in orders.items():
                ends = (math.nan, math.nan) if of_set else values[1:].quantile([0.025, 0.975])
                lines.append((style, metric, name, values[0], *ends))
    return pd.DataFrame(lines, columns=["style", "metric", "row", "rank", "low", "high"])


def sheet(out: str | os.PathLike[str], style: str, count: int = 6) -> Figure:
    """All methods in one grid, on the same faces: paper E's Figure 9. Artworks stand in the second line."""
    out = Path(out)
    s = Settings(**read_json(out / "settings.json"))
    images: list[Tensor] = []
    labels = []
    faces = _files(out, s, style)[0][:count]
    for name, row in rows(s).items():
        files = [out / "pictures" / style / name / face.name for face in faces]
        if all(file.exists() for file in files):
            images += map(load_image, files)
            labels.append(row.title)
    return plots.pictures(images, columns=len(faces), width=2.0, row_labels=labels)


def to_markdown(table: pd.DataFrame, protocol: str) -> str:
    """A table for each style set: value ± half its interval, and in parentheses what paper E prints."""
    parts = ["# Table 1"]
    for style, cells in table[table["metric"] != "missing"].groupby("style", sort=False):
        lines = []
        for title, of_row in cells.groupby("title", sort=False):
            found = of_row.set_index("metric")
            lines.append([str(title), *(_shown(found, metric) for metric in (*METRICS, *COSTS))])
        heads = ["method", *(f"{h} {'↑' if b == 'higher' else '↓'}" for h, b in METRICS.values())]
        parts += [f"## {style}", markdown([*heads, *COSTS.values()], [":--"] + ["--:"] * 10, lines)]
    notes = table[table["note"].notna()]
    said = "\n".join(f"- {row.title}, {row.style}: {row.metric}: {row.note}" for row in notes.itertuples())
    return "\n\n".join([*parts, said, f"In parentheses: paper E's number. Protocol `{protocol}`."]) + "\n"


def _shown(found: pd.DataFrame, metric: str) -> str:
    if metric not in found.index:
        return "failed" if "failed" in found.index else "–"
    value, low, high, paper = found.loc[metric, ["value", "low", "high", "paper"]].astype(float)
    cost = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    text = show(value, low, high)[0] if metric in METRICS else cost
    return text if math.isnan(paper) else f"{text} ({paper:.3g})"
