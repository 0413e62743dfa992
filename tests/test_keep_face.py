"""Faces that stay the persons' own: the mask, the two terms, tiles, and pictures without a face."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d

from nstlib import assets
from nstlib.faces.align import align, oval
from nstlib.methods.gatys import FIVE_BLOCKS, Objective, Settings, TiledObjective, stylize
from nstlib.nets.features import FeatureExtractor
from nstlib.pictures.files import load_image

KEPT = Settings(iterations=2, smallest=None)


@pytest.fixture(scope="module")
def face():
    return load_image(assets.data_path("portraits/collins_face.jpg"), size=128)


@pytest.fixture(scope="module")
def painting():
    return load_image(assets.data_path("paintings/great_wave.jpg"), size=96)


@pytest.fixture(scope="module")
def net():
    return FeatureExtractor("vgg19", ("relu4_2", *FIVE_BLOCKS), precision="float32", device="cpu")


def test_the_oval_covers_the_face_and_nothing_else(face):
    mask = oval(align(face), face.shape[-2:])
    height, width = mask.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    middle = [(mask[0, 0] * axis).sum() / mask.sum() for axis in (rows, columns)]
    assert 0.05 < mask.mean() < 0.2
    assert mask[0, 0, round(middle[0].item()), round(middle[1].item())] == 1
    assert torch.cat([mask[..., 0, :].flatten(), mask[..., :, 0].flatten()]).max() == 0
    half = oval(align(face), (height // 2, width // 2))  # the same place at another size
    torch.testing.assert_close(half, avg_pool2d(mask, 2), atol=0.05, rtol=0)


def test_terms_are_zero_for_the_photograph_and_grow_with_what_is_lost(face, painting, net):
    objective = Objective(net, face, face, KEPT, faces=[align(face)])  # its own palette
    same = objective.value(face)
    assert same["face"] == pytest.approx(0, abs=1e-6)
    assert same["identity"] == pytest.approx(0, abs=1e-5)
    mask = oval(align(face), face.shape[-2:])
    inside, outside = (objective.value(face + 0.3 * m * (painting.mean() - face)) for m in (mask, 1 - mask))
    assert inside["face"] > 2 * outside["face"]
    assert inside["identity"] > outside["identity"]


def test_tiles_give_the_same_terms_and_gradient(face, painting, net):
    arguments = (net, face, painting, KEPT)
    whole = Objective(*arguments, faces=[align(face)])
    tiled = TiledObjective(*arguments, faces=[align(face)], tile=64)
    start = 0.7 * face + 0.1
    terms, gradient = whole.gradient(start)
    parts, summed = tiled.gradient(start)
    assert set(parts) == set(terms)
    for name, value in terms.items():
        assert parts[name] == pytest.approx(value, rel=2e-3, abs=1e-6), name
    assert (summed - gradient).norm() < 0.02 * gradient.norm()


def test_a_kept_face_is_nearer_to_the_photograph_than_one_painted_like_the_rest(face, painting, net):
    kept, painted = (
        stylize(face, painting, KEPT.changed(iterations=8, keep_face=keep), extractor=net, progress=False)
        for keep in (1.0, 0.0)
    )
    objective = Objective(net, face, painting, KEPT, faces=[align(face)])
    near, far = (objective.value(result.image) for result in (kept, painted))
    assert near["face"] < far["face"]
    assert near["identity"] < far["identity"]
    assert "identity" not in painted.history[-1]


def test_without_a_face_it_has_no_effect_and_says_so(painting, net):
    flat = torch.full((1, 3, 64, 64), 0.5)
    with pytest.warns(UserWarning, match="No face is found in the picture, so keep_face has no effect"):
        result = stylize(flat, painting, KEPT, extractor=net, progress=False)
    alone = stylize(flat, painting, KEPT.changed(keep_face=0), extractor=net, progress=False)
    torch.testing.assert_close(result.image, alone.image)
