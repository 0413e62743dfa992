"""Masks of face regions: on painted faces with a network that knows the paint, and on real ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from nstlib import assets
from nstlib.errors import AssetError, ImageError, SettingError
from nstlib.faces import parse as regions
from nstlib.faces.parse import NAMES, REGIONS, FaceParser, mean_iou, read_celebamask, region_masks
from nstlib.nets.bisenet import LABELS, BiSeNet
from nstlib.pictures.files import load_image

BACKGROUND, SKIN, BROW, EYE, NOSE, LIP, NECK, HAIR = PAINTED = [
    LABELS.index(name)
    for name in ("background", "skin", "left brow", "right eye", "nose", "upper lip", "neck", "hair")
]
# The corners of the color cube: where two paints blend, no third one is nearer than both.
PAINT = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]).float()[..., None, None]
MEAN, DEVIATION = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]


class KnowsThePaint(nn.Module):
    """Gives each pixel the class whose paint is nearest; counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def labels(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        self.calls += 1
        assert images.shape[-2] % 32 == images.shape[-1] % 32 == 0
        assert max(images.shape[-2:]) == 512
        colors = torch.nn.functional.interpolate(images * DEVIATION + MEAN, size, mode="bilinear")
        return torch.tensor(PAINTED)[torch.stack([(colors - p).square().sum(1) for p in PAINT]).argmin(0)]


class Detector:
    """Stands in for the cascade: gives squares (y, x, side), in shares of the picture's longest side."""

    def __init__(self, *squares: tuple[float, float, float]) -> None:
        self.squares = squares

    def detect_multi_scale(self, picture: np.ndarray, **_: object) -> list[dict[str, int]]:
        assert picture.dtype == np.uint8
        n = max(picture.shape)
        return [
            dict(zip(("r", "c", "height", "width"), map(round, square), strict=True))
            for square in ((n * (y - s / 2), n * (x - s / 2), n * s, n * s) for y, x, s in self.squares)
        ]


@pytest.fixture(scope="module")
def random_weights() -> dict[str, Tensor]:
    return BiSeNet().state_dict()


@pytest.fixture(scope="module")
def made(random_weights) -> FaceParser:
    return FaceParser("cpu", random_weights)


@pytest.fixture
def parser(made) -> FaceParser:
    """A parser that knows the paint and detects nothing."""
    made.net, made.detector, made.max_faces = KnowsThePaint(), Detector(), 8
    return made


def face(height: int, width: int, *faces: tuple[float, float, float]) -> Tensor:
    """Labels (1, 1, H, W) of faces (y, x, side) in pixels, the side as a detector would give it."""
    labels = torch.full((height, width), BACKGROUND)
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    for cy, cx, side in faces:
        v, u = (y - cy) / side, (x - cx) / side  # within ±0.5 of the middle: brows to mouth
        labels[(u.abs() < 0.25) & (v > 0.3) & (v < 0.85)] = NECK
        labels[(u / 0.6) ** 2 + ((v + 0.15) / 0.75) ** 2 < 1] = HAIR
        labels[(u / 0.48) ** 2 + (v / 0.62) ** 2 < 1] = SKIN
        for middle in (-0.22, 0.22):
            labels[((u - middle).abs() < 0.13) & ((v + 0.25).abs() < 0.035)] = BROW
            labels[((u - middle) / 0.09) ** 2 + ((v + 0.13) / 0.045) ** 2 < 1] = EYE
        labels[(u.abs() < 0.09) & ((v - 0.02).abs() < 0.14)] = NOSE
        labels[(u / 0.2) ** 2 + ((v - 0.32) / 0.07) ** 2 < 1] = LIP
    return labels[None, None]


def painted(labels: Tensor) -> Tensor:
    """The picture (N, 3, H, W) of labels."""
    index = torch.zeros(len(LABELS), dtype=torch.long)
    index[PAINTED] = torch.arange(len(PAINTED))
    return PAINT[index[labels[:, 0]], :, 0, 0].permute(0, 3, 1, 2).contiguous()


# -------------------------------------------------------------------------------------- faces and labels


@pytest.mark.parametrize("size", [(256, 256), (301, 187), (150, 333)])
def test_a_large_face_is_found_without_a_detection(parser, size):
    height, width = size
    truth = face(height, width, (height / 2, width / 2, 0.5 * min(size)))
    found = parser.labels(painted(truth))
    assert found.shape == truth.shape
    assert found.dtype == torch.int64
    iou = mean_iou(found, truth)
    assert min(iou.values()) > 0.8, iou
    assert iou["mean"] > 0.93


@pytest.mark.parametrize("off", [0.0, 0.25])
def test_a_small_face_is_parsed_at_its_own_resolution_even_if_detected_beside_the_point(parser, off):
    truth = face(400, 600, (120, 450, 40))
    parser.detector = Detector(((120 + off * 40) / 600, (450 - off * 40) / 600, 40 / 600))
    (where,) = parser.faces(painted(truth))
    assert math.dist((where.y, where.x), (120, 450)) < 6
    assert 30 < where.side < 50
    iou = mean_iou(parser.labels(painted(truth)), truth)
    assert min(iou.values()) > 0.75, iou
    assert iou["mean"] > 0.88


def test_all_faces_count_and_the_largest_come_first(parser):
    picture = painted(face(300, 500, (150, 120, 90), (150, 350, 110)))
    parser.detector = Detector((0.3, 0.24, 0.18), (0.3, 0.7, 0.22))
    assert [round(where.x / 10) for where in parser.faces(picture)] == [35, 12]
    labels = parser.labels(picture)
    for columns in (slice(0, 240), slice(240, 500)):
        assert set(PAINTED) <= set(labels[..., columns].unique().tolist())
    parser.max_faces = 1
    assert [round(where.x / 10) for where in parser.faces(picture)] == [35]
    assert not (parser.labels(picture)[..., :200] == NOSE).any()


def test_between_two_faces_the_nearer_one_decides(parser):
    """Both wide looks reach over the other's face, and neither spoils it."""
    truth = face(240, 360, (120, 100, 90), (120, 250, 90))
    parser.detector = Detector((1 / 3, 100 / 360, 0.25), (1 / 3, 250 / 360, 0.25))
    assert mean_iou(parser.labels(painted(truth)), truth)["mean"] > 0.93


def test_one_face_detected_several_times_is_one_face(parser):
    picture = painted(face(256, 256, (128, 128, 110)))
    parser.detector = Detector((0.5, 0.5, 0.55), (0.5, 0.5, 0.43), (0.52, 0.48, 0.3), (0.45, 0.5, 0.6))
    assert len(parser.faces(picture)) == 1


def test_detections_beside_a_face_on_both_sides_are_one_face(parser):
    parser.detector = Detector((150 / 400, 59 / 400, 0.5), (150 / 400, 341 / 400, 0.5))
    assert len(parser.faces(painted(face(300, 400, (150, 200, 80))))) == 1


def test_a_mouth_far_below_does_not_stretch_the_face(parser):
    labels = face(300, 300, (120, 150, 80))
    labels[..., 150:200, 140:160][labels[..., 150:200, 140:160] != LIP] = SKIN
    labels[..., 190:200, 130:170] = LIP  # a collar, say, that the parser takes for a mouth
    parser.detector = Detector((0.4, 0.5, 80 / 300))
    (where,) = parser.faces(painted(labels))
    assert where.side == pytest.approx(80, rel=0.15)


def test_a_detection_without_a_face_is_passed_over(parser):
    truth = face(300, 500, (150, 350, 110))
    parser.detector = Detector((0.3, 0.15, 0.25), (0.3, 0.7, 0.22))
    (where,) = parser.faces(painted(truth))
    assert abs(where.x - 350) < 10


def test_skin_alone_is_no_face(parser):
    labels = face(256, 256, (128, 128, 110))
    labels[torch.isin(labels, torch.tensor([NOSE, EYE, BROW, LIP]))] = SKIN
    assert parser.faces(painted(labels)) == []


def test_a_nose_alone_is_no_face(parser):
    labels = face(256, 256, (128, 128, 110))
    labels[torch.isin(labels, torch.tensor([EYE, BROW, LIP]))] = SKIN
    assert parser.faces(painted(labels)) == []


def test_far_from_the_face_hair_counts_but_hands_and_other_eyes_do_not(parser):
    truth = face(500, 500, (120, 250, 100))
    truth[..., 150:260, 180:200] = HAIR  # below what the close look sees
    seen = truth.clone()
    seen[..., 250:275, 260:300] = SKIN
    seen[..., 240:250, 320:340] = EYE
    parser.detector = Detector((0.24, 0.5, 0.2))
    found = parser.labels(painted(seen))
    assert mean_iou(found, truth)["hair"] > 0.93
    assert not torch.isin(found[..., 235:, 250:], torch.tensor([SKIN, EYE])).any()


def test_a_face_that_fills_the_picture_is_looked_at_no_third_time(parser):
    parser.labels(painted(face(200, 200, (100, 100, 150))))
    filled = parser.net.calls
    parser.labels(painted(face(500, 500, (250, 250, 120))))
    assert (filled, parser.net.calls - filled) == (2, 3)


@pytest.mark.parametrize("size", [(1, 1), (5, 700), (64, 3), (33, 65)])
def test_any_size_is_taken(parser, size):
    labels = parser.labels(torch.zeros(2, 3, *size))
    assert labels.shape == (2, 1, *size)
    assert not labels.any()


def test_neither_picture_nor_gradients_are_touched(parser):
    picture = painted(face(96, 96, (48, 48, 48)))
    kept = picture.clone()
    masks = region_masks(picture.requires_grad_(), parser=parser)
    assert torch.equal(picture.detach(), kept)
    assert not any(mask.requires_grad for mask in masks.values())


def test_values_that_rounding_left_outside_0_to_1_do_no_harm(parser):
    picture = painted(face(512, 512, (256, 256, 250)))
    seen = []
    parser.detector.detect_multi_scale = lambda array, **_: seen.append(array) or []
    parser.faces(picture * 1.004 - 0.002)
    assert np.abs(seen[0].astype(int) - picture[0].permute(1, 2, 0).numpy() * 255).max() <= 1


def test_the_same_parser_gives_the_same_labels_again(parser):
    batch = torch.cat([painted(face(120, 90, (60, 45, 50))), painted(face(120, 90, (70, 40, 45)))])
    together = parser.labels(batch)
    assert torch.equal(together, torch.cat([parser.labels(one) for one in batch.split(1)]))


# --------------------------------------------------------------------------------------------- masks


@settings(max_examples=6, deadline=None)
@given(st.integers(60, 140), st.integers(60, 140), st.floats(0, 30))
def test_regions_share_the_pixels_out(made, height, width, softness):
    made.net, made.detector, made.max_faces = KnowsThePaint(), Detector(), 8
    picture = painted(face(height, width, (height / 2, width / 2, 0.55 * min(height, width))))
    masks = region_masks(picture, softness=softness, parser=made)
    assert list(masks) == list(REGIONS)
    for mask in masks.values():
        assert mask.shape == (1, 1, height, width)
        assert mask.dtype == torch.float32
        assert 0 <= float(mask.min()) <= float(mask.max()) <= 1
    rest = ~torch.isin(made.labels(picture), torch.tensor([c for r in REGIONS for c in regions._classes(r)]))
    whole = sum(masks.values()) + regions._soften(rest.float(), softness)
    torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-5)


def test_softness_zero_is_a_hard_mask(parser):
    masks = region_masks(painted(face(128, 128, (64, 64, 60))), softness=0, parser=parser)
    assert set(torch.cat(list(masks.values())).unique().tolist()) == {0, 1}


def test_a_region_that_is_not_there_has_an_empty_mask(parser):
    labels = face(128, 128, (64, 64, 60))
    labels[labels == HAIR] = BACKGROUND
    masks = region_masks(painted(labels), ["hair", "nose"], parser=parser)
    assert list(masks) == ["hair", "nose"]
    assert float(masks["hair"].max()) == 0
    assert float(masks["nose"].max()) > 0.9


def half_plane(angle: float, size: int = 241) -> tuple[Tensor, Tensor]:
    """A mask with a straight edge at an angle, near the middle, and each pixel's distance from the edge."""
    at = torch.arange(size) - size // 2
    distance = at[:, None] * math.sin(angle) + at[None] * math.cos(angle) - 0.3
    return (distance > 0)[None, None], distance


@pytest.mark.parametrize("softness", [3.0, 8, 20.0])
@pytest.mark.parametrize("angle", [0, 0.5, math.pi / 4, math.pi / 2])
def test_softness_is_the_width_of_the_border_in_pixels_in_every_direction(monkeypatch, softness, angle):
    hard, distance = half_plane(angle)
    monkeypatch.setattr(regions, "_subjects", lambda _: hard)
    mask = region_masks(torch.zeros(1, 3, 241, 241), ["person"], softness=softness)["person"][0, 0]
    # Away from the corners, where an edge ends, the mask rises with the distance and with nothing else.
    pixels = np.stack([distance[60:-60, 60:-60].flatten(), mask[60:-60, 60:-60].flatten()])
    across, rise = np.sort(pixels, axis=1)
    low, center, high = np.interp([0.1, 0.5, 0.9], rise, across)
    assert high - low == pytest.approx(softness, rel=0.03, abs=0.3)
    assert abs(center) <= 0.5  # the edge lies between two pixels, somewhere


def test_softness_may_be_wider_than_the_picture(monkeypatch):
    hard, _ = half_plane(0, 9)
    monkeypatch.setattr(regions, "_subjects", lambda _: hard)
    masks = region_masks(torch.zeros(1, 3, 9, 9), ["background", "person"], softness=100)
    torch.testing.assert_close(masks["person"] + masks["background"], torch.ones(1, 1, 9, 9))


def test_person_and_background_need_no_face_parser(monkeypatch):
    hard, _ = half_plane(1, 30)
    monkeypatch.setattr(regions, "_subjects", lambda _: hard)
    monkeypatch.setattr(regions, "FaceParser", None)
    masks = region_masks(torch.zeros(1, 3, 30, 30), ["person", "background"], softness=0)
    assert torch.equal(masks["person"], hard.float())
    assert torch.equal(masks["background"], 1 - hard.float())


# --------------------------------------------------------------------------------------------- refusals


def test_no_face_is_said_in_one_sentence_that_offers_a_way(parser):
    with pytest.raises(ImageError) as error:
        region_masks(torch.zeros(1, 3, 40, 60), ["hair"], parser=parser)
    assert str(error.value) == (
        "No face was found in the picture (60 × 40 pixels): "
        "take the region 'person' or 'background', or the whole picture."
    )


def test_of_several_pictures_the_one_without_a_face_is_named(parser):
    batch = torch.cat([painted(face(96, 96, (48, 48, 48))), torch.zeros(1, 3, 96, 96)])
    with pytest.raises(ImageError, match="No face was found in picture 2 of 2"):
        region_masks(batch, parser=parser)


def test_no_subject_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr(regions, "_subjects", lambda _: torch.zeros(1, 1, 20, 30, dtype=torch.bool))
    with pytest.raises(ImageError, match=r"Nothing stands out .* \(30 × 20 pixels\): take the whole picture"):
        region_masks(torch.zeros(1, 3, 20, 30), ["background"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["hare"], "no region 'hare': choose of eyebrow, .*, person, background"),
        ("hair", r"write \['hair'\]"),
        ([], "at least one region"),
    ],
)
def test_unknown_regions_are_refused(parser, names, message):
    with pytest.raises(SettingError, match=message):
        region_masks(torch.zeros(1, 3, 32, 32), names, parser=parser)


@pytest.mark.parametrize("softness", [-1, math.nan, math.inf, "4", None])
def test_a_softness_that_is_no_width_is_refused(parser, softness):
    with pytest.raises(SettingError, match=r"softness is .*must be a width in pixels"):
        region_masks(torch.zeros(1, 3, 32, 32), softness=softness, parser=parser)


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 0, 8), np.zeros((1, 3, 8, 8))]
)
@pytest.mark.parametrize("names", [["hair"], ["person"]])
def test_what_is_no_picture_is_refused(parser, image, names):
    with pytest.raises(ImageError, match=r"has the shape \(N, 3, H, W\), not"):
        region_masks(image, names, parser=parser)


def test_faces_are_looked_for_in_one_picture(parser):
    with pytest.raises(ImageError, match="not a batch of 2"):
        parser.faces(torch.zeros(2, 3, 8, 8))


def test_at_least_one_face_is_allowed(random_weights):
    with pytest.raises(SettingError, match="max_faces is 0"):
        FaceParser("cpu", random_weights, max_faces=0)


# --------------------------------------------------------------------------------------------- agreement


def test_iou_of_a_case_counted_by_hand():
    found, truth = torch.zeros(1, 1, 4, 4, dtype=torch.int64), torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    found[..., :2, :], truth[..., 1:3, :] = HAIR, HAIR  # 4 of 12
    found[..., 3, :2], truth[..., 3, 0] = LABELS.index("left eye"), LABELS.index("glasses")  # 1 of 2
    iou = mean_iou(found, truth)
    assert list(iou) == [*REGIONS, "mean"]
    assert iou["hair"] == pytest.approx(1 / 3)
    assert iou["eye"] == 0.5
    assert math.isnan(iou["nose"])
    assert iou["mean"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_iou_is_counted_over_all_pictures():
    a = torch.cat([face(64, 64, (32, 32, 30)), face(64, 64, (32, 20, 20))])
    b = a.roll(3, -1)
    pixels = [((a == HAIR) & (b == HAIR)).sum(), ((a == HAIR) | (b == HAIR)).sum()]
    assert mean_iou(a, b, ["hair"])["hair"] == pytest.approx(int(pixels[0]) / int(pixels[1]))
    assert mean_iou(a, b)["mean"] == pytest.approx(mean_iou(b, a)["mean"])
    assert set(mean_iou(a, a).values()) == {1.0}


def test_label_maps_without_any_region_have_no_iou():
    nothing = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    assert all(math.isnan(value) for value in mean_iou(nothing, nothing).values())


def test_iou_refuses_what_cannot_be_compared():
    maps = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    with pytest.raises(SettingError, match="cannot be compared"):
        mean_iou(maps, maps[..., :3])
    with pytest.raises(SettingError, match="no region 'person'"):
        mean_iou(maps, maps, ["person"])


def test_label_maps_of_celebamask_are_renumbered(tmp_path):
    Image.fromarray(np.arange(19, dtype=np.uint8)[None]).save(tmp_path / "labels.png")
    labels = read_celebamask(tmp_path / "labels.png")
    assert labels.shape == (1, 1, 1, 19)
    assert sorted(labels.flatten().tolist()) == list(range(19))
    named = [LABELS[label] for label in labels.flatten()]
    assert [named[i] for i in (0, 1, 2, 3, 10, 13, 17, 18)] == [
        "background", "skin", "nose", "glasses", "inner mouth", "hair", "neck", "cloth",
    ]  # fmt: skip


def test_a_photograph_is_no_label_map(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.uint8)).save(tmp_path / "photo.png")
    with pytest.raises(ImageError, match=r"photo\.png' is no label map: its values go to 200"):
        read_celebamask(tmp_path / "photo.png")


def test_every_class_belongs_to_one_region_at_most():
    classes = [name for names in regions.CLASSES.values() for name in names]
    assert len(set(classes)) == len(classes)
    assert set(LABELS) - set(classes) == {"background", "cloth", "hat"}
    assert tuple(regions.CLASSES) == REGIONS == NAMES[:6]


# --------------------------------------------------------------------------------------------- the real ones


@pytest.fixture(scope="module")
def real_parser() -> FaceParser:
    return FaceParser("cpu")


def middle(mask: Tensor) -> tuple[float, float]:
    """(y, x) of a mask's centroid, in shares of the picture."""
    y, x = torch.nonzero(mask[0, 0] > 0.5).float().mean(0).tolist()
    return y / mask.shape[-2], x / mask.shape[-1]


@pytest.mark.weights
@pytest.mark.parametrize("kind", ["as it is", "gray, not square"])
def test_the_carried_portrait_is_parsed(real_parser, kind):
    picture = load_image(assets.data_path("portraits/collins_face.jpg"))
    if kind == "gray, not square":
        picture = picture.mean(1, keepdim=True).expand(-1, 3, -1, -1)[..., :230, 21:]
    masks = region_masks(picture, softness=1, parser=real_parser)
    assert float(sum(masks.values()).max()) <= 1 + 1e-5
    assert float(masks["hair"].mean()) > 0.08
    assert float(masks["face"].mean()) > 0.05
    at = {name: middle(mask) for name, mask in masks.items()}
    order = ["eyebrow", "eye", "nose", "lip"]
    assert [at[name][0] for name in order] == sorted(at[name][0] for name in order)
    assert at["hair"][0] < at["face"][0]
    assert max(abs(at[name][1] - at["nose"][1]) for name in order) < 0.03  # her face is straight to us
    nose = round(at["nose"][1] * picture.shape[-1])
    for name in ("eye", "eyebrow"):
        left, right = masks[name][..., :nose].sum(), masks[name][..., nose:].sum()
        assert 0.4 < float(left / right) < 2.5


@pytest.mark.weights
def test_a_thumbnail_is_parsed(real_parser):
    masks = region_masks(
        load_image(assets.data_path("portraits/obama.jpg"), size=64), softness=1, parser=real_parser
    )
    at = {name: middle(masks[name]) for name in ("hair", "eyebrow", "nose", "lip")}
    assert [y for y, _ in at.values()] == sorted(y for y, _ in at.values())
    assert 0.1 < float(masks["face"].mean()) < 0.25


@pytest.mark.weights
def test_a_face_of_a_sixth_of_the_picture_is_found_and_a_space_suit_is_no_hair(real_parser):
    picture = load_image(assets.data_path("portraits/collins.jpg"))
    masks = region_masks(picture, parser=real_parser)
    assert math.dist(middle(masks["nose"]), (118 / 512, 225 / 512)) < 0.02
    assert 0.01 < float(masks["face"].mean()) < 0.06
    assert all(float(mask[..., 260:, :].max()) < 0.5 for mask in masks.values())
    assert all(float(mask.max()) > 0.4 for mask in masks.values())


@pytest.mark.weights
@pytest.mark.parametrize("what", ["great_wave", "noise"])
def test_where_no_face_is_none_is_found(real_parser, what):
    if what == "noise":
        picture = torch.rand(1, 3, 120, 160, generator=torch.Generator().manual_seed(0))
    else:
        picture = load_image(assets.data_path("paintings/great_wave.jpg"))
    with pytest.raises(ImageError, match="No face was found in the picture"):
        region_masks(picture, parser=real_parser)


@pytest.mark.weights
def test_the_regions_of_celebamask_agree_with_its_label_maps(real_parser):
    try:
        pictures = [load_image(assets.fetch(f"celebamask_{i}"), size=512) for i in range(4)]
        truth = torch.cat([read_celebamask(assets.fetch(f"celebamask_{i}_labels")) for i in range(4)])
    except AssetError as error:
        pytest.skip(f"the CelebAMask-HQ samples come by web address or from NSTLIB_MIRROR: {error}")
    iou = mean_iou(real_parser.labels(torch.cat(pictures)), truth)
    # Measured: 0.820, 0.879, 0.867, 0.895, 0.954, 0.955; mean 0.895.
    floors = {"eyebrow": 0.79, "eye": 0.85, "nose": 0.84, "lip": 0.865, "face": 0.935, "hair": 0.935}
    assert all(iou[name] > floor for name, floor in floors.items()), iou
    assert iou["mean"] > 0.88


@pytest.mark.weights
def test_a_person_is_told_from_the_background_and_nothing_from_noise():
    pytest.importorskip("onnxruntime")
    picture = load_image(assets.data_path("portraits/obama.jpg"), size=256)
    noise = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    person, nothing = regions._subjects(torch.cat([picture, noise]))
    assert person.shape == (1, 256, 256)
    assert bool(person[:, 60:200, 90:160].all())  # head and shoulders
    assert not person[:, :120, :40].any()
    assert not nothing.any()
