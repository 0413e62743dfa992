"""A picture of 4096×3072 by tiles: time, peak memory, and whether a seam is to be seen.

    python benchmarks/large_picture.py [--width 4096] [--height 3072] [--iterations 3] [--coarse 30]

The course carries no picture of that size, so a portrait is enlarged; what is measured does not depend on it.
The seam test compares neighboring pixels across the tiles' borders with neighboring pixels inside the tiles.
Peak memory is that of the whole process. The result is written to benchmarks/large_picture.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from nstlib import assets, hardware, images
from nstlib.course.manifest import peak_mib, processor
from nstlib.methods import gatys
from nstlib.methods.gatys.tiles import cut
from nstlib.methods.gatys.transfer import TILE

HERE = Path(__file__).resolve().parent


def seams(image: torch.Tensor, side: int) -> tuple[float, float]:
    """Mean absolute difference of neighbors across tile borders, and of neighbors inside tiles, of 255."""
    across, inside = [], []
    for axis in (2, 3):
        difference = image.diff(dim=axis).abs().mean(dim=1)[0]
        if axis == 3:
            difference = difference.T
        edges = {t.inner[axis - 2].start for t in cut(image.shape[-2:], side, 0)} - {0}
        border = torch.zeros(len(difference), dtype=torch.bool)
        border[[edge - 1 for edge in edges]] = True
        across.append(difference[border].flatten())
        inside.append(difference[~border].flatten())
    return torch.cat(across).mean().item() * 255, torch.cat(inside).mean().item() * 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--height", type=int, default=3072)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--coarse", type=int, default=30)
    parser.add_argument("--smallest", type=int, default=512)
    options = parser.parse_args()
    hardware.keep_freed_memory()
    shape = (options.height, options.width)
    photograph = images.load_image(assets.data_path("portraits/collins.jpg"))
    content = images.resize(images.crop_center(photograph, (384, 512)), shape, allow_upscale=True)
    style = images.load_image(assets.data_path("paintings/starry_night.jpg"))
    start = time.perf_counter()
    result = gatys.stylize(
        content,
        style,
        smallest=options.smallest,
        coarse_iterations=options.coarse,
        iterations=options.iterations,
    )
    seconds = time.perf_counter() - start
    peak = peak_mib()
    images.save_image(result.image, HERE / "large_picture.png")
    across, inside = seams(result.image, TILE)
    sizes: dict[int, list[float]] = {}
    before = 0.0
    for row in result.history:
        sizes.setdefault(int(row["size"]), []).append(row["seconds"] - before)
        before = row["seconds"]
    lines = [
        f"# {options.width}×{options.height} by tiles",
        "",
        f"VGG-19, default settings, from {options.smallest} px up by √2, tiles of {TILE} px; "
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; by "
        "`python benchmarks/large_picture.py`.",
        "",
        f"{seconds / 60:.1f} minutes in all; peak memory of the whole process {peak:.0f} MiB.",
        "",
        f"Neighboring pixels differ by {across:.3f} of 255 across tile borders, {inside:.3f} inside tiles.",
        "",
        "| longest side | iterations | seconds an iteration |",
        "|---|---|---|",
        *(f"| {size} | {len(rows)} | {sum(rows) / len(rows):.2f} |" for size, rows in sizes.items()),
        "",
    ]
    (HERE / "large_picture.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
