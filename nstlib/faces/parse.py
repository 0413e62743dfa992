"""Which pixels are hair, face, eyes: from a picture to soft masks.

Paper E (section 3.4) transfers style to chosen regions of a portrait, for which it parses the picture into
six masks: eyebrow, eye, nose, lip, face (with the neck) and hair. They do not overlap: its Fig. 10 adds the
eyebrows, eyes, mouth and nose after the face, so they are cut out of it. Two more, "person" and "background",
need no face.

The parser has learned from upright faces of one size and is lost on others, so each face that is found is
parsed in crops of its own, turned upright: close for the face, wider for long hair and the neck.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from skimage.filters import gaussian
from torch import Tensor

from .. import assets
from ..errors import ImageError, SettingError, known
from ..nets.bisenet import LABELS, from_official
from ..nets.hardware import resolve_device
from ..pictures.files import check_picture, resize
from .align import align, compose, inverse, oval, portrait_alignment, sample
from .detect import find_faces, onnx_session

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

# Two crops around a face, in sides of ArcFace's square: the close one has the framing that the parser knows,
# the wide one room for long hair. Skin further away than so many halves of the square is somebody else's.
_CLOSE, _WIDE, _SKIN = 1.5, 2.5, 1.8
_PIXELS = 512  # of a crop, the parser's own
_IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
_RISE = 2.563  # standard deviations of a Gaussian over which the step that it blurs rises from 10 to 90 %


class FaceParser:
    """Gives each pixel one of the 19 classes of CelebAMask-HQ.

    Args:
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        tensors: weights instead of the asset's, in BiSeNet's published layout (tests, own networks).

    Raises:
        AssetError: the weights cannot be had.
        SettingError: no such device, or the tensors are not BiSeNet's.
    """

    def __init__(
        self, device: str | torch.device = "auto", tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        self.device = resolve_device(device)
        weights = assets.load_tensors("bisenet_faceparse19") if tensors is None else tensors
        self.net = from_official(weights).to(self.device)

    def labels(self, image: Tensor) -> Tensor:
        """The class of each pixel, as an index into :data:`nstlib.nets.bisenet.LABELS`.

        All faces found count, each for about a second on a processor core; a pixel between two goes by the
        nearer one. What is far from any face is background (0), even if a body is there.

        Args:
            image: (N, 3, H, W), RGB in [0, 1], any size; the pictures are parsed one by one.

        Returns:
            (N, 1, H, W), int64, on the picture's device; all 0 where no face was found.

        Raises:
            ImageError: not a picture.
            AssetError: the detector cannot be had.
        """
        return torch.cat([self._labels(one) for one in check_picture("picture", image).split(1)])

    @torch.no_grad()
    def _labels(self, image: Tensor) -> Tensor:
        mean, deviation = _IMAGENET.to(self.device)
        inputs = (image.float().to(self.device) - mean) / deviation
        labels = torch.zeros(1, 1, *image.shape[-2:], dtype=torch.int64)
        nearest = torch.full(labels.shape, math.inf)
        for face in find_faces(image):
            square = align(image, face)
            # Where the picture's pixels are, in halves of the square.
            grid = F.affine_grid(inverse(square), [1, 1, *image.shape[-2:]], align_corners=False)
            distance = grid.abs().amax(-1)[:, None]
            found = torch.zeros_like(labels)
            for sides in (_WIDE, _CLOSE):
                theta = compose(square, torch.tensor([[[sides, 0, 0], [0, sides, 0]]])).to(self.device)
                crop = sample(inputs, theta, (_PIXELS, _PIXELS), "reflection", "bilinear")
                seen = self.net.labels(crop, (_PIXELS, _PIXELS))[:, None].float().cpu()
                seen = F.grid_sample(seen, grid / sides, mode="nearest", align_corners=False).long()
                found = torch.where(distance < sides, seen, found)
            found[(distance > _CLOSE) & _is(found, "eyebrow", "eye", "nose", "lip")] = 0
            found[(distance > _SKIN) & (found == LABELS.index("skin"))] = 0
            labels = torch.where(distance < nearest.clamp(max=_WIDE), found, labels)
            nearest = torch.minimum(nearest, distance)
        return labels.to(image.device)


def region_masks(
    image: Tensor, names: Sequence[str] = REGIONS, *, softness: float = 4.0, parser: FaceParser | None = None
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
    for name in names:
        known("region", name, NAMES)
    if not 0 <= softness < math.inf:
        raise SettingError(f"softness is {softness!r}, but must be a width in pixels, 0 or more.")
    hard: dict[str, Tensor] = {}
    if any(name in REGIONS for name in names):
        labels = (parser or FaceParser()).labels(image)
        remedy = "take the region 'person' or 'background', or the whole picture"
        _refuse_empty(labels, f"No face was found in the picture: {remedy}.")
        hard |= {name: _is(labels, name) for name in REGIONS}
    if not set(names) <= set(REGIONS):
        person = _subjects(check_picture("picture", image))
        _refuse_empty(person, "Nothing stands out from the background: take the whole picture.")
        hard |= {"person": person, "background": ~person}
    return {name: _soften(hard[name].float(), softness) for name in dict.fromkeys(names)}


def head_mask(portrait: Tensor, parser: FaceParser | None = None) -> Tensor:
    """A portrait's head with hair and neck, softly: what ``align.paste`` puts back.

    Such a portrait is what the parser has learned from, so no face is looked for; where the parser misses it,
    the face's oval is the mask.

    Args:
        portrait: (1, 3, size, size), RGB in [0, 1], framed like FFHQ.
        parser: to use one for several pictures.

    Returns:
        (1, 1, size, size), float32 in [0, 1], on the portrait's device.

    Raises:
        AssetError: the weights cannot be had.
    """
    side = portrait.shape[-1]
    labels = _portrait_labels(portrait, parser)
    face = oval(portrait_alignment(), (side, side)).to(portrait.device)
    head = torch.maximum(_is(labels, *REGIONS).float(), face)
    return _soften(head, side / 20)


def portrait_masks(
    portraits: Tensor, names: Sequence[str] = REGIONS, parser: FaceParser | None = None
) -> dict[str, Tensor]:
    """Hard masks of regions of portraits, whose faces need not be found first.

    Args:
        portraits: (N, 3, size, size), RGB in [0, 1], framed like FFHQ.
        names: of `REGIONS`.
        parser: to use one for several calls.

    Returns:
        name -> (N, 1, size, size), float32, 0 or 1, on the portraits' device; a region that the parser misses
        has a mask of zeros.

    Raises:
        AssetError: the weights cannot be had.
    """
    labels = torch.cat([_portrait_labels(one, parser) for one in portraits.split(1)])
    return {name: _is(labels, name).float() for name in names}


def _portrait_labels(portrait: Tensor, parser: FaceParser | None) -> Tensor:
    """The classes (1, 1, size, size) of a portrait (1, 3, size, size) framed like FFHQ."""
    parser = parser or FaceParser()
    mean, deviation = _IMAGENET.to(parser.device)
    inputs = (resize(portrait.to(parser.device), (_PIXELS, _PIXELS)) - mean) / deviation
    size = (portrait.shape[-2], portrait.shape[-1])
    with torch.no_grad():
        return parser.net.labels(inputs, size)[:, None].to(portrait.device)


def _subjects(images: Tensor) -> Tensor:
    """What stands out from the background of pictures: (N, 1, H, W), bool.

    U²-Net and not the portrait matte MODNet, which draws single hairs but tears paintings, animals and old
    photographs to pieces.
    """
    net = onnx_session("u2net")
    name = net.get_inputs()[0].name
    mean, deviation = _IMAGENET
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
    if not all(bool(one.any()) for one in maps):
        raise ImageError(sentence)


def _is(labels: Tensor, *regions: str) -> Tensor:
    """Where labels are of these regions."""
    numbers = [LABELS.index(name) for region in regions for name in CLASSES[region]]
    return torch.isin(labels, labels.new_tensor(numbers))
