"""Identity: the published network's numbers, and how alike faces are."""

from __future__ import annotations

import pytest
import torch
from conftest import waves
from test_portraits import face_at, found, placed  # noqa: F401 (a fixture)
from torch import Tensor

from nstlib import assets
from nstlib.errors import ImageError, SettingError
from nstlib.faces.align import align
from nstlib.faces.generated import Faces
from nstlib.faces.identity import Identity, portrait_alignment
from nstlib.nets.mobilefacenet import MobileFaceNet, from_official
from nstlib.pictures.files import load_image, resize

PLACE = face_at(*placed(160, 140, 0.7, 8))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """Random weights under names like the published ones; activations keep their size through the net."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = [layer for layer in MobileFaceNet().modules() if not list(layer.children())]
    return {
        f"{type(layer).__name__}_{number}.{part}": one * (3**0.5 if one.ndim > 1 else 1)
        for number, layer in enumerate(layers)
        for part, one in layer.state_dict().items()
        if part != "num_batches_tracked"
    }


@pytest.fixture(scope="module")
def portrait() -> Tensor:
    return torch.rand(1, 3, 160, 140, generator=torch.Generator().manual_seed(1))


def test_wrong_weights_and_shapes_are_refused(tensors):
    name = next(iter(tensors))
    for wrong in ({}, tensors | {name: torch.zeros(128, 3, 5, 5)}, tensors | {"more": torch.zeros(1)}):
        with pytest.raises(SettingError, match="are not MobileFaceNet's"):
            from_official(wrong)
    with pytest.raises(SettingError, match="cut the faces out"):
        from_official(tensors)(torch.zeros(1, 3, 128, 128))


def test_equal_pictures_have_the_cosine_one_and_directions_the_length_one(tensors, portrait, found):  # noqa: F811
    found(PLACE)
    identity = Identity("cpu", tensors)
    pair = torch.cat([portrait, portrait.flip(3)])
    torch.testing.assert_close(identity(pair, pair), torch.ones(2))
    directions = identity.embed(pair)
    assert directions.shape == (2, 512)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(2))
    assert identity(portrait, portrait.flip(3)).item() < 1 - 1e-4


def test_pictures_of_equal_sizes_are_cut_out_where_the_first_ones_face_is(tensors, portrait, monkeypatch):
    looks: list[int] = []

    def find_faces(image: Tensor) -> list:
        looks.append(image.shape[-1])
        return [PLACE] if image.shape[-2] == 160 else []

    monkeypatch.setattr("nstlib.faces.align.find_faces", find_faces)
    identity = Identity("cpu", tensors)
    faceless = torch.full_like(portrait, 0.9)
    alike = identity(portrait, faceless)
    assert len(looks) == 1
    theta = align(portrait, PLACE)
    expected = (identity.embed(portrait, theta) * identity.embed(faceless, theta)).sum(1)
    torch.testing.assert_close(alike, expected)
    with pytest.raises(ImageError, match="No face"):
        identity(portrait, resize(faceless, (150, 140)))


def test_an_embedding_is_differentiable_once_the_picture_is_aligned(tensors, portrait):
    identity, theta = Identity("cpu", tensors), align(portrait, PLACE)
    image = portrait.clone().requires_grad_()
    target = identity.embed(portrait.flip(3), theta)
    before = (identity.embed(image, theta) * target).sum()
    before.backward()
    assert image.grad.isfinite().all()
    assert (image.grad[..., 40:120, 40:100] != 0).float().mean() > 0.95
    with torch.no_grad():
        better = identity.embed(image + 0.02 * image.grad / image.grad.abs().max(), theta)
    assert (better * target).sum() > before


def test_what_is_wrong_is_said_in_one_sentence(tensors, portrait, monkeypatch):
    faces = iter([[PLACE], []])
    monkeypatch.setattr("nstlib.faces.align.find_faces", lambda image: next(faces))
    identity = Identity("cpu", tensors)
    with pytest.raises(ImageError, match=r"^No face was found in the picture \(140 × 160"):
        identity.embed(torch.cat([portrait, portrait]))
    with pytest.raises(SettingError, match="2 and 1 pictures are no pairs"):
        identity(torch.cat([portrait, portrait]), portrait)
    with pytest.raises(SettingError, match="does not fit 1 pictures"):
        identity.embed(portrait, torch.zeros(2, 2, 3))
    for wrong in (portrait[0], portrait[:, :1], portrait * torch.nan, "picture.jpg"):
        with pytest.raises(ImageError):
            identity(wrong, wrong)


@pytest.mark.weights
def test_the_real_net_gives_what_onnxruntime_gives():
    net = from_official(assets.load_tensors("arcface_mobilefacenet", progress=False))
    embedding = net(waves(112, 112))[0]
    # What onnxruntime 1.31 says of this picture with the published file.
    expected = torch.tensor(
        [0.4014866, -0.1104556, 0.4380415, 0.2115359, -0.2309181, -1.154887, 0.6152327, -0.9643577]
    )
    torch.testing.assert_close(embedding[::64], expected, rtol=1e-4, atol=1e-4)
    assert embedding.norm().item() == pytest.approx(13.43688, rel=1e-5)


@pytest.mark.weights
def test_one_person_is_alike_on_all_photographs_and_others_are_not():
    identity = Identity("cpu")
    names = ("obama", "obama_blue_room", "obama_congress", "biden", "collins")
    images = [load_image(assets.data_path(f"portraits/{name}.jpg")) for name in names]
    directions = torch.cat([identity.embed(image) for image in images])
    alike = directions @ directions.T
    assert alike[:3, :3][~torch.eye(3, dtype=torch.bool)].min() > 0.5
    assert alike[:3, 3:].max() < 0.3
    assert alike[3, 4] < 0.3


@pytest.mark.weights
def test_in_a_generated_face_the_known_place_serves_as_well_as_the_found_one():
    identity, faces = Identity("cpu"), Faces("cpu")
    pictures = faces.pictures(faces.w(4, seed=3))
    alike = identity.embed(pictures) @ identity.embed(pictures, portrait_alignment()).T
    assert alike.diagonal().min() > 0.9
    assert alike[~torch.eye(4, dtype=torch.bool)].max() < 0.5
