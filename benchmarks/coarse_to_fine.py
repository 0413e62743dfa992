"""Coarse to fine against full size: how long until the loss of 500 L-BFGS evaluations at 512 px is reached?

    python benchmarks/coarse_to_fine.py [--size 512] [--evaluations 500] [--style-weight 1000] [--init noise]

A strong style from noise is where the broad forms of a full-size run come latest; with the default weight of
10 the content term decides, and coarse to fine wins nothing (--style-weight 10). Both ways have the same
pictures, network and loss, in one process; coarse to fine has smoothed L-BFGS steps besides. Machines are
shared and noisy, so beside the seconds stand evaluations counted in pixels, in units of one at full size:
what does not depend on who else computes. The peer is the full-size way itself. The result is written to
benchmarks/coarse_to_fine.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from nstlib import assets, hardware, images
from nstlib.course.manifest import processor
from nstlib.features import FeatureExtractor
from nstlib.methods import gatys

HERE = Path(__file__).resolve().parent
SMALLEST, COARSE, SMOOTHING, HISTORY = 64, 200, 0.5, 30


def work(rows: list[dict[str, float]], size: int) -> float:
    """Evaluations of these rows in units of one at full size."""
    total, before = 0.0, 0.0
    for row in rows:
        total += (row["evaluations"] - before) * (row["size"] / size) ** 2
        before = row["evaluations"]
    return total


def compare(init: str, size: int, evaluations: int, style_weight: float) -> list[str]:
    content = images.load_image(assets.data_path("portraits/collins.jpg"), size=size)
    style = images.load_image(assets.data_path("paintings/starry_night.jpg"), size=size)
    settings = gatys.Settings(init=init, style_weight=style_weight)
    layers = (*settings.content_layers, *settings.style_layers)
    extractor = FeatureExtractor(settings.network, layers)
    gatys.stylize(content, style, settings, iterations=2, extractor=extractor, progress=False)  # warm-up
    full = gatys.stylize(content, style, settings, iterations=evaluations, extractor=extractor)
    goal = full.history[-1]["total"]

    def reached(told: gatys.Progress) -> bool:
        return told.image.shape[-1] < content.shape[-1] or told.losses["total"] > goal

    fine = gatys.stylize(
        content, style, settings, smallest=SMALLEST, coarse_iterations=COARSE, iterations=evaluations,
        smoothing=SMOOTHING, history_size=HISTORY,
        extractor=extractor, callback=reached,
    )  # fmt: skip
    images.save_image(
        torch.cat([full.image, fine.image], dim=3), HERE / f"coarse_to_fine_{init}.jpg", quality=88
    )
    last = fine.history[-1]
    rows = [
        f"| {init}, full size | {goal:.4f} | {full.seconds:.0f} | {work(full.history, size):.0f} | 1 |",
        f"| {init}, coarse to fine | {last['total']:.4f} | {fine.seconds:.0f} "
        f"| {work(fine.history, size):.0f} | {fine.seconds / full.seconds:.2f} |",
    ]
    print("\n".join(rows), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--style-weight", type=float, default=1000.0)
    parser.add_argument("--init", nargs="+", default=["noise"])
    options = parser.parse_args()
    hardware.keep_freed_memory()
    lines = [
        f"# Coarse to fine at {options.size} px",
        "",
        f"The time until the loss that {options.evaluations} evaluations of L-BFGS at full size end with; "
        f"coarse to fine from {SMALLEST} px upwards with {COARSE} iterations there, fewer after it, "
        f"smoothing {SMOOTHING} and {HISTORY} pairs; "
        f"portrait collins.jpg, Starry Night, style weight {options.style_weight:g}. {processor()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; "
        "by `python benchmarks/coarse_to_fine.py`.",
        "",
        "| start, way | loss | seconds | full-size evaluations' work | time, of full size |",
        "|---|---|---|---|---|",
    ]
    for init in options.init:
        lines += compare(init, options.size, options.evaluations, options.style_weight)
    (HERE / "coarse_to_fine.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
