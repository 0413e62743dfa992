"""A picture of 4096×3072 by tiles: time, peak memory, and whether a seam is to be seen.

    python benchmarks/large_picture.py [--width 4096] [--height 3072] [--iterations 3] [--coarse 30]

The course carries no picture of that size, so a portrait is enlarged; what is measured does not depend on it.
Peak memory is that of the whole process, taken before the seam test.

The seam test compares neighboring pixels across the tiles' borders with those inside tiles. It matters
which lines of the picture are compared: borders lie between the cells of every pooling, where neighbors
differ more, tiles or no tiles, the more so as cells of half the smaller sizes end there too. So the
result is painted on twice, with tiles that end at different places, and each line counts once as a border and
once as the inside of a tile. The result is written to benchmarks/large_picture.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from nstlib import assets
from nstlib.course.manifest import peak_mib, processor
from nstlib.methods import gatys
from nstlib.methods.gatys.tiles import cut
from nstlib.methods.gatys.transfer import TILE
from nstlib.nets import hardware
from nstlib.pictures import files as images

HERE = Path(__file__).resolve().parent
OTHER = 640  # tiles that end nowhere where those of 512 do
GRIDS = (1, 2, 4, 8, 16, 512)


def grid(image: torch.Tensor, axis: int, step: int) -> torch.Tensor:
    """Absolute differences of neighbors across every line step, 3 step, 5 step ... of the picture."""
    lines = torch.arange(step, image.shape[axis], 2 * step)
    return image.diff(dim=axis).abs().index_select(axis, lines - 1).flatten()


def at_borders(image: torch.Tensor, side: int) -> torch.Tensor:
    """Absolute differences of neighbors, of 255, across the lines where tiles of this side end."""
    found = []
    for axis in (2, 3):
        difference = image.diff(dim=axis).abs().mean(dim=1)[0]
        edges = {t.inner[axis - 2].start for t in cut(image.shape[-2:], side, 0)} - {0}
        found.append(difference.index_select(axis - 2, torch.tensor(sorted(edges)) - 1).flatten())
    return 255 * torch.cat(found)


def seams(painted: dict[int, torch.Tensor]) -> tuple[float, float]:
    """Mean absolute difference across tile borders and inside tiles, over the same lines of both pictures."""
    across = [at_borders(image, side) for side, image in painted.items()]
    inside = [
        at_borders(image, other) for side, image in painted.items() for other in painted if other != side
    ]
    return torch.cat(across).mean().item(), torch.cat(inside).mean().item()


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
    content = images.resize(photograph[:, :, 64:448], shape, allow_upscale=True)
    style = images.load_image(assets.data_path("paintings/starry_night.jpg"))
    start = time.perf_counter()
    result = gatys.stylize(
        content,
        style,
        gatys.PLAIN,
        smallest=options.smallest,
        coarse_iterations=options.coarse,
        iterations=options.iterations,
    )
    seconds = time.perf_counter() - start
    peak = peak_mib()
    images.save_image(result.image, HERE / "large_picture.png")
    more = {
        side: gatys.stylize(content, style, gatys.PLAIN, start=result.image, iterations=2, tile=side).image
        for side in (TILE, OTHER)
    }
    across, inside = seams(more)
    apart = 255 * (more[TILE] - more[OTHER]).abs()
    plain = {n: 255 * torch.cat([grid(result.image, a, n) for a in (2, 3)]).mean().item() for n in GRIDS}
    sizes: dict[int, list[float]] = {}
    before = 0.0
    for row in result.history:
        sizes.setdefault(int(row["size"]), []).append(row["seconds"] - before)
        before = row["seconds"]
    lines = [
        f"# {options.width}×{options.height} by tiles",
        "",
        f"VGG-19, Gram matrices (`gatys.PLAIN`), from {options.smallest} px up by √2, tiles of {TILE} px; "
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; by "
        "`python benchmarks/large_picture.py`.",
        "",
        f"{seconds / 60:.1f} minutes in all; peak memory of the whole process {peak:.0f} MiB.",
        "",
        f"Two more iterations with tiles of {TILE} px, and with tiles of {OTHER}: over the lines where "
        f"either ends, neighbors differ by {across:.3f} of 255 where they are a border and by {inside:.3f} "
        f"where they are inside a tile. The two pictures differ by {apart.mean().item():.3f} of 255, what "
        "bfloat16 rounds.",
        "",
        "Neighbors that are apart for another reason, the cells of the poolings (all lines whose number "
        "divides by so much and not by twice as much): "
        + ", ".join(f"{value:.2f} at {n}" for n, value in plain.items())
        + " of 255.",
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
