"""Where the faces of a picture are: a box, the eyes, the tip of the nose and the corners of the mouth.

Source: SCRFD (Guo et al. 2021, "Sample and Computation Redistribution for Efficient Face Detection"), the
network of 500 million operations as InsightFace published it, run by onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import assets
from ..pictures.files import check_picture, resize

# Copies of the picture that the network sees, by their longer side. A face that fills the picture shows only
# in a small copy, one of twenty pixels only in a large one.
_SIDES = (320, 640, 1280)
_STRIDES = (8, 16, 32)  # pixels between the cells of its three outputs, each with two boxes
_SAME = 0.5  # of the smaller of two boxes that lies in the other, above which both show one face
_LEAST = 0.4  # score of a face
_SURE = 0.75  # score; an upright face has more, one that lies on its side less
_MARGIN = 0.1  # by which a turned view has to beat an upright face: painted ones score as much upside down
_SMALLEST = 10  # pixels of a face; specks of paint score above it where they are smaller


@dataclass(frozen=True)
class Face:
    """A face that was found; coordinates (x, y) are pixels of the picture from its upper left corner.

    Attributes:
        box: left, top, right and bottom.
        points: (5, 2), float32, the eyes, the tip of the nose and the corners of the mouth, as the face is
            upright the left one first.
        score: how sure the network is, up to 1.
    """

    box: tuple[float, float, float, float]
    points: Tensor
    score: float

    @property
    def size(self) -> float:
        """Side of the square that is as large as the box."""
        left, top, right, bottom = self.box
        return float(max(0.0, (right - left) * (bottom - top)) ** 0.5)


def find_faces(picture: Tensor) -> list[Face]:
    """The faces in a picture, largest first; where there is none, an empty list.

    Where none is found surely, the picture is also looked at lying on either side and upside down.

    Args:
        picture: (1, 3, H, W), RGB in [0, 1], any size.

    Raises:
        ImageError: not one picture.
        AssetError: the network cannot be had.
    """
    picture = check_picture("picture", picture, count=1).detach().float().cpu().clamp(0, 1)
    longest = max(picture.shape[-2:])
    sides = [side for side, smaller in zip(_SIDES, (0, *_SIDES), strict=False) if longest > smaller]
    best: list[Face] = []
    needed = 0.0  # score that the next view has to pass
    for turn in range(4):
        looked = _look(picture.rot90(turn, (2, 3)), sides if turn == 0 else sides[:2][-1:])
        if looked and looked[0].score > needed:
            best = [_turned_back(face, turn, *picture.shape[-2:]) for face in looked]
            across, down = (looked[0].points[1] - looked[0].points[0]).tolist()
            upright = across > abs(down)
            if looked[0].score > _SURE and upright:
                break
            needed = looked[0].score + _MARGIN * upright
    return sorted(best, key=lambda face: -face.size)


def onnx_session(asset: str) -> Any:
    """The network of an asset, ready to run on the processor."""
    import onnxruntime  # slow to import

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(assets.fetch(asset), options, providers=["CPUExecutionProvider"])


@lru_cache(maxsize=1)
def _detector() -> Any:
    return onnx_session("scrfd_500m")


def _look(picture: Tensor, sides: list[int]) -> list[Face]:
    """The faces of a picture as it stands in copies of these sizes, each once, surest first."""
    found = [face for side in sides for face in _detect(picture, side)]
    kept: list[Face] = []
    for face in sorted(found, key=lambda face: -face.score):
        if face.size >= _SMALLEST and not any(_overlap(face, other) > _SAME for other in kept):
            kept.append(face)
    return kept


def _detect(picture: Tensor, side: int) -> list[Face]:
    """What the network finds in one copy of the picture."""
    small = resize(picture, side, allow_upscale=True)
    height, width = small.shape[-2:]
    rows, columns = -(-height // 32), -(-width // 32)
    inputs = torch.zeros(1, 3, 32 * rows, 32 * columns)
    inputs[..., :height, :width] = (255 * small - 127.5) / 128
    names = [f"{what}_{stride}" for stride in _STRIDES for what in ("score", "bbox", "kps")]
    outputs = [one[0] for one in _detector().run(names, {"input.1": inputs.numpy()})]
    faces = []
    for level, stride in enumerate(_STRIDES):
        scores, boxes, points = outputs[3 * level : 3 * level + 3]
        for index in np.flatnonzero(scores[:, 0] >= _LEAST):
            row, column = divmod(index // 2, columns * 32 // stride)
            ends = boxes[index].reshape(2, 2) * [[-1], [1]]  # to the left and top, to the right and bottom
            places = np.concatenate([ends, points[index].reshape(5, 2)]) + np.array([column, row])
            places = stride * places * max(picture.shape[-2:]) / side
            faces.append(_face(places, float(scores[index, 0])))
    return faces


def _face(places: np.ndarray, score: float) -> Face:
    """A face of two corners of its box and five points."""
    (left, top), (right, bottom) = places[:2].min(0).tolist(), places[:2].max(0).tolist()
    return Face((left, top, right, bottom), torch.tensor(places[2:], dtype=torch.float32), score)


def _overlap(one: Face, other: Face) -> float:
    """The part of the smaller box that lies in the other."""
    a, b = np.array(one.box), np.array(other.box)
    both = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(both / min(one.size, other.size) ** 2)


def _turned_back(face: Face, turn: int, height: int, width: int) -> Face:
    """A face of a picture turned by so many quarters, in the picture (height, width) itself."""
    x, y = np.concatenate([np.reshape(face.box, (2, 2)), face.points.numpy()]).T
    x, y = {0: (x, y), 1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[turn]
    return _face(np.stack([x, y], 1), face.score)
