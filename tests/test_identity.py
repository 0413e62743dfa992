"""Identity: the network against onnxruntime, the reader of ONNX, and where faces are cut out."""

from __future__ import annotations

import cmath
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nstlib import assets
from nstlib.assets import convert
from nstlib.assets.registry import assets as registered
from nstlib.errors import ImageError, SettingError
from nstlib.faces.identity import TEMPLATE, Identity, align, cut_out, five_points
from nstlib.faces.parse import Face
from nstlib.nets.bisenet import LABELS
from nstlib.nets.mobilefacenet import from_official
from nstlib.pictures.files import load_image, resize

# ------------------------------------------------------------------------------------- the published graph


def blocks() -> list[tuple[str, int, int, int, int, int]]:
    """(op, inputs, outputs, kernel, stride, groups) of w600k_mbf; written down a second time, on purpose."""

    def conv(*numbers: int) -> list[tuple[str, int, int, int, int, int]]:
        return [("Conv", *numbers), ("PRelu", 0, numbers[1], 0, 0, 0)]  # type: ignore[list-item]

    def bottleneck(inputs: int, middle: int, outputs: int, stride: int) -> list[Any]:
        wide = conv(inputs, middle, 1, 1, 1) + conv(middle, middle, 3, stride, middle)
        return [*wide, ("Conv", middle, outputs, 1, 1, 1), *([("Add", 0, 0, 0, 0, 0)] * (stride == 1))]

    graph = conv(3, 128, 3, 2, 1) + conv(128, 128, 3, 1, 64) + bottleneck(128, 128, 128, 2)
    graph += 4 * bottleneck(128, 128, 128, 1) + bottleneck(128, 256, 256, 2)
    graph += 6 * bottleneck(256, 256, 256, 1) + bottleneck(256, 512, 256, 2)
    graph += 2 * bottleneck(256, 256, 256, 1) + conv(256, 512, 1, 1, 1) + conv(512, 64, 1, 1, 1)
    ends = (("Flatten", 0, 0), ("Gemm", 3136, 512), ("BatchNormalization", 0, 512))
    return graph + [(op, inputs, outputs, 0, 0, 0) for op, inputs, outputs in ends]


def random_tensors() -> dict[str, Tensor]:
    """Weights under the published names; activations keep their size through the net."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}

    def some(*shape: int, low: float = -0.1, high: float = 0.1) -> Tensor:
        return torch.empty(shape).uniform_(low, high, generator=generator)

    for number, (op, inputs, outputs, kernel, _, groups) in enumerate(blocks()):
        name = f"{op}_{number}"
        if op in ("Conv", "Gemm"):
            shape = (outputs, inputs // groups, kernel, kernel) if op == "Conv" else (outputs, inputs)
            bound = math.sqrt(3 / math.prod(shape[1:]))
            tensors[f"{name}.weight"] = some(*shape, low=-bound, high=bound)
            tensors[f"{name}.bias"] = some(outputs)
        elif op == "PRelu":
            tensors[f"{name}.weight"] = some(outputs, 1, 1, low=0.1, high=0.9)
        elif op == "BatchNormalization":
            for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                tensors[f"{name}.{part}"] = some(outputs, low=low, high=low + 1)
    return tensors


def message(*fields: tuple[int, Any]) -> bytes:
    """A protocol buffer with these fields; whole numbers, text, bytes, or (for an attribute) a float."""

    def varint(value: int) -> bytes:
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            data += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            data += varint(number << 3 | 2) + varint(len(raw)) + raw
    return data


def write_onnx(path: Path, tensors: dict[str, Tensor]) -> None:
    """The published graph with these tensors: its initializers named by bare numbers, as in the original."""
    nodes, initializers, last, skip, seen = [], [], "input.1", "", 0
    for number, (op, _, _, kernel, stride, groups) in enumerate(blocks()):
        name, output, inputs = f"{op}_{number}", f"out{number}", [last]
        attributes: list[tuple[str, Any]] = []
        if op == "Conv":
            pads = [kernel // 2] * 4
            attributes = [("group", groups), ("kernel_shape", [kernel] * 2), ("pads", pads)]
            attributes.append(("strides", [stride] * 2))
        elif op == "Add":
            inputs = [skip, last]
        elif op == "Gemm":
            attributes = [("alpha", 1.0), ("transB", 1)]
        for key in (key for key in tensors if key.startswith(f"{name}.")):
            seen += 1
            inputs.append(str(500 + seen))
            dims = [(1, size) for size in tensors[key].shape]
            raw = tensors[key].numpy().tobytes()
            initializers.append((5, message(*dims, (2, 1), (8, inputs[-1]), (9, raw))))
        fields: list[tuple[int, Any]] = [(1, one) for one in inputs] + [(2, output), (3, name), (4, op)]
        for key, value in attributes:
            if isinstance(value, list):
                fields.append((5, message((1, key), *((8, one) for one in value), (20, 7))))
            elif isinstance(value, float):
                fields.append((5, message((1, key), (2, value), (20, 1))))
            else:
                fields.append((5, message((1, key), (3, value), (20, 2))))
        nodes.append((1, message(*fields)))
        last = output
        if op == "Add" or (op == "Conv" and blocks()[number + 1][0] == "Conv"):
            skip = last  # what a bottleneck gives is added to what the next one does

    def value_info(name: str, *shape: int) -> bytes:
        dims = message(*((1, message((1, size))) for size in shape))
        return message((1, name), (2, message((1, message((1, 1), (2, dims))))))

    ports = [(11, value_info("input.1", 1, 3, 112, 112)), (12, value_info(last, 1, 512))]
    graph = message(*nodes, (2, "g"), *initializers, *ports)
    path.write_bytes(message((1, 6), (7, graph), (8, message((1, ""), (2, 11)))))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return random_tensors()


def waves() -> Tensor:
    y, x = torch.arange(112.0)[:, None], torch.arange(112.0)[None]
    return torch.stack(
        [torch.sin(0.11 * y + 0.05 * x), torch.cos(0.07 * x - 0.02 * y), torch.sin(0.003 * x * y)]
    )[None]


def test_the_layout_has_the_published_size(tensors):
    assert len(tensors) == 138
    assert 4 * sum(one.numel() for one in tensors.values()) == registered()["arcface_mobilefacenet"].bytes


def test_the_net_is_what_onnxruntime_makes_of_the_graph(tensors, tmp_path):
    import onnxruntime

    write_onnx(tmp_path / "net.onnx", tensors)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    expected = torch.from_numpy(session.run(None, {"input.1": waves().numpy()})[0])
    found = from_official(convert.convert("onnx", tmp_path / "net.onnx"))(waves())
    assert found.shape == (1, 512)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_onnx_is_read_by_the_nodes_that_take_the_tensors(tensors, tmp_path):
    write_onnx(tmp_path / "net.onnx", tensors)
    read = convert.convert("onnx", tmp_path / "net.onnx")
    assert list(read) == list(tensors)
    assert all(torch.equal(read[key], one) for key, one in tensors.items())


def test_onnx_tensors_that_are_no_float32_are_refused(tmp_path):
    tensor = message((1, 2), (2, 7), (8, "shape"), (9, bytes(16)))
    (tmp_path / "net.onnx").write_bytes(message((7, message((5, tensor)))))
    with pytest.raises(ValueError, match="shape is not float32"):
        convert.convert("onnx", tmp_path / "net.onnx")


def test_a_face_is_seen_alike_alone_and_in_a_batch(tensors):
    net = from_official(dict(reversed(tensors.items())))  # a cache keeps no order
    together = net(torch.cat([waves(), -waves()]))
    torch.testing.assert_close(together[:1], net(waves()), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0], together[1])


def test_wrong_weights_and_shapes_are_refused(tensors):
    for wrong in (
        {},
        {key: one for key, one in tensors.items() if key != "Gemm_96.bias"},
        tensors | {"Conv_0.weight": torch.zeros(128, 3, 5, 5)},
        tensors | {"more": torch.zeros(1)},
    ):
        with pytest.raises(SettingError, match="are not MobileFaceNet's 138"):
            from_official(wrong)
    with pytest.raises(SettingError, match="cut the faces out"):
        from_official(tensors)(torch.zeros(1, 3, 128, 128))


# --------------------------------------------------------------------------------------- drawn faces, found

SKIN, EYE, NOSE, LIP = (LABELS.index(name) for name in ("skin", "left eye", "nose", "upper lip"))
COLORS = {SKIN: (1.0, 1.0, 1.0), EYE: (1.0, 0.0, 0.0), NOSE: (0.0, 1.0, 0.0), LIP: (0.0, 0.0, 1.0)}


def draw(height: int, width: int, scale: complex, shift: complex, eyes: tuple[int, ...] = (0, 1)) -> Tensor:
    """Classes (height, width): the template's face, of which pixel t lies at scale · t + shift."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    t = (torch.complex(x, y) - shift) / scale
    points = [complex(px + 0.5, py + 0.5) for px, py in TEMPLATE]
    labels = torch.full((height, width), SKIN)
    for eye in eyes:
        labels[((t - points[eye]).real / 7) ** 2 + ((t - points[eye]).imag / 3) ** 2 < 1] = EYE
    nose = t - points[2]
    labels[(nose.real.abs() < 5) & (nose.imag > -18) & (nose.imag < 7)] = NOSE
    middle = (points[3] + points[4]) / 2
    half = abs(points[4] - points[3]) / 2 + 1
    labels[((t - middle).real / half) ** 2 + ((t - middle).imag / 4) ** 2 < 1] = LIP
    return labels


def paint(labels: Tensor) -> Tensor:
    """A picture (1, 3, H, W) of the classes."""
    palette = torch.ones(len(LABELS), 3)
    for label, color in COLORS.items():
        palette[label] = torch.tensor(color)
    return palette[labels].permute(2, 0, 1)[None]


class FakeParser:
    """Reads the classes off the colors, and counts how often it is asked."""

    device = torch.device("cpu")

    def __init__(self, faces: list[Face] | None = None) -> None:
        self.net, self.found, self.looks, self.searches = self, faces or [], 0, 0

    def labels(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        self.looks += 1
        mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
        rgb = F.interpolate(images * deviation + mean, size, mode="nearest").permute(0, 2, 3, 1)
        colors = torch.tensor(list(COLORS.values()))
        nearest = (rgb[..., None, :] - colors).square().sum(-1).argmin(-1)
        return torch.tensor(list(COLORS))[nearest]

    def faces(self, image: Tensor) -> list[Face]:
        self.searches += 1
        return self.found


def missed(theta: Tensor, size: tuple[int, int], scale: complex, shift: complex) -> float:
    """The largest distance of the template's points from where they were drawn, in pixels of 112."""
    (a, b, c), (d, e, f) = theta[0].tolist()
    worst = 0.0
    for px, py in TEMPLATE:
        u, v = (px + 0.5) / 56 - 1, (py + 0.5) / 56 - 1
        x, y = ((a * u + b * v + c) + 1) / 2 * size[1], ((d * u + e * v + f) + 1) / 2 * size[0]
        worst = max(worst, abs(complex(x, y) - (scale * complex(px + 0.5, py + 0.5) + shift)) / abs(scale))
    return worst


def placed(height: int, width: int, part: float, degrees: float) -> tuple[complex, complex]:
    """Scale and shift of a face in the middle, its template `part` of the longer side."""
    scale = cmath.rect(part * max(height, width) / 112, math.radians(degrees))
    return scale, complex(width, height) / 2 - scale * complex(56, 60)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(150, 260),
    width=st.integers(150, 260),
    part=st.floats(0.5, 0.8),
    degrees=st.floats(-35, 35),
)
def test_a_drawn_face_is_aligned_wherever_it_is(height, width, part, degrees):
    scale, shift = placed(height, width, part, degrees)
    parser = FakeParser()
    theta = align(paint(draw(height, width, scale, shift)), parser)
    assert theta.shape == (1, 2, 3)
    assert theta.dtype == torch.float32
    assert missed(theta, (height, width), scale, shift) < 2.5
    assert (parser.looks, parser.searches) == (1, 0)


@pytest.mark.parametrize("eye", [0, 1])
@pytest.mark.parametrize("degrees", [-20, 0, 20])
def test_one_eye_will_do(eye, degrees):
    scale, shift = placed(200, 220, 0.7, degrees)
    labels = draw(200, 220, scale, shift, eyes=(eye,))
    points = five_points(labels)
    assert points.isnan().tolist() == [eye == 1, eye == 0, False, False, False]
    assert missed(align(paint(labels), FakeParser()), (200, 220), scale, shift) < 3.5


def test_a_small_face_is_searched_for_and_looked_at_closely():
    scale, shift = placed(300, 400, 0.2, 10)
    middle = scale * complex(56, 56) + shift
    parser = FakeParser([Face(middle.imag, middle.real, 66.0), Face(20.0, 20.0, 30.0)])
    theta = align(paint(draw(300, 400, scale, shift)), parser)
    assert (parser.looks, parser.searches) == (2, 1)
    assert missed(theta, (300, 400), scale, shift) < 2.5


def test_where_the_points_cannot_be_made_out_the_cut_is_upright_around_the_face():
    theta = align(torch.ones(1, 3, 100, 200), FakeParser([Face(40.0, 120.0, 40.0)]))
    (a, b, c), (d, e, f) = theta[0].tolist()
    assert b == d == 0
    assert a * 200 == pytest.approx(e * 100)
    assert 40 < a * 200 < 60
    assert (c + 1) * 100 == pytest.approx(120, abs=0.1)
    assert 30 < (f + 1) * 50 <= 40


def test_eyes_nose_and_mouth_elsewhere_than_in_a_face_are_none():
    labels = torch.full((120, 120), SKIN)
    labels[60:64, 10:110] = EYE  # all on one line
    labels[70:74, 10:110] = NOSE
    labels[80:84, 10:110] = LIP
    with pytest.raises(ImageError, match=r"No face was found in the picture \(120 × 120 pixels\)"):
        align(paint(labels), FakeParser())


def test_of_two_faces_the_larger_counts_and_glasses_stand_for_eyes():
    small, large = draw(120, 120, 0.5 + 0j, 20 + 20j), draw(200, 200, 1.2 + 0j, 20 + 20j)
    large[large == EYE] = LABELS.index("glasses")
    labels = torch.zeros(200, 330, dtype=torch.int64)
    labels[:120, :120], labels[:, 130:] = small, large
    points = five_points(labels)
    expected = torch.tensor([1.2 * complex(x + 0.5, y + 0.5) + 150 + 20j for x, y in TEMPLATE])
    assert (points - expected).abs().max() < 3
    assert five_points(torch.zeros(50, 50, dtype=torch.int64)) is None
    assert five_points(draw(200, 200, 1.2 + 0j, 20 + 20j, eyes=())) is None


# ------------------------------------------------------------------------------------------------ cutting out


def test_a_picture_of_the_templates_size_is_cut_out_as_it_is(picture):
    image = picture(112, 112)
    torch.testing.assert_close(cut_out(image, torch.eye(2, 3)[None]), image, rtol=0, atol=1e-5)


def test_an_alignment_holds_for_the_picture_at_another_size():
    scale, shift = placed(360, 300, 0.7, 12)
    image = paint(draw(360, 300, scale, shift))
    theta = align(image, FakeParser())
    small, large = cut_out(resize(image, (240, 200)), theta), cut_out(resize(image, (900, 750)), theta)
    assert (small - large).abs().mean() < 0.02


def test_every_pixel_of_a_large_face_counts():
    fine = (torch.arange(448)[:, None] + torch.arange(448)) % 2
    gray = cut_out(fine.float().expand(1, 3, -1, -1), torch.eye(2, 3)[None])
    torch.testing.assert_close(gray, torch.full_like(gray, 0.5))


def test_outside_the_picture_is_black():
    twice = cut_out(torch.ones(1, 3, 50, 50), 2 * torch.eye(2, 3)[None])
    assert twice[..., :27, :].max() == 0
    assert twice[..., 40:70, 40:70].min() == pytest.approx(1)


# ------------------------------------------------------------------------------------------------- identity


@pytest.fixture(scope="module")
def portrait() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    scale, shift = placed(160, 140, 0.7, 8)
    image = paint(draw(160, 140, scale, shift))
    return (image - 0.1 * torch.rand(image.shape, generator=generator)).clamp(0, 1)


def test_equal_pictures_have_the_cosine_one_and_directions_the_length_one(tensors, portrait):
    identity = Identity("cpu", tensors, FakeParser())
    pair = torch.cat([portrait, portrait.flip(3)])
    torch.testing.assert_close(identity(pair, pair), torch.ones(2))
    directions = identity.embed(pair)
    assert directions.shape == (2, 512)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(2))
    crossed = identity(portrait, portrait.flip(3)).item()
    assert crossed < 1 - 1e-3


def test_pictures_of_equal_sizes_are_cut_out_where_the_first_ones_face_is(tensors, portrait):
    parser = FakeParser()
    identity = Identity("cpu", tensors, parser)
    faceless = torch.full_like(portrait, 0.9)
    alike = identity(portrait, faceless)
    theta = align(portrait, FakeParser())
    assert parser.looks == 1
    expected = (identity.embed(portrait, theta) * identity.embed(faceless, theta)).sum(1)
    torch.testing.assert_close(alike, expected)
    with pytest.raises(ImageError, match="No face"):
        identity(portrait, resize(faceless, (150, 140)))


def test_an_embedding_is_differentiable_once_the_picture_is_aligned(tensors, portrait):
    identity = Identity("cpu", tensors, FakeParser())
    image = portrait.clone().requires_grad_()
    target = identity.embed(portrait.flip(3)).detach()
    (1 - (identity.embed(image, align(image, FakeParser())) * target).sum()).backward()
    assert image.grad.isfinite().all()
    assert (image.grad[..., 40:120, 40:100] != 0).float().mean() > 0.95
    with torch.no_grad():
        better = identity.embed(
            image - 0.02 * image.grad / image.grad.abs().max(), align(image, FakeParser())
        )
        before = identity.embed(image, align(image, FakeParser()))
    assert (better * target).sum() > (before * target).sum()


def test_what_is_wrong_is_said_in_one_sentence(tensors, portrait):
    identity = Identity("cpu", tensors, FakeParser())
    faceless = torch.ones_like(portrait)
    with pytest.raises(ImageError, match=r"Picture 2 of 2: No face was found in the picture \(140 × 160"):
        identity.embed(torch.cat([portrait, faceless]))
    with pytest.raises(ImageError, match=r"^No face was found"):
        identity.embed(faceless)
    with pytest.raises(SettingError, match="2 and 1 pictures are no pairs"):
        identity(torch.cat([portrait, portrait]), portrait)
    with pytest.raises(SettingError, match="does not fit 1 pictures"):
        identity.embed(portrait, torch.zeros(2, 2, 3))
    with pytest.raises(ImageError, match="no numbers"):
        identity(portrait, portrait * torch.nan)
    with pytest.raises(ImageError, match="One picture is wanted"):
        align(torch.cat([portrait, portrait]), FakeParser())
    for wrong in (portrait[0], portrait[:, :1], portrait[..., :0], "picture.jpg"):
        with pytest.raises(ImageError, match=r"has the shape \(N, 3, H, W\)"):
            identity.embed(wrong)


@pytest.mark.weights
def test_the_real_net_gives_what_onnxruntime_gives():
    net = from_official(assets.load_tensors("arcface_mobilefacenet", progress=False))
    embedding = net(waves())[0]
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
    images = [resize(load_image(assets.data_path(f"portraits/{name}.jpg")), 512) for name in names]
    directions = torch.cat([identity.embed(image) for image in images])
    alike = directions @ directions.T
    same = alike[:3, :3][~torch.eye(3, dtype=torch.bool)]
    assert same.min() > 0.5
    assert alike[:3, 3:].max() < 0.3
    assert alike[3, 4] < 0.3
