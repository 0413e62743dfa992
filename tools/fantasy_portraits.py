"""Make ``fantasy_portraits.jpg``: the painted portraits of the game Flare, framed like FFHQ.

The sheet is carried, so nobody has to run this; it is kept to show where it comes from. The paintings are
the portraits of Debian's package ``flare-game`` (320 × 320 pixels, transparent behind the person). In the
environment of the course:

    python tools/fantasy_portraits.py PAINTINGS TILES

TILES is a folder for the portraits at 256 px: work that was interrupted goes on there. At the end the script
prints what belongs into ``styles.toml``. The dog and the goblin are left out.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from PIL import Image

from nstlib.faces.align import align_portrait, cut_portrait
from nstlib.pictures.files import load_image, save_image

LEFT_OUT = ("dog01", "goblin")
BACKGROUND = (0.45, 0.42, 0.40)
HEAD = slice(0, 221), slice(50, 271)  # rows, columns in which all heads are: there one look finds the face
TILE, COLUMNS, QUALITY = 256, 8, 88


def framed(path: Path) -> torch.Tensor:
    """One painting as a portrait (1, 3, 256, 256)."""
    image = load_image(path, background=BACKGROUND)
    rows, columns = HEAD
    theta = align_portrait(image[..., rows, columns], 8).theta
    height, width = image.shape[-2:]
    part = torch.tensor([(columns.stop - columns.start) / width, (rows.stop - rows.start) / height])
    middle = torch.tensor([(columns.stop + columns.start) / width, (rows.stop + rows.start) / height]) - 1
    theta = theta * part[:, None]
    theta[..., 2] += middle
    return cut_portrait(image, theta, 256)


def main() -> None:
    """Make the sheet."""
    arguments = argparse.ArgumentParser(description="Make the carried set of painted portraits.")
    arguments.add_argument("paintings", type=Path, help="folder with female01.png, female02.png ...")
    arguments.add_argument("tiles", type=Path, help="folder for the portraits")
    args = arguments.parse_args()
    files = [path for path in sorted(args.paintings.glob("*.png")) if path.stem not in LEFT_OUT]
    for path in files:
        if not (args.tiles / path.name).exists():
            save_image(framed(path), args.tiles / path.name)
    sheet = Image.new("RGB", (COLUMNS * TILE, -(-len(files) // COLUMNS) * TILE), (115, 107, 102))
    for index, path in enumerate(files):
        with Image.open(args.tiles / path.name) as tile:
            small = tile.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(small, (index % COLUMNS * TILE, index // COLUMNS * TILE))
    path = Path(__file__).resolve().parents[1] / "data" / "styles" / "fantasy_portraits.jpg"
    sheet.save(path, quality=QUALITY, optimize=True)
    print(
        f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"\nids = {[file.stem for file in files]}'
    )


if __name__ == "__main__":
    main()
