"""Make the pictures in figures/gallery/ that README.md and the notebooks' first cells show.

python tools/gallery.py        (after `make store`; about six minutes on two cores)
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

from nstlib import assets
from nstlib.methods import gatys
from nstlib.nets import hardware
from nstlib.pictures import files as images

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "figures" / "gallery"
STRIP = ("starry_night", "the_kiss", "great_wave", "moulin_de_la_galette")
# One figure of each notebook, as the preset quick has written it.
COPIES = {
    "01_end": "01_gram_matrix_theory/end.png",
    "02_networks": "02_vgg16_vs_vgg19_layers/three_networks.png",
    "03_regions": "03_optimizers_and_weights/two_regions_first.png",
    "04_three_ways": "04_fast_style_transfer/three_ways.png",
    "05_exemplars": "05_dualstylegan_four_stages/three_styles.png",
    "07_what_they_see": "07_metrics_comparison/what_they_see.png",
}


def main() -> None:
    """Write the strip and copy a figure of each notebook as JPEG."""
    hardware.keep_freed_memory()
    for name, source in COPIES.items():
        figure = images.load_image(ROOT / "figures" / "quick" / source)
        images.save_image(figure, GALLERY / f"{name}.jpg", quality=88)
    portrait = images.load_image(assets.data_path("portraits/collins.jpg"))
    shown = [portrait]
    for name in STRIP:
        painting = images.load_image(assets.data_path(f"paintings/{name}.jpg"), size=512)
        shown.append(gatys.stylize(portrait, painting).image)
    tiles = [F.pad(images.resize(picture.cpu(), 320), (6, 0, 6, 6), value=1.0) for picture in shown]
    images.save_image(F.pad(torch.cat(tiles, dim=3), (0, 6), value=1.0), GALLERY / "strip.jpg", quality=88)


if __name__ == "__main__":
    main()
