"""Which pixels are hair, face, eyes: from a picture to soft masks.

Paper E (section 3.4) transfers style to chosen regions of a portrait, for which it parses the picture into
six masks: eyebrow, eye, nose, lip, face (with the neck) and hair. They do not overlap: its Fig. 10 adds the
eyebrows, eyes, mouth and nose after the face, so they are cut out of it. Two more, "person" and "background",
need no face.

The parser has learned from pictures that a face fills, and is lost where the face is small: pasted into a
landscape at a quarter of its side, a face is parsed with a mean IoU of 0.06, and with a close look of 0.88.
So faces are looked for first, and each is parsed three times: to find its middle, close for the face, and
from further away for long hair and the neck.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import skimage.data
import torch
import torch.nn.functional as F
from skimage.feature import Cascade
from skimage.filters import gaussian
from skimage.measure import label as connected
from torch import Tensor

from .. import assets
from ..errors import ImageError, SettingError
from ..nets.bisenet import LABELS, from_official
from ..nets.hardware import resolve_device
from ..pictures.files import load_image, resize

REGIONS = ("eyebrow", "eye", "nose", "lip", "face", "hair")
"""The six regions of paper E: at each pixel at most one of them."""

NAMES = (*REGIONS, "person", "background")
"""All regions that `region_masks` knows; person and background together are the whole picture."""

CLASSES: dict[str, tuple[str, ...]] = {
    # The parser often takes left for right, so that only both together can be relied on.
    "eyebrow": ("left brow", "right brow"),
    # Glasses hide the eyes and lie where they are; a mask without them would leave a pair of holes.
    "eye": ("left eye", "right eye", "glasses"),
    "nose": ("nose",),
    "lip": ("upper lip", "lower lip", "inner mouth"),
    # Jewelry is worn on skin: left out, it would be cut out of the middle of an ear or a neck.
    "face": ("skin", "left ear", "right ear", "earring", "neck", "necklace"),
    "hair": ("hair",),
}
"""Region -> the parser's classes it is made of; cloth and hat belong to none."""

# Sides of the three looks, in sides of the face. Close, 1.5 to 2 are equal within 0.01 IoU, 2.2 loses eyes.
_LOOK, _CLOSE, _WIDE = 2.0, 1.7, 3.2
_SIDE = 512  # pixels: the parser's own, and with it the detector takes half a second on one processor core
_SMALLEST_FACE = 24  # pixels of these, what the detector was trained on
_IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
_RISE = 2.563  # standard deviations of a Gaussian over which the step that it blurs rises from 10 to 90 %


def _classes(*regions: str) -> list[int]:
    return [LABELS.index(name) for region in regions for name in CLASSES[region]]


_INNER = _classes("eyebrow", "eye", "nose", "lip")


@dataclass(frozen=True)
class Face:
    """Where a face is: middle and side of a square from the brows to the mouth, in pixels of the picture."""

    y: float
    x: float
    side: float

    def window(self, scale: float, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the square `scale` times as large, as far as it lies in the picture."""
        half = scale * self.side / 2
        return (
            slice(max(0, round(self.y - half)), min(height, round(self.y + half))),
            slice(max(0, round(self.x - half)), min(width, round(self.x + half))),
        )

    def overlaps(self, other: Face) -> bool:
        """Whether the two are too near to be different faces."""
        return math.dist((self.y, self.x), (other.y, other.x)) < (self.side + other.side) / 2

    def distance(self, rows: slice, columns: slice) -> Tensor:
        """How far the pixels of a window are from the middle of the face, in its sides."""
        y = torch.arange(rows.start, rows.stop).sub(self.y).abs()[:, None]
        x = torch.arange(columns.start, columns.stop).sub(self.x).abs()[None]
        return torch.maximum(y, x) / self.side


class FaceParser:
    """Finds the faces in a picture and gives each pixel one of the 19 classes of CelebAMask-HQ.

    Args:
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        tensors: weights instead of the asset's, in BiSeNet's published layout (tests, own networks).
        max_faces: the largest so many are parsed, each for one to two seconds on a processor core.

    Raises:
        AssetError: the weights cannot be had.
        SettingError: no such device, fewer than one face, or the tensors are not BiSeNet's.
    """

    def __init__(
        self,
        device: str | torch.device = "auto",
        tensors: Mapping[str, Tensor] | None = None,
        *,
        max_faces: int = 8,
    ) -> None:
        if max_faces < 1:
            raise SettingError(f"max_faces is {max_faces}, but must be at least 1.")
        self.device = resolve_device(device)
        self.max_faces = max_faces
        weights = assets.load_tensors("bisenet_faceparse19") if tensors is None else tensors
        self.net = from_official(weights).to(self.device)
        # OpenCV's cascade for upright faces from the front comes with scikit-image: nothing to fetch.
        self.detector = Cascade(skimage.data.lbp_frontal_face_cascade_filename())

    def faces(self, image: Tensor) -> list[Face]:
        """The faces in one picture (1, 3, H, W), largest first; none is an empty list.

        A detection counts if the parser sees a nose in it, and eyes or a mouth. Only where none does, the
        parser looks at the whole picture, which finds a painted face or one from the side if it is large.

        Raises:
            ImageError: not a picture.
        """
        if len(_check(image)) != 1:
            raise ImageError(f"One picture is wanted, not a batch of {len(image)}: pass image[i:i+1].")
        return sorted((face for face, _ in self._find(image)), key=lambda face: -face.side)

    def labels(self, image: Tensor) -> Tensor:
        """The class of each pixel, as an index into :data:`nstlib.nets.bisenet.LABELS`.

        All faces found count; a pixel between two goes by the nearer one. What is far from any face is
        background (0), even if a body is there.

        Args:
            image: (N, 3, H, W), RGB in [0, 1], any size; the pictures are parsed one by one.

        Returns:
            (N, 1, H, W), int64, on the picture's device; all 0 where no face was found.

        Raises:
            ImageError: not a picture.
        """
        return torch.cat([self._merge(one, self._find(one)) for one in _check(image).split(1)])

    def _find(self, image: Tensor) -> list[tuple[Face, Tensor]]:
        """Faces with the classes of their close windows."""
        height, width = image.shape[-2:]
        whole = Face(height / 2, width / 2, max(height, width))
        found: list[tuple[Face, Tensor]] = []
        for places, scale in ((self._detect(image), _LOOK), ([whole], 1.0)):
            for place in places:
                if found and (place is whole or any(place.overlaps(face) for face, _ in found)):
                    continue
                rows, columns = place.window(scale, height, width)
                seen = self._parse(image, (rows, columns))
                # Around a face the parser needs to see more than it may find: a collar is no mouth.
                guess = _guess_face(seen.masked_fill(place.distance(rows, columns) > 0.7, 0))
                if guess is None:
                    continue
                face = Face(guess.y + rows.start, guess.x + columns.start, guess.side)
                if any(face.overlaps(other) for other, _ in found):
                    continue
                close = self._parse(image, face.window(_CLOSE, height, width))
                if _holds_face(face, close):
                    found.append((face, close))
                if len(found) == self.max_faces:
                    return found
        return found

    def _detect(self, image: Tensor) -> list[Face]:
        """What the cascade takes for faces, largest first."""
        small = resize(image, _SIDE, allow_upscale=True)
        scale = max(image.shape[-2:]) / _SIDE
        found = self.detector.detect_multi_scale(
            small[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().byte().cpu().numpy(),
            scale_factor=1.2,
            step_ratio=1,
            min_size=(_SMALLEST_FACE, _SMALLEST_FACE),
            max_size=(min(small.shape[-2:]),) * 2,
        )
        faces = [
            Face((d["r"] + d["height"] / 2) * scale, (d["c"] + d["width"] / 2) * scale, d["height"] * scale)
            for d in found
        ]
        return sorted(faces, key=lambda face: -face.side)

    @torch.no_grad()
    def _parse(self, image: Tensor, window: tuple[slice, slice]) -> Tensor:
        """The classes (h, w) of a window of the picture, on the CPU."""
        crop = image[..., window[0], window[1]].detach()
        size = (crop.shape[-2], crop.shape[-1])
        # Not a padded square: the network takes any multiple of 32, and is no worse for it.
        h, w = (max(1, round(n / max(size) * _SIDE / 32)) * 32 for n in size)
        mean, deviation = _IMAGENET.to(self.device)[:, None, :, None, None]
        inputs = (resize(crop.float(), (h, w)).to(self.device) - mean) / deviation
        return self.net.labels(inputs, size)[0].cpu()

    def _merge(self, image: Tensor, found: list[tuple[Face, Tensor]]) -> Tensor:
        """The classes (1, 1, H, W) of a picture with these faces."""
        height, width = image.shape[-2:]
        labels = torch.zeros(height, width, dtype=torch.int64)
        nearest = torch.full((height, width), math.inf)
        for face, close in found:
            views = [(face.window(_CLOSE, height, width), close)]
            around = face.window(_WIDE, height, width)
            if around != views[0][0]:
                wide = self._parse(image, around)
                # From afar eyes are trusted no more, and skin only near: those of a passer-by, or a hand.
                skin = (wide == LABELS.index("skin")) & (face.distance(*around) > 1.1)
                wide[skin | torch.isin(wide, torch.tensor(_INNER))] = 0
                views.insert(0, (around, wide))
            for window, view in views:
                distance = face.distance(*window)
                mine = distance <= nearest[window]
                labels[window][mine] = view[mine]
                nearest[window][mine] = distance[mine]
        return labels[None, None].to(image.device)


def region_masks(
    image: Tensor,
    names: Sequence[str] = REGIONS,
    *,
    softness: float = 4.0,
    parser: FaceParser | None = None,
) -> dict[str, Tensor]:
    """Soft masks of regions of a picture.

    The masks of `REGIONS` sum to at most 1 (what is missing is cloth, hat and background), those of "person"
    and "background" to 1: hard masks that share the pixels out, blurred alike. The border's middle, 0.5, lies
    on the region's edge. Masks of several regions are joined by adding them.

    "person" is what stands out from the background (U²-Net, Qin et al. 2020): a person from behind, an animal
    or a cup as well. A region that is not to be seen (the hair of a bald head) has a mask of zeros.

    Args:
        image: (N, 3, H, W), RGB in [0, 1], any size. All faces found in a picture count.
        names: of `NAMES`.
        softness: width of the border in pixels, in which the mask rises from 0.1 to 0.9; 0 gives a hard mask.
            A region narrower than that fades: an eyebrow has about 1/40 of the face's width.
        parser: to use one for several pictures; by default one is made, if a face is needed at all.

    Returns:
        name -> (N, 1, H, W), float32 in [0, 1], on the picture's device.

    Raises:
        ImageError: not a picture, or no face (no person) is found in it.
        SettingError: unknown region, or a softness that is no width.
        AssetError: the weights cannot be had.
    """
    _check_names(names, NAMES)
    if not (isinstance(softness, int | float) and math.isfinite(softness) and softness >= 0):
        raise SettingError(f"softness is {softness!r}, but must be a width in pixels, 0 or more.")
    hard: dict[str, Tensor] = {}
    if any(name in REGIONS for name in names):
        labels = (parser or FaceParser()).labels(_check(image))
        remedy = "take the region 'person' or 'background', or the whole picture"
        _refuse_empty(labels, f"No face was found{{}}: {remedy}.")
        hard |= {name: torch.isin(labels, labels.new_tensor(_classes(name))) for name in REGIONS}
    if not set(names) <= set(REGIONS):
        person = _subjects(_check(image))
        _refuse_empty(person, "Nothing stands out from the background{}: take the whole picture.")
        hard |= {"person": person, "background": ~person}
    return {name: _soften(hard[name].float(), softness) for name in dict.fromkeys(names)}


def mean_iou(found: Tensor, truth: Tensor, regions: Sequence[str] = REGIONS) -> dict[str, float]:
    """Intersection over union of two label maps: how far they agree on the regions.

    Args:
        found: (N, 1, H, W), indices into :data:`nstlib.nets.bisenet.LABELS`, as `FaceParser.labels` gives.
        truth: likewise; pixels are counted over all N.
        regions: of `REGIONS`.

    Returns:
        region -> IoU in [0, 1], or NaN for one that neither has; then "mean" over the others.

    Raises:
        SettingError: unknown region, or maps of different shapes.
    """
    _check_names(regions, REGIONS)
    if found.shape != truth.shape:
        raise SettingError(
            f"Label maps of {tuple(found.shape)} and {tuple(truth.shape)} cannot be compared: resize one."
        )
    result = {}
    for name in regions:
        classes = torch.tensor(_classes(name), device=found.device)
        a, b = torch.isin(found, classes), torch.isin(truth.to(found.device), classes)
        union = int((a | b).sum())
        result[name] = int((a & b).sum()) / union if union else math.nan
    known = [value for value in result.values() if not math.isnan(value)]
    return result | {"mean": sum(known) / len(known) if known else math.nan}


def read_celebamask(path: str | Path) -> Tensor:
    """A label map of CelebAMask-HQ's own demo, in which the classes have other numbers than in the parser.

    Returns:
        (1, 1, H, W), int64, indices into :data:`nstlib.nets.bisenet.LABELS`.

    Raises:
        ImageError: the file cannot be read, or has values beyond 18.
    """
    numbers = load_image(path)[:, :1].mul(255).round().long()
    if int(numbers.max()) >= len(LABELS):
        raise ImageError(f"'{path}' is no label map: its values go to {int(numbers.max())}, not to 18.")
    names = (
        "background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow",
        "left ear", "right ear", "inner mouth", "upper lip", "lower lip", "hair", "hat", "earring",
        "necklace", "neck", "cloth",
    )  # fmt: skip
    return torch.tensor([LABELS.index(name) for name in names])[numbers]


def _holds_face(face: Face, close: Tensor) -> bool:
    """Whether the classes of a close window show a nose, and eyes or a mouth, in the size of the face.

    Of 550 portraits all but two had a nose of 2.5 % of the square or more; without a face it was 0.2 %.
    """
    parts = (_classes("nose"), _classes("eyebrow", "eye", "lip"))
    return all(torch.isin(close, torch.tensor(part)).sum() >= 0.01 * face.side**2 for part in parts)


def _guess_face(labels: Tensor) -> Face | None:
    """The face in classes (H, W): around eyes, nose and mouth of the patch of skin that has most of them."""
    inner = torch.isin(labels, torch.tensor(_INNER))
    if not bool(inner.any()):
        return None
    patches = torch.from_numpy(connected((inner | (labels == LABELS.index("skin"))).numpy()))
    rows, columns = torch.nonzero(inner & (patches == patches[inner].mode().values), as_tuple=True)
    top, bottom = rows.min().item(), rows.max().item() + 1
    left, right = columns.min().item(), columns.max().item() + 1
    # To the detector's squares, of which these two numbers are the median over 134 portraits.
    side = 1.34 * max(bottom - top, right - left)
    return Face((top + bottom) / 2 - 0.08 * side, (left + right) / 2, side)


def _subjects(images: Tensor) -> Tensor:
    """What stands out from the background of pictures: (N, 1, H, W), bool.

    U²-Net and not the portrait matte MODNet, which draws single hairs but tears paintings, animals and old
    photographs to pieces.
    """
    import onnxruntime  # slow to import, and only this needs it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    net = onnxruntime.InferenceSession(assets.fetch("u2net"), options, providers=["CPUExecutionProvider"])
    name = net.get_inputs()[0].name
    mean, deviation = _IMAGENET[:, None, :, None, None]
    found = []
    for image in images.detach().float().cpu().split(1):
        small = resize(image, (320, 320))
        # Divided by its brightest value, as U²-Net's authors do it; the first output is the answer.
        inputs = (small / small.max().clamp_min(1e-6) - mean) / deviation
        saliency = torch.from_numpy(net.run(None, {name: inputs.numpy()})[0])
        subject = F.interpolate(saliency, image.shape[-2:], mode="bilinear", align_corners=False) > 0.5
        # Half a percent at least: bricks and stones leave specks of 0.1 %.
        found.append(subject & (subject.float().mean() > 0.005))
    return torch.cat(found).to(images.device)


def _soften(mask: Tensor, softness: float) -> Tensor:
    """Masks (N, 1, H, W) with their borders blurred; the picture's border repeats outside."""
    if softness == 0:
        return mask
    sigma = (0, 0, softness / _RISE, softness / _RISE)
    blurred = gaussian(mask.cpu().numpy(), sigma, mode="nearest", preserve_range=True)
    return torch.from_numpy(blurred).to(mask.device).clamp(0, 1)


def _refuse_empty(maps: Tensor, sentence: str) -> None:
    for index, one in enumerate(maps):
        if not bool(one.any()):
            which = "the picture" if len(maps) == 1 else f"picture {index + 1} of {len(maps)}"
            raise ImageError(sentence.format(f" in {which} ({one.shape[-1]} × {one.shape[-2]} pixels)"))


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(names, str):
        raise SettingError(f"The regions are a list of names: write ['{names}'].")
    if not names:
        raise SettingError(f"Name at least one region of {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise SettingError(f"There is no region '{name}': choose of {', '.join(known)}.")


def _check(image: Tensor) -> Tensor:
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ImageError(f"A picture has the shape (N, 3, H, W), not {what}; load_image gives the right one.")
    return image
