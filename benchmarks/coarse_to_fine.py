"""Coarse to fine against full size: how long until the loss of 500 L-BFGS evaluations at 512 px is reached?

    python benchmarks/coarse_to_fine.py [--size 512] [--evaluations 500] [--style-weight 1000] [--init noise]
        [--pooling max] [--coarse 200]

A strong style from noise is where the broad forms of a full-size run come latest. At 1000 it is so strong
that no portrait is left: both ways paint a texture of the painting. With the default weight of 10 the content
term decides, and coarse to fine wins nothing (--style-weight 10). Gatys et al. 2016 synthesize with pooling
by average (--pooling average), where 500 evaluations come nearer to their end. Both ways have the same
pictures, network and loss, in one process; coarse to fine has smoothed L-BFGS steps besides, and so many
iterations at the smallest size, then fewer the larger. Machines are shared and noisy, so beside the seconds
stand evaluations counted in pixels, in units of one at full size: what does not depend on who else computes.
The peer is the full-size way itself. The result is written to benchmarks/coarse_to_fine.md after each run,
the pictures beside it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from nstlib import assets
from nstlib.course.manifest import processor
from nstlib.methods import gatys
from nstlib.nets import hardware
from nstlib.nets.features import FeatureExtractor
from nstlib.pictures import files as images

HERE = Path(__file__).resolve().parent
SMALLEST, SMOOTHING, HISTORY = 64, 0.5, 30


def work(rows: list[dict[str, float]], size: int) -> float:
    """Evaluations of these rows in units of one at full size."""
    total, before = 0.0, 0.0
    for row in rows:
        total += (row["evaluations"] - before) * (row["size"] / size) ** 2
        before = row["evaluations"]
    return total


def compare(init: str, options: argparse.Namespace) -> Iterator[str]:
    """The table's rows, each as soon as it is known."""
    size = options.size
    content = images.load_image(assets.data_path("portraits/collins.jpg"), size=size)
    style = images.load_image(assets.data_path("paintings/starry_night.jpg"), size=size)
    settings = gatys.PLAIN.changed(
        init=init, style_weight=options.style_weight, pooling=options.pooling, iterations=options.evaluations
    )
    layers = (*settings.content_layers, *settings.style_layers)
    extractor = FeatureExtractor(settings.network, layers, pooling=settings.pooling)
    gatys.stylize(content, style, settings, iterations=2, extractor=extractor, progress=False)  # warm-up
    full = gatys.stylize(content, style, settings, extractor=extractor)
    goal = full.history[-1]["total"]
    pictures = [full.image]

    def row(way: str, result: gatys.Result) -> str:
        images.save_image(torch.cat(pictures, dim=3), HERE / f"coarse_to_fine_{init}.jpg", quality=88)
        loss, seconds = result.history[-1]["total"], result.seconds
        return (
            f"| {init}, {way} | {loss:.4f} | {seconds:.0f} | {work(result.history, size):.0f} "
            f"| {seconds / full.seconds:.2f} |"
        )

    def reached(now: gatys.Progress) -> bool:
        return now.image.shape[-1] < content.shape[-1] or now.losses["total"] > goal

    yield row("full size", full)
    fine = gatys.stylize(
        content, style, settings, smallest=SMALLEST, coarse_iterations=options.coarse, smoothing=SMOOTHING,
        history_size=HISTORY, extractor=extractor, callback=reached,
    )  # fmt: skip
    pictures.append(fine.image)
    done = Counter(int(now["size"]) for now in fine.history)
    yield row(", ".join(f"{count} at {side} px" for side, count in done.items()), fine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--style-weight", type=float, default=1000.0)
    parser.add_argument("--pooling", choices=("average", "max"), default="max")
    parser.add_argument("--coarse", type=int, default=200)
    parser.add_argument("--init", nargs="+", default=["noise"])
    options = parser.parse_args()
    hardware.keep_freed_memory()
    lines = [
        f"# Coarse to fine at {options.size} px",
        "",
        f"The time until the loss that {options.evaluations} evaluations of L-BFGS at full size end with; "
        f"coarse to fine from {SMALLEST} px upwards, "
        f"smoothing {SMOOTHING} and {HISTORY} pairs; portrait collins.jpg, Starry Night, style weight "
        f"{options.style_weight:g}, pooling by {options.pooling}. {processor()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; "
        "by `python benchmarks/coarse_to_fine.py`.",
        "",
        "| start, way | loss | seconds | full-size evaluations' work | time, of full size |",
        "|---|---|---|---|---|",
    ]
    for init in options.init:
        for row in compare(init, options):
            print(row, flush=True)
            lines.append(row)
            (HERE / "coarse_to_fine.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
