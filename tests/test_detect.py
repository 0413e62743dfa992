"""The detector: faces of all sizes and turns, in photographs and paintings, and none where there is none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nstlib import assets
from nstlib.faces.detect import find_faces
from nstlib.pictures.files import load_image

pytestmark = pytest.mark.weights

# How many faces a viewer counts as found, of 10 pixels or more, at the size the course carries.
FACES = {
    "portraits/biden": 1, "portraits/collins": 1, "portraits/collins_face": 1, "portraits/curie": 2,
    "portraits/einstein": 2, "portraits/obama": 1, "portraits/obama_blue_room": 1,
    "portraits/obama_congress": 1, "paintings/mona_lisa": 1, "paintings/woman_with_fan": 1,
    "paintings/girls_at_the_piano": 2, "paintings/librarian": 1, "paintings/lion": 1,
    "paintings/great_wave": 0, "paintings/starry_night": 0, "paintings/composition_viii": 0,
}  # fmt: skip


def carried(name: str) -> torch.Tensor:
    return load_image(assets.data_path(f"{name}.jpg"))


@pytest.mark.parametrize("name", FACES)
def test_faces_of_the_carried_pictures(name):
    picture = carried(name)
    found = find_faces(picture)
    assert len(found) == FACES[name]
    assert [face.size for face in found] == sorted((face.size for face in found), reverse=True)
    for face in found:
        left, top, right, bottom = face.box
        assert 0.4 <= face.score <= 1
        assert face.points.shape == (5, 2)
        assert bool((face.points > torch.tensor([left, top])).all())
        assert bool((face.points < torch.tensor([right, bottom])).all())
        eyes, nose, mouth = face.points[:2], face.points[2], face.points[3:]
        assert eyes[0, 0] < eyes[1, 0]
        assert mouth[0, 0] < mouth[1, 0]
        assert eyes[:, 1].mean() < nose[1] < mouth[:, 1].mean()


def test_the_points_of_a_face_are_its_eyes_nose_and_mouth():
    (face,) = find_faces(carried("portraits/collins"))
    seen = torch.tensor([[203.0, 101.0], [246.0, 103.5], [224.0, 127.0], [204.0, 140.0], [245.0, 140.5]])
    assert (face.points - seen).norm(dim=1).max() < 5  # read off the picture by eye


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_picture_on_its_side_or_head_is_looked_at_upright(turn):
    picture = carried("portraits/collins")[..., :400]  # not square
    (upright,), (turned,) = find_faces(picture), find_faces(picture.rot90(turn, (2, 3)))
    (x, y), (height, width) = upright.points.T, picture.shape[-2:]
    x, y = {1: (y, width - x), 2: (width - x, height - y), 3: (height - y, x)}[turn]
    assert (turned.points - torch.stack([x, y], 1)).norm(dim=1).max() < 0.03 * upright.size
    assert turned.size == pytest.approx(upright.size, rel=0.05)


def test_a_face_is_found_at_any_size():
    picture = carried("portraits/collins")
    (expected,) = find_faces(picture)
    for scale in (0.25, 0.5, 2.0, 4.0):
        side = round(512 * scale)
        (found,) = find_faces(F.interpolate(picture, (side, side), mode="bicubic", antialias=True))
        assert (found.points / scale - expected.points).norm(dim=1).max() < 0.05 * expected.size


@pytest.mark.parametrize("size", [(1, 1), (5, 700), (33, 65)])
def test_any_picture_is_taken_and_noise_has_no_face(size):
    noise = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert find_faces(noise) == []
