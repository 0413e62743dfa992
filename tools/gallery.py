"""Make the pictures in figures/gallery/ that README.md and the notebooks' first cells show.

    python tools/gallery.py                          (after `make store`)
    python tools/gallery.py sheet FOLDER [KEEP]      (an hour; goes on where it was stopped)

The first copies a figure of each notebook and draws faces of the prior, the second makes the contact sheet:
six portraits after eight paintings by Gatys' method with its default settings (`keep_face` as KEEP says). The
single pictures stay in FOLDER, where `benchmarks/kept_faces.py` looks for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nstlib import assets
from nstlib.faces.generated import Faces
from nstlib.methods import gatys
from nstlib.nets import hardware
from nstlib.pictures import files as images

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "figures" / "gallery"
# One figure of each notebook, as the preset quick has written it.
COPIES = {
    "01_end": "01_gram_matrix_theory/end.png",
    "02_networks": "02_vgg16_vs_vgg19_layers/three_networks.png",
    "03_recipe": "03_optimizers_and_weights/paper_d_landscape.png",
    "03b_regions": "03b_sizes_colors_regions_films/two_regions_image.png",
    "04_three_ways": "04_fast_style_transfer/three_ways.png",
    "05_exemplars": "05_dualstylegan_four_stages/three_styles.png",
    "06_regions": "06_u2_local_transfer/figure_10.png",
    "07_what_they_see": "07_metrics_comparison/what_they_see.png",
}
PORTRAITS = ("collins_face", "collins", "curie", "einstein", "obama", "biden")
PAINTINGS = (
    "starry_night", "the_kiss", "great_wave", "moulin_de_la_galette", "girls_at_the_piano",
    "composition_viii", "village_street_auvers", "woman_with_fan",
)  # fmt: skip
SIDE = 256  # longest side in the contact sheet


def portrait(name: str) -> Tensor:
    """A photograph of the contact sheet."""
    return images.load_image(assets.data_path(f"portraits/{name}.jpg"), size=SIDE)


def sheet(folder: Path, keep: float) -> None:
    """The contact sheet, and its pictures in a subfolder named by ``keep``."""
    folder = folder / f"{keep:g}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in PORTRAITS:
        row = [portrait(name)]
        for painting in PAINTINGS:
            path = folder / f"{name}-{painting}.png"
            if not path.exists():
                style = images.load_image(assets.data_path(f"paintings/{painting}.jpg"), size=SIDE)
                images.save_image(gatys.stylize(row[0], style, keep_face=keep).image, path)
            row.append(images.load_image(path))
        row = [F.pad(tile, _border(tile), value=1.0) for tile in row]
        rows.append(torch.cat(row, dim=3))
    images.save_image(torch.cat(rows, dim=2), GALLERY / "contact_sheet.jpg", quality=85)


def _border(tile: Tensor) -> tuple[int, int, int, int]:
    """White around a picture, so that it becomes a square."""
    height, width = SIDE + 8 - tile.shape[-2], SIDE + 8 - tile.shape[-1]
    return width // 2, width - width // 2, height // 2, height - height // 2


def main() -> None:
    """Copy a figure of each notebook as JPEG and draw faces of the prior, or make the contact sheet."""
    hardware.keep_freed_memory()
    if sys.argv[1:2] == ["sheet"]:
        return sheet(Path(sys.argv[2]), float((sys.argv[3:] or ["0.5"])[0]))
    for name, source in COPIES.items():
        figure = images.load_image(ROOT / "figures" / "quick" / source)
        images.save_image(figure, GALLERY / f"{name}.jpg", quality=88)
    faces = Faces()
    prior = faces.prior()
    with torch.no_grad():
        tiles = [
            images.resize((prior(w, space="w").clamp(-1, 1) + 1) / 2, 160) for w in faces.w(64, 1).split(1)
        ]
    rows = [torch.cat(tiles[i : i + 8], dim=3) for i in range(0, 64, 8)]
    images.save_image(torch.cat(rows, dim=2), GALLERY / "face_prior.jpg", quality=85)


if __name__ == "__main__":
    main()
