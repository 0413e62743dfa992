"""Paper E's method in numbers: style inside the regions, nothing outside, and the memory of a training step.

    python benchmarks/u2_local.py [--faces 20] [--sizes 256 512]

The faces are generated ones that no training has seen (seed 1), each with the next artwork of the set. The
local style loss is E (9) with (10), over the regions that are painted. Outside stands the largest difference
to the histogram-matched photograph where the soft borders have ended. Memory is the peak of one training step
without regions: on a processor that of the process, on a GPU that of CUDA's tensors. The result is written
to u2_local.md beside this file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from nstlib.course.manifest import processor
from nstlib.faces import generated, parse
from nstlib.faces.style_sets import load_style_set
from nstlib.methods.u2_local import Settings, U2Local, local_style_loss
from nstlib.nets.features import FeatureExtractor
from nstlib.pictures.color import match_histogram
from nstlib.pictures.files import load_image
from nstlib.training import Schedule, train

HERE = Path(__file__).resolve().parent
REGIONS = {"whole": parse.REGIONS, "hair": ("hair",), "eyes and lips": ("eye", "lip"), "face": ("face",)}


def styles(count: int) -> pd.DataFrame:
    """A row for each style and choice of regions: loss of the photograph, of the result, and the factor."""
    layers, rows = Settings().style_layers, []
    paths = generated.listed(generated.cached(count, 256, seed=1), count)[0]
    for name in U2Local.shipped:
        method, artworks = U2Local.load(name), load_style_set(name, 256).pictures.split(1)
        vgg = FeatureExtractor("vgg19", layers, device=method.device, precision=method.precision)
        for number, path in enumerate(paths):
            photo, artwork = load_image(path), artworks[number % len(artworks)]
            pair = (photo, artwork)
            masks, theirs = (parse.region_masks(x, softness=4, parser=method.parser) for x in pair)
            matched = match_histogram(photo, artwork)
            for chosen, regions in REGIONS.items():
                asked = () if chosen == "whole" else regions
                made = method.stylize(photo, artwork, regions=asked)
                inside = torch.cat([masks[r] for r in regions], 1)
                there = torch.cat([theirs[r] for r in regions], 1)
                with torch.no_grad():
                    found = [[vgg(x)[layer] for layer in layers] for x in (photo, made, artwork)]
                before, after = (local_style_loss(x, found[2], inside, there).item() for x in found[:2])
                away = inside.sum(1, keepdim=True) == 0
                outside = ((made - matched).abs() * away).max().item() if asked else float("nan")
                rows.append({"style": name, "regions": chosen, "photograph": before, "result": after,
                             "outside": outside})  # fmt: skip
    table = pd.DataFrame(rows)
    table["lower in"] = table["result"] < table["photograph"]
    grouped = table.groupby(["style", "regions"], sort=False)
    found = grouped.agg({"photograph": "mean", "result": "mean", "lower in": "sum", "outside": "max"})
    found.insert(2, "factor", found["photograph"] / found["result"])
    return found.reset_index()


def memory(size: int, batch: int, checkpointing: bool) -> float:
    """Gigabytes that a training step of the preset `paper` needs at its peak, besides what stands before."""
    method = U2Local(Settings(size=size, checkpointing=checkpointing, local=False))
    pictures = torch.rand(batch, 3, size, size)
    schedule = Schedule(steps=1, batch=batch)
    task = method.task(pictures, pictures, schedule)
    before = resident()
    train(task, schedule, progress=False, device=method.device)
    if method.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resident() - before


def resident() -> float:
    """The most memory that this process has had so far, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def measured(*what: int) -> float:
    """:func:`memory` in a process of its own, as a peak never goes down again."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory, *what).result()


def markdown(table: pd.DataFrame, digits: int) -> str:
    """The table's rows between bars."""
    rows = [
        ["" if v != v else f"{v:.{digits}f}" if isinstance(v, float) else str(v) for v in row]
        for row in table.to_numpy()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(table), ["---"] * len(table.columns), *rows])


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description="Paper E's method in numbers.")
    parser.add_argument("--faces", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    args = parser.parse_args()
    table = styles(args.faces)
    rows = [
        {"size": size, "batch": batch, "checkpointing": on, "GB": measured(size, batch, on)}
        for size in args.sizes for batch in (1, 2) for on in (False, True)
    ]  # fmt: skip
    text = [
        "# Paper E's method in numbers", "", f"`python benchmarks/u2_local.py`, {processor()}.", "",
        f"{args.faces} generated faces that no training has seen, 256 px:", "",
        markdown(table, 3), "",
        "Peak memory of a training step of the preset `paper`, besides networks and pictures:", "",
        markdown(pd.DataFrame(rows), 2), "",
    ]  # fmt: skip
    (HERE / "u2_local.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
