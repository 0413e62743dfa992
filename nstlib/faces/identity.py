"""How alike two faces are, whoever drew them: the identity that a stylized portrait should keep.

Source: ArcFace (Deng et al. 2019), whose network answers with a direction in 512 dimensions; the cosine of
two directions is high for pictures of one person and near 0 for two people. DualStyleGAN (paper A) trains
with such a cosine as a loss. The network knows faces cut out to one template only, with eyes, nose and mouth
at the same places always. InsightFace finds these five points with a detector of its own; here they are read
off the face parser's masks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from skimage.measure import label as connected
from torch import Tensor

from .. import assets
from ..errors import ImageError, SettingError
from ..nets.bisenet import LABELS
from ..nets.hardware import resolve_device
from ..nets.mobilefacenet import SIDE, from_official
from ..pictures.files import resize
from .parse import FaceParser

TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""ArcFace's places (x, y) in its 112 × 112 pixels: the eyes, the nose's tip, the corners of the mouth."""

PORTRAIT = ((0.739, -0.0065, -0.006), (0.0065, 0.739, -0.004))
"""Where the face of a portrait aligned like FFHQ is, as :func:`align` gives it: what it found in 24 generated
faces on average (standard deviation 0.018 of size, 0.011 of turn, 0.008 of place)."""

_EYES, _GLASSES, _NOSE = ("left eye", "right eye"), ("glasses",), ("nose",)
_MOUTH = ("upper lip", "lower lip", "inner mouth")

# Whole portraits are parsed at 384 pixels: half the time of 512, and as many faces aligned; 256 loses eyes.
_QUICK, _CLOSE = 384, 512
_SMALLEST = 0.35  # of the picture's longer side: below, the parser is lost without a closer look
_FARTHEST = 6.0  # pixels of 112 that the points may miss the template by (root mean square); usual are 2.3
_LOOK = 2.0  # sides of a found face that are parsed, as the parser itself does
_BOX, _HIGHER = 1.25, 0.08  # from a found face to the template's square: sides, and sides further up
_FEWEST = 8  # pixels of a part, below which it counts as not seen
_IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


class Identity:
    """Cosine similarity of the faces in two batches of pictures.

    Args:
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        tensors: weights instead of the asset's, in the published layout (tests, own networks).
        parser: finds the faces; by default one is made as soon as a face has to be found.

    Raises:
        AssetError: the weights cannot be had.
        SettingError: no such device, or the tensors are not MobileFaceNet's.

    Example:
        >>> identity = Identity()                                   # doctest: +SKIP
        >>> identity(photograph, stylized)                          # doctest: +SKIP
        tensor([0.7312])
        >>> alignment = align(photograph)                           # doctest: +SKIP
        >>> loss = 1 - identity.embed(picture, alignment) @ target  # doctest: +SKIP
    """

    def __init__(
        self,
        device: str | torch.device = "auto",
        tensors: Mapping[str, Tensor] | None = None,
        parser: FaceParser | None = None,
    ) -> None:
        self.device = resolve_device(device)
        weights = assets.load_tensors("arcface_mobilefacenet") if tensors is None else tensors
        self.net = from_official(weights).to(self.device)
        self.parser = parser

    def embed(self, images: Tensor, alignment: Tensor | None = None) -> Tensor:
        """The directions of the faces, differentiable with respect to the pictures once they are aligned.

        Args:
            images: (N, 3, H, W), RGB in [0, 1], any size.
            alignment: (N, 2, 3) or (1, 2, 3) from :func:`align`; by default each picture's largest face is
                looked for.

        Returns:
            (N, 512), float32, of length 1.

        Raises:
            ImageError: not a picture, or no face is found in it.
            SettingError: the alignment does not fit the pictures.
            AssetError: the parser's weights cannot be had.
        """
        if alignment is None:
            alignment = self._align(images)
        return F.normalize(self.net(2 * cut_out(images.to(self.device), alignment) - 1))

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """How alike the faces of each pair are: the cosine, (N,), 1 for equal pictures.

        If the pictures have equal sizes, both faces are cut out where A's is: a stylized picture's own face
        often cannot be found, and its lines lie where the photograph's are. If not, each where its own is.

        Args:
            a: (N, 3, H, W), RGB in [0, 1]: the photographs.
            b: (N, 3, H', W'): what became of them.

        Raises:
            SettingError: the batches have different numbers of pictures.
            ImageError: not a picture, or no face is found in it.
        """
        if len(_check(a)) != len(_check(b)):
            raise SettingError(f"{len(a)} and {len(b)} pictures are no pairs: give as many of each.")
        alignment = self._align(a)
        shared = alignment if a.shape[-2:] == b.shape[-2:] else None
        return (self.embed(a, alignment) * self.embed(b, shared)).sum(1)

    def _align(self, images: Tensor) -> Tensor:
        self.parser = self.parser or FaceParser(self.device)
        found = []
        for index, image in enumerate(_check(images).split(1)):
            try:
                found.append(align(image, self.parser))
            except ImageError as error:
                if len(images) == 1:
                    raise
                raise ImageError(f"Picture {index + 1} of {len(images)}: {error}") from error
        return torch.cat(found)


def align(image: Tensor, parser: FaceParser | None = None) -> Tensor:
    """Where the largest face of a picture is, as ArcFace wants it cut out.

    The similarity (rotation, scale, shift) that brings the five points nearest to `TEMPLATE`. A picture that
    a face fills is parsed once as it is; only if that shows none, or a small one, faces are searched for. Of
    a face half turned away, one eye will do; where the points cannot be made out, the cut is upright.

    Args:
        image: (1, 3, H, W), RGB in [0, 1], any size.
        parser: to use one for several pictures.

    Returns:
        (1, 2, 3), float32, on the CPU: theta of ``torch.nn.functional.affine_grid``. It counts in halves of
        the picture's width and height, and so holds for the same picture at another size too.

    Raises:
        ImageError: not one picture, or no face is found in it.
        AssetError: the parser's weights cannot be had.
    """
    height, width = _check(image).shape[-2:]
    if len(image) != 1:
        raise ImageError(f"One picture is wanted, not a batch of {len(image)}: pass image[i:i+1].")
    image, parser = image.detach(), parser or FaceParser()
    whole = slice(0, height), slice(0, width)
    found = _fit(image, whole, _QUICK, parser)
    if found is None or abs(found[0]) * SIDE < _SMALLEST * max(height, width):
        found = _search(image, parser)
    scale, shift = found
    # Template pixel t lies at scale · t + shift; both ends are counted from -1 to 1 instead.
    half = SIDE / 2
    middle = scale * complex(half, half) + shift
    rows = (
        (scale.real * SIDE / width, -scale.imag * SIDE / width, 2 * middle.real / width - 1),
        (scale.imag * SIDE / height, scale.real * SIDE / height, 2 * middle.imag / height - 1),
    )
    return torch.tensor([rows])


def portrait_alignment() -> Tensor:
    """The alignment (1, 2, 3) that fits all portraits aligned like FFHQ, without looking for their faces."""
    return torch.tensor([PORTRAIT])


def cut_out(images: Tensor, alignment: Tensor) -> Tensor:
    """Faces cut out to the template; what lies outside a picture is black, as InsightFace has it.

    Large faces are averaged down, so that every pixel of theirs counts (and gets its gradient).

    Args:
        images: (N, 3, H, W), RGB in [0, 1].
        alignment: (N, 2, 3), or (1, 2, 3) for all, from :func:`align`.

    Returns:
        (N, 3, 112, 112), differentiable with respect to the pictures.

    Raises:
        ImageError: not pictures.
        SettingError: the alignment does not fit them.
    """
    count = len(_check(images))
    if alignment.shape not in ((count, 2, 3), (1, 2, 3)):
        raise SettingError(
            f"An alignment of shape {tuple(alignment.shape)} does not fit {count} pictures: give (N, 2, 3), "
            "as align(image) makes them."
        )
    alignment = alignment.to(images.device, torch.float32).expand(count, 2, 3)
    faces = []
    for image, theta in zip(images.float().split(1), alignment.split(1), strict=True):
        pixels = theta[0, :, 0] * theta.new_tensor([image.shape[-1], image.shape[-2]]) / SIDE
        finer = min(16, max(1, round(pixels.norm().item())))  # samples a side for a pixel of the template
        grid = F.affine_grid(theta, [1, 3, SIDE * finer, SIDE * finer], align_corners=False)
        faces.append(F.avg_pool2d(F.grid_sample(image, grid, align_corners=False), finer))
    return torch.cat(faces)


def five_points(labels: Tensor) -> Tensor | None:
    """Eyes, tip of the nose and corners of the mouth of the largest face, from the classes of its pixels.

    Args:
        labels: (h, w), indices into :data:`nstlib.nets.bisenet.LABELS`.

    Returns:
        (5,), complex (x + iy), in pixels with (0, 0) the corner of the first; of an eye that cannot be seen
        not a number; None where there is no eye, no nose or no mouth.
    """
    parts = _largest_face(labels)
    if parts is None:
        return None
    eyes, nose, mouth = parts
    down = mouth.mean() - eyes.mean()
    points = torch.full((5,), torch.nan, dtype=eyes.dtype)
    for _ in range(2):  # one eye alone makes the face look tilted; its mouth shows then how it is not
        down = down / down.abs()
        depth, across = _along(nose, down), _along(mouth, -1j * down)
        points[2] = nose[depth >= depth.quantile(0.5)].mean()
        points[3] = mouth[across <= across.quantile(0.04)].mean()
        points[4] = mouth[across >= across.quantile(0.96)].mean()
        side = _along(eyes, -1j * down)
        right = side > (side.quantile(0.02) + side.quantile(0.98)) / 2
        points[:2] = torch.stack([eyes[~right].mean(), eyes[right].mean()])
        if not (points[1] - points[0]).abs() > 0.4 * (mouth.mean() - eyes.mean()).abs():
            # One eye. Which one? That with which the whole fits better.
            tries = points.repeat(2, 1)
            tries[0, 0] = tries[1, 1] = eyes.mean()
            tries[0, 1] = tries[1, 0] = torch.nan
            points = min(tries, key=lambda one: _similarity(one)[2])
        down = torch.tensor(1j * _similarity(points)[0])
    return points


def _largest_face(labels: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Where the pixels of eyes, nose and mouth are, on the patch of skin that has most of them."""
    inner = _is(labels, *_EYES, *_GLASSES, *_NOSE, *_MOUTH)
    if not bool(inner.any()):
        return None
    patches = torch.from_numpy(connected((inner | _is(labels, "skin", "left brow", "right brow")).numpy()))
    labels = labels.masked_fill(patches != patches[inner].mode().values, 0)
    # The parser often takes left for right, so that the eyes are told apart by where they lie, later.
    eyes, glasses, nose, mouth = (_places(_is(labels, *part)) for part in (_EYES, _GLASSES, _NOSE, _MOUTH))
    eyes = eyes if len(eyes) >= 0.1 * len(glasses) else glasses
    return None if min(map(len, (eyes, nose, mouth))) < _FEWEST else (eyes, nose, mouth)


def _search(image: Tensor, parser: FaceParser) -> tuple[complex, complex]:
    """Scale and shift from the template to the largest face that the parser's own, slow search finds."""
    height, width = image.shape[-2:]
    faces = parser.faces(image)
    if not faces:
        raise ImageError(
            f"No face was found in the picture ({width} × {height} pixels): identity is measured only where "
            "there is one, so leave it out."
        )
    face = faces[0]
    found = _fit(image, face.window(_LOOK, height, width), _CLOSE, parser)
    if found is None:
        scale = _BOX * face.side / SIDE
        found = (
            complex(scale),
            complex(face.x, face.y - _HIGHER * face.side) - scale * complex(SIDE, SIDE) / 2,
        )
    return found


@torch.no_grad()
def _fit(
    image: Tensor, window: tuple[slice, slice], side: int, parser: FaceParser
) -> tuple[complex, complex] | None:
    """Scale and shift from the template to the face in a window, parsed at so many pixels a side."""
    crop = image[..., window[0], window[1]].float()
    longest = max(crop.shape[-2:])
    height, width = (max(1, round(n / longest * side / 32)) * 32 for n in crop.shape[-2:])
    mean, deviation = _IMAGENET.to(parser.device)[:, None, :, None, None]
    inputs = (resize(crop, (height, width)).to(parser.device) - mean) / deviation
    # The classes are wanted at the crop's proportions, which multiples of 32 do not quite have.
    size = (max(1, round(crop.shape[-2] * side / longest)), max(1, round(crop.shape[-1] * side / longest)))
    points = five_points(parser.net.labels(inputs, size)[0].cpu())
    if points is None:
        return None
    scale, shift, missed = _similarity(points)
    if not missed <= _FARTHEST:  # not a number, too, is no fit
        return None
    finer = longest / side
    return scale * finer, shift * finer + complex(window[1].start, window[0].start)


def _is(labels: Tensor, *names: str) -> Tensor:
    return torch.isin(labels, torch.tensor([LABELS.index(name) for name in names]))


def _places(mask: Tensor) -> Tensor:
    y, x = torch.nonzero(mask, as_tuple=True)
    return torch.complex(x + 0.5, y + 0.5)


def _along(points: Tensor, axis: Tensor) -> Tensor:
    return (points * axis.conj()).real


def _similarity(points: Tensor) -> tuple[complex, complex, float]:
    """Scale and shift (complex: a rotation too) from the template to points, and what they miss it by.

    The least squares of Umeyama 1991; with complex numbers it is a regression on one variable.
    """
    # InsightFace counts from the middle of the first pixel, we from its corner.
    template = torch.tensor([complex(x + 0.5, y + 0.5) for x, y in TEMPLATE])
    seen = ~points.isnan()
    template, points = template[seen], points[seen]
    from_, to = template - template.mean(), points - points.mean()
    scale = (from_.conj() * to).sum() / from_.abs().square().sum()
    missed = (to - scale * from_).abs().square().mean().sqrt() / scale.abs()
    return scale.item(), (points.mean() - scale * template.mean()).item(), missed.item()


def _check(image: Tensor) -> Tensor:
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ImageError(f"A picture has the shape (N, 3, H, W), not {what}; load_image gives the right one.")
    if not bool(image.detach().isfinite().all()):
        raise ImageError("The picture has values that are no numbers (NaN or infinite): compute it again.")
    return image
