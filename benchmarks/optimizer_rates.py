"""Which rate and schedule suits each optimizer? A grid for each, on the objective of notebook 03's race.

    python benchmarks/optimizer_rates.py [--size 80] [--evaluations 50] [--seed 100]

Every entry gets the same evaluations from the same two starts, noise and the photograph with faint noise. The
seed is none of the race's, so that the race is no repetition of the runs that its rates were chosen by. The
result is written to benchmarks/optimizer_rates.md.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from nstlib import assets
from nstlib.course.manifest import processor
from nstlib.course.race import race
from nstlib.methods import gatys
from nstlib.nets.features import FeatureExtractor
from nstlib.pictures import files as images

HERE = Path(__file__).resolve().parent
BOTH = {"constant": {"cooled": False}, "cooled": {"cooled": True}}
GRID: dict[str, tuple[tuple[float, ...], dict[str, dict[str, object]]]] = {
    "gradient_descent": ((0.01, 0.02, 0.05, 0.1, 0.2), BOTH),
    "adam": ((0.01, 0.02, 0.05, 0.1, 0.2, 0.4), BOTH),
    "lbfgs": ((0.25, 0.5, 1.0, 1.5), BOTH),
    # The first radius; later ones adapt. A step is up to so many products of 3 evaluations each.
    "newton_cg": ((0.002, 0.005, 0.02, 0.08), {f"{n} products": {"products": n} for n in (1, 3, 10)}),
    "langevin": ((0.005, 0.01, 0.02, 0.05, 0.1, 0.2), BOTH),
    "langevin, T = 0": ((0.005, 0.01, 0.02, 0.05, 0.1, 0.2), {k: v | {"heat": 0.0} for k, v in BOTH.items()}),
    "annealing": ((0.03, 0.1, 0.3, 1.0), {"its own": {}}),  # the first height of a bump; later ones adapt
}


def main() -> None:
    """Run the grid and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    content, style = (
        images.load_image(assets.data_path(name), size=options.size)
        for name in ("portraits/collins_face.jpg", "paintings/starry_night.jpg")
    )
    settings = gatys.PLAIN
    layers = (*settings.content_layers, *settings.style_layers)
    extractor = FeatureExtractor("vgg19", layers, precision="float32", device="cpu")
    noise = gatys.initial_image("noise", content, None, generator=torch.Generator().manual_seed(options.seed))
    starts = {"noise": noise, "content": content + 0.05 * (noise - 0.5)}
    head = (
        f"# Rates of the optimizers at {options.size} px\n\n"
        f"Loss after {options.evaluations} evaluations in float32, portrait collins_face.jpg, Starry Night, "
        f"the library's relative Gram losses with a style weight of {settings.style_weight:g}, seed "
        f'{options.seed}. "Cooled": the rate falls linearly to 0. {processor()}, torch {torch.__version__}; '
        "by `python benchmarks/optimizer_rates.py`.\n\n"
        "| optimizer | rate | variant | from noise | from the photograph | mean of the logarithms |\n"
        "|---|---|---|---|---|---|\n"
    )
    lines: list[str] = []
    for name, (rates, variants) in GRID.items():
        for variant, own in variants.items():
            for rate in rates:
                losses = []
                for start in starts.values():
                    objective = gatys.Objective(extractor, content, style, settings)
                    kind = name.partition(",")[0]
                    x, _ = race(
                        kind, objective, start, options.evaluations, seed=options.seed, rate=rate, **own
                    )
                    losses.append(objective.value(x)["total"])
                mean = sum(map(math.log, losses)) / 2
                cells = (name, f"{rate:g}", variant, *(f"{loss:.3f}" for loss in losses), f"{mean:.3f}")
                lines.append(f"| {' | '.join(cells)} |\n")
                print(lines[-1], end="", flush=True)
                (HERE / "optimizer_rates.md").write_text(head + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
