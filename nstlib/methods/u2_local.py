"""Paper E: style transfer for chosen regions of a portrait, by two generators in a cycle.

A generator takes a photograph and an artwork and restyles both; a second one takes what came out and is to
give both back, equations (1) to (4). Afterwards the first one paints any regions of any photograph in the
style of any artwork of its set; everything else gets the artwork's histogram, which makes H(x, y). The paper
has no code. Where it is silent or cannot be meant, we take:

======  ==========================================  =========================================================
E       as printed                                  ours (``form="mended"``), and why
======  ==========================================  =========================================================
(1)-(4) what reads the pictures on the way back     the same encoders again: that of photographs reads I_s^S
(8)     maps of five sizes, concatenated            at a quarter of the size; see :mod:`nstlib.nets.u2_local`
(9)     1 / (C H W) of a sum of squares; features,  VGG-19, relu1_1 to relu4_1, as AdaIN and SANet; each
        layers and their weights are not said       region and layer divided by its own size, so that an eye
                                                    counts as much as hair, and no layer needs a weight
(10)    Gram matrices of masked features            the same, divided by the mask's sum of squares: the
                                                    regions of photograph and artwork differ in size
(11)    both play for log(1 - D)                    generators maximize log D, which does not saturate
(12)    D_S gets U²E_c(I_c) and U²E_c(I_c^T)        I_c and I_s^S, the pictures: what it is shown must be in
                                                    one domain, and an encoder could hide what it dislikes
(13)    D_T gets U²E_s(I_s) and U²E_s(I_s^S)        I_s and I_c^T, for the same reasons
(14)    2-norms of both differences                 mean absolute differences: no blur, and any size alike
(15)    three losses, and in the text a fourth,     the fourth compares VGG's relu3_1 of I_c^T and I_c, each
        "portrait reconstruction"                   channel normalized: the person's lines, in any colors
D       not said                                    discriminators of patches, as CycleGAN's (Isola 2017)
======  ==========================================  =========================================================

The ablations of its Figs 6 to 8 are settings: ``encoders``, ``fusion``, ``local``, ``local_weight=0`` and
``cycle_weight=0``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import Count, ImageError, NotNegative, Positive, SettingError, known, settings
from ..errors import Settings as Base
from ..faces import parse
from ..faces.style_sets import load_style_set
from ..losses import content_loss, discriminator_loss, generator_loss, gram_matrix
from ..nets.cyclegan import PatchDiscriminator
from ..nets.features import FeatureExtractor
from ..nets.hardware import seeded
from ..nets.u2_local import Generator, concatenated, normalized
from ..pictures import color
from ..pictures.files import check_mask, check_picture, resize
from ..training import Pictures, Schedule, Step, Task, means, shuffled
from .base import Method, blend, color_mode, one_set, postprocess

LEAST = 33  # pixels a side: instance normalization needs two places at the encoders' deepest level

# Of every preset but "paper": adversarial losses begin to help after more steps than these have.
OURS: dict[str, Any] = {
    "learning_rate": 1e-3, "decay": 0.1, "average": 0.99, "local_weight": 10.0, "content_weight": 1.0,
    "adversarial_weight": 0.3, "cycle_weight": 1.0, "cycle_every": 4,
}  # fmt: skip


@settings
class Settings(Base):
    """What the generators are trained for; "E" is the paper, "ours" what it leaves open."""

    form: Literal["mended", "printed"] = Field(
        default="mended", description="Of the paper's equations (11) to (14)."
    )
    adversarial_weight: NotNegative = 1.0  # E (15)
    cycle_weight: NotNegative = 1.0  # E (15)
    # alpha of E (15): .08, .07, .06, .06 for its four styles, of a loss whose scale it does not say. Ours is
    # relative, see local_style_loss.
    local_weight: NotNegative = Field(default=0.08, description="How much style.")
    content_weight: NotNegative = Field(default=1.0, description="How much of the person's lines.")  # ours
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # of VGG-19: ours
    content_layer: str = "relu3_1"  # of VGG-19: ours
    # Artworks are restyled too, and led back, every so many steps, then weighted by as much: ours, for time.
    cycle_every: Count = 1
    encoders: Literal["two", "one", "plain"] = "two"  # E, Fig. 6: (c), (b), (a)
    fusion: Literal["attention", "concat"] = "attention"  # E, Fig. 7: (c), (b)
    local: bool = True  # False: no masks in networks and losses, E, Fig. 7 (a)
    size: Annotated[int, Field(ge=64)] = Field(default=128, description="Side of the crops in pixels.")
    portrait: Count | None = None  # side of the portraits they are cut from; None: as CycleGAN, 286 for 256
    width: Count = 16  # channels of the encoders' first stage: ours
    critic_width: Count = 32  # and of the discriminators': ours
    learning_rate: Positive = Field(default=1e-4, description="Of Adam.")  # E, section 4.1
    decay: Positive = 1.0  # the last step's learning rate as a part of the first's, by a cosine: ours
    checkpointing: bool = False  # compute activations again instead of keeping them: ours

    @property
    def whole(self) -> int:
        """Side of the portraits."""
        return self.portrait or round(self.size * 286 / 256)


@settings
class Options(Base):
    """What :meth:`U2Local.stylize` takes besides the common arguments."""

    regions: tuple[str, ...] = ()  # of nstlib.faces.parse.REGIONS; none: the whole picture
    softness: NotNegative | None = None  # pixels of a region's border; None: a sixtieth of the picture
    style_masks: tuple[Tensor, ...] | None = None  # (1, 1, H', W') of each region in the style; None: parsed

    def __post_init__(self) -> None:
        for name in self.regions:
            known("region", name, parse.REGIONS)


def local_style_loss(
    features: Sequence[Tensor], targets: Sequence[Tensor], masks: Tensor, target_masks: Tensor
) -> Tensor:
    """How far each region's Gram matrices are from those of the same region of the artwork: E (9), (10).

    ``mean over l, m of 2 |G - G'|² / (|G|² + |G'|²)`` with ``G = (F_l M_m) (F_l M_m)^T / sum M_m²``, and the
    divisor held constant in the gradient. Divided by the artwork's |G'|² alone, dark brows would
    outweigh everything else. A region that one of both pictures lacks does not count.

    Args:
        features: of the generated pictures, (N, C_l, H_l, W_l) for each layer l.
        targets: of the artworks.
        masks: of the generated pictures' R regions, (N, R, H, W) in [0, 1], reduced to each layer's size.
        target_masks: of the artworks'.

    Returns:
        A scalar from 0, where all agree, to 2; the mean over N.
    """
    distances, counts = [], []
    for here, there in zip(features, targets, strict=True):
        pairs = zip(*(_reduced(m, f) for m, f in ((masks, here), (target_masks, there))), strict=True)
        for mask, target_mask in pairs:
            gram, target = _masked_gram(here, mask), _masked_gram(there, target_mask)
            size = (gram.detach().square() + target.square()).sum((1, 2)).clamp_min(1e-8) / 2
            there_too = (mask.amax((1, 2, 3)) > 0.1) & (target_mask.amax((1, 2, 3)) > 0.1)
            distances.append((gram - target).square().sum((1, 2)) / size * there_too)
            counts.append(there_too)
    return (torch.stack(distances).sum(0) / torch.stack(counts).sum(0).clamp_min(1)).mean()


def _reduced(masks: Tensor, features: Tensor) -> tuple[Tensor, ...]:
    return F.adaptive_avg_pool2d(masks, (features.shape[2], features.shape[3])).split(1, dim=1)


def _masked_gram(features: Tensor, mask: Tensor) -> Tensor:
    total = mask.square().sum((2, 3)).clamp_min(1e-6).unsqueeze(2)
    return gram_matrix(features * mask.to(features.dtype), "none") / total


class Portraits:
    """Crops of portraits with the masks of their regions, by position, every other one mirrored.

    Args:
        source: what :class:`nstlib.training.Pictures` takes; portraits framed like FFHQ.
        settings: sizes of portraits and crops.
        seed: of the order. Where a crop lies depends on its position alone, so that a photograph's crop and
            an artwork's show the same parts of a face.
        parser: finds the regions, once for each picture.
    """

    def __init__(self, source: Any, settings: Settings, seed: int, parser: Any = None) -> None:
        self.size, self.seed, self.parser = settings.size, seed, parser
        self.pictures = Pictures(source, settings.whole, zoom=(1.0, 1.0), flip=False, seed=seed)
        self._labels: dict[int, Tensor] = {}

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """(len(positions), 3 + 7, size, size): RGB, the six regions of E, and what is in none of them."""
        order = shuffled(len(self.pictures), self.seed, positions)
        return torch.cat([self._crop(i, p) for i, p in zip(order, positions, strict=True)])

    def _crop(self, index: int, position: int) -> Tensor:
        picture = self.pictures.crop(index, index)
        if self.parser is None:
            whole = torch.cat([picture, torch.ones_like(picture[:, :1])], 1)
        else:
            if index not in self._labels:
                masks = list(parse.portrait_masks(picture, parser=self.parser).values())
                rest = 1 - torch.cat(masks, 1).sum(1, keepdim=True)
                self._labels[index] = torch.cat([rest, *masks], 1).argmax(1).to(torch.uint8)
            labels = F.one_hot(self._labels[index].long(), 1 + len(parse.REGIONS))
            masks_first = labels.permute(0, 3, 1, 2).roll(-1, 1)
            whole = torch.cat([picture, masks_first.to(picture)], 1)
        random = np.random.default_rng([position, 2])
        top, left = (int(random.integers(whole.shape[-1] - self.size + 1)) for _ in range(2))
        crop = whole[..., top : top + self.size, left : left + self.size]
        return crop.flip(3) if random.random() < 0.5 else crop


class U2Task(Task):
    """One step of both generators, then one of both discriminators: E (15).

    Args:
        generator: (S, T), what is kept in the end.
        faces: photographs with masks.
        artworks: likewise.
        settings: see :class:`Settings`.
        steps: of the whole training.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: of VGG's features.
    """

    def __init__(
        self, generator: Generator, faces: Portraits, artworks: Portraits, settings: Settings, steps: int,
        *, device: torch.device, precision: torch.dtype, seed: int,
    ) -> None:  # fmt: skip
        self.settings, self.faces, self.artworks = settings, faces, artworks
        self.decay = settings.decay
        self.layers = (*settings.style_layers, settings.content_layer)
        self.features = FeatureExtractor("vgg19", self.layers, device=device, precision=precision)
        printed = settings.form == "printed"
        with seeded(seed):
            # Features are at a quarter of the size already.
            kind = {"layers": 1, "inputs": 11 * settings.width} if printed else {"layers": 2}
            self.modules = {
                "generator": generator, "return": _generator(settings),
                "photo_discriminator": PatchDiscriminator(settings.critic_width, **kind),
                "artwork_discriminator": PatchDiscriminator(settings.critic_width, **kind),
            }  # fmt: skip
        # E names the rate alone. CycleGAN's beta of 0.5 follows the noise of single pictures too closely.
        adam: dict[str, Any] = {"lr": settings.learning_rate, "betas": (0.9, 0.999), "fused": True}
        parameters = [list(module.parameters()) for module in self.modules.values()]
        self.optimizers = {
            "generators": torch.optim.Adam(parameters[0] + parameters[1], **adam),
            "discriminators": torch.optim.Adam(parameters[2] + parameters[3], **adam),
        }
        counts = {"faces": len(faces.pictures), "artworks": len(artworks.pictures)}
        until = steps if self.decay != 1 else None
        self.sources = {**counts, "style": means(artworks.pictures.crop(0, 0)), "until": until}

    def batch(self, positions: Sequence[int]) -> Any:
        """Photographs and artworks, (N, 10, H, W) each."""
        return self.faces(positions), self.artworks(positions)

    def step(self, step: Step) -> dict[str, Tensor]:
        """The losses of (15), each by its weight, and the discriminators'."""
        s, nets = self.settings, step.modules
        (photos, photo_masks), (artworks, artwork_masks) = ((x[:, :3], x[:, 3:]) for x in step.batch)
        given = (photo_masks, artwork_masks) if s.local else (None, None)
        both = step.number % s.cycle_every == 0
        made, back = nets["generator"](photos, artworks, *given, both)  # (1)
        made, lost = made.float(), photos.new_zeros(())
        if both and s.cycle_weight:
            again = nets["return"](back.float(), made, *given[::-1])  # (2): I_s^S has the artwork's regions
            lost = s.cycle_every * self.cycle_loss((photos, artworks), (again[1], again[0]))
        shown = self._shown(photos, artworks, made, back)
        fooled = [self._fool(nets[name](fake)) for name, (_, fake) in shown.items()]
        local, content = self._perceptual(made, photos, artworks, photo_masks, artwork_masks)
        parts = {
            "adversarial": s.adversarial_weight * torch.stack(fooled).sum(), "cycle": s.cycle_weight * lost,
            "local": s.local_weight * local, "content": s.content_weight * content,
        }  # fmt: skip
        total = torch.stack(list(parts.values())).sum()
        step.descend(total, "generators")
        scores = [
            discriminator_loss(nets[name](fake.detach()).float(), nets[name](real.detach()).float())
            for name, (real, fake) in shown.items()
        ]
        discriminators = torch.stack(scores).sum()
        if s.adversarial_weight:
            step.descend(discriminators, "discriminators")
        return {"total": total, **parts, "discriminators": discriminators}

    def cycle_loss(self, pictures: Sequence[Tensor], again: Sequence[Tensor]) -> Tensor:
        """What photographs and artworks have lost on the way there and back: E (14)."""
        differences = [a.float() - b for a, b in zip(again, pictures, strict=True)]
        if self.settings.form == "printed":
            return torch.stack([d.flatten(1).norm(dim=1).mean() for d in differences]).sum()
        return torch.stack([d.abs().mean() for d in differences]).sum()

    def _shown(
        self, photos: Tensor, artworks: Tensor, made: Tensor, back: Tensor | None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """What each discriminator is to call real, and generated: E (12), (13)."""
        net: Any = self.modules["generator"]
        if self.settings.form == "mended":
            shown = {"artwork_discriminator": (2 * artworks - 1, 2 * made - 1)}
            return shown if back is None else shown | {"photo_discriminator": (2 * photos - 1, 2 * back - 1)}
        contents = [concatenated(net.content_encoder(x)) for x in (photos, made)]
        shown = {"photo_discriminator": (contents[0], contents[1])}
        if back is not None:
            styles = [concatenated(net.style_encoder(x)) for x in (artworks, back)]
            shown["artwork_discriminator"] = styles[0], styles[1]
        return shown

    def _fool(self, scores: Tensor) -> Tensor:
        """What a generator minimizes of (11): the mean of -log D, or as printed of log(1 - D)."""
        if self.settings.form == "printed":
            return -F.softplus(scores.float()).mean()
        return generator_loss(scores.float())

    def _perceptual(self, made: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        if not self.settings.checkpointing:
            return self._compare(made, *others)
        ones = zip(*(x.split(1) for x in (made, *others)), strict=True)  # a picture's features at a time
        found = [torch.stack(checkpoint(self._compare, *one, use_reentrant=False)) for one in ones]
        local, content = torch.stack(found).mean(0)
        return local, content

    def _compare(
        self, made: Tensor, photos: Tensor, artworks: Tensor, photo_masks: Tensor, artwork_masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(9), and the difference of lines."""
        found, layers = self.features(made), self.settings.style_layers
        with torch.no_grad():
            wanted, lines = self.features(artworks), self.features(photos)[self.settings.content_layer]
        if not self.settings.local:
            photo_masks, artwork_masks = (torch.ones_like(m[:, :1]) for m in (photo_masks, artwork_masks))
        local = local_style_loss(
            [found[n] for n in layers], [wanted[n] for n in layers], photo_masks, artwork_masks
        )
        here = found[self.settings.content_layer]
        return local, content_loss(normalized(here.float()), normalized(lines.float()))


class U2Local(Method):
    """Paper E's method, untrained or with what it has learned of a set of artworks.

    Attributes:
        net: the generator of (1).
        style: an artwork of the set, (1, 3, H, W), taken where none is named; None before the training.

    Example:
        >>> method = U2Local.load("mine.safetensors")                            # doctest: +SKIP
        >>> picture = method.stylize(me, artwork, regions=("eye", "hair"))       # doctest: +SKIP
    """

    summary = "regions of a portrait, or all of it, in the style of an artwork of a set"
    settings_class = Settings
    options_class = Options
    shipped: ClassVar[Sequence[str]] = ("oil", "ink")
    takes = frozenset({"size", "style_size", "color", "strength", "regions"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": OURS | {"steps": 300, "batch": 1, "size": 128, "faces": 60},
        "smoke": OURS | {"steps": 4, "batch": 1, "size": 64, "faces": 4, "width": 4, "critic_width": 4},
        "shipped": OURS | {"steps": 1200, "batch": 1, "size": 128, "portrait": 240, "faces": 200},
        # E, section 4.1, for Cartoon; it names 18 GB. Of FFHQ's first 1000 pictures: --pictures.
        "paper": {"steps": 25_000, "batch": 8, "size": 1024, "checkpointing": True},
    }  # fmt: skip

    def __init__(self, settings: Settings | None = None, **options: Any) -> None:
        super().__init__(settings, **options)
        self.style: Tensor | None = None
        with seeded(self.seed):
            self.net = _generator(self.settings).to(self.device).eval()

    @cached_property
    def parser(self) -> parse.FaceParser:
        """Finds the regions."""
        return parse.FaceParser(self.device)

    def modules(self) -> dict[str, nn.Module]:
        """The generator that paints."""
        return {"generator": self.net}

    def state(self) -> dict[str, Tensor]:
        """The generator's weights, and an artwork."""
        return {} if self.style is None else super().state() | {"style": self.style}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        super().load_state(tensors)
        self.style = tensors["style"].float()

    def task(self, faces: Any, styles: Any, schedule: Schedule) -> Task:
        """The training.

        Args:
            faces: portraits framed like FFHQ: a folder, files, or (N, 3, H, W).
            styles: artworks framed alike: the name of a style set, a folder, or (N, 3, H, W).
            schedule: how long.
        """
        s = self.settings
        if faces is None:
            raise SettingError("There are no photographs to learn on: name a folder of portraits.")
        named = isinstance(styles, str | os.PathLike)
        pictures = load_style_set(styles, s.whole).pictures if named else styles
        parser = self.parser if s.local else None
        seed = schedule.seed
        artworks = Portraits(pictures, s, seed + 1, parser)
        self.style = resize(pictures[:1], (s.whole, s.whole))
        return U2Task(
            self.net.train().requires_grad_(True), Portraits(faces, s, seed, parser), artworks, s,
            schedule.steps, device=self.device, precision=self.precision, seed=self.seed,
        )  # fmt: skip

    @torch.no_grad()
    def stylize(
        self, content: Tensor, style: Any = None, *, strength: float = 1.0, keep_colors: bool | str = False,
        masks: Sequence[Tensor] | None = None, **own: Any,
    ) -> Tensor:  # fmt: skip
        """Regions of photographs, or all of them, in an artwork's style; see :meth:`Method.stylize`.

        Outside the regions, beyond their soft borders, the result is the photograph with the artwork's
        histogram (:func:`nstlib.pictures.color.match_histogram`), exactly: E's H(x, y). A region that is not
        to be seen in one of both pictures is named in a warning and left out.

        Args:
            content: (N, 3, H, W), any size of at least 33 pixels.
            style: (1, 3, H', W'); None: an artwork of the set that it was trained on.
            strength: see :meth:`Method.stylize`.
            keep_colors: the same.
            masks: of the photograph: one (1 or N, 1, H, W) for each of ``regions``, which are parsed
                otherwise; without ``regions``, of any areas.
            own: see :class:`Options`.

        Raises:
            ImageError: not a picture; regions are asked for, and no face is found.
            SettingError: no style, an unknown region, or masks that do not go with the regions.
        """
        options, how = Options(**own), color_mode(keep_colors)
        style = self.style if style is None else style
        if style is None:
            raise SettingError("There is no style: give an artwork, or fit the method.")
        check_picture("content", content, LEAST)
        style = check_picture("style", style, LEAST, count=1).cpu().float()
        style = color.prepare_style(how, style, content[:1])
        style_masks = self._parsed(style, options.style_masks, options, portrait=True)
        made = []
        for number, one in enumerate(content.cpu().float().split(1)):
            given = None
            if masks is not None:
                given = [check_mask("mask", m, content)[number if len(m) > 1 else 0][None] for m in masks]
            made.append(self._painted(one, style, style_masks, given, options))
        return blend(postprocess(torch.cat(made), content, how), content, strength)

    def _painted(
        self, photo: Tensor, style: Tensor, style_masks: dict[str, Tensor], given: list[Tensor] | None,
        options: Options,
    ) -> Tensor:  # fmt: skip
        found = self._parsed(photo, given if options.regions else None, options)
        names = [name for name in found if name in style_masks]
        pair = [_with_rest(masks, names, to) for masks, to in ((found, photo), (style_masks, style))]
        inputs = [x.to(self.device) for x in (photo, style, *pair)]
        made = self.net(*(inputs if self.settings.local else inputs[:2]), back=False)[0].cpu()
        if options.regions:
            area = [found[n] for n in options.regions if _both(n, found, style_masks)]
        elif given is not None:
            area = given
        else:
            return made
        matched = color.match_histogram(photo, style)
        share = sum(area, torch.zeros_like(photo[:, :1])).clamp(0, 1)
        return matched + share * (made - matched)  # H(x, y)

    def _parsed(
        self, image: Tensor, given: Sequence[Tensor] | None, options: Options, portrait: bool = False
    ) -> dict[str, Tensor]:
        """The masks of a picture's regions: given, or looked for; none where no face is found."""
        if given is not None:
            if len(given) != len(options.regions):
                raise SettingError(f"{len(options.regions)} regions need as many masks, not {len(given)}.")
            return {n: check_mask("mask", m, image) for n, m in zip(options.regions, given, strict=True)}
        if not self.settings.local and not options.regions:
            return {}
        softness = max(image.shape[-2:]) / 60 if options.softness is None else options.softness
        try:
            return parse.region_masks(image, softness=softness, parser=self.parser)
        except ImageError:  # no face is found
            if portrait:  # artworks look unlike faces, but fill their frames like portraits
                return parse.portrait_masks(image, parser=self.parser)
            if options.regions:
                raise
            return {}

    # ---------------------------------------------------------------- what the command asks

    @classmethod
    def read_styles(cls, words: Sequence[str], size: int | None = None) -> Any:
        """One style set of the course, one of DualStyleGAN's, or a folder of portraits."""
        return one_set(words)


def _generator(settings: Settings) -> Generator:
    return Generator(settings.width, settings.encoders, settings.fusion, settings.checkpointing)


def _with_rest(masks: Mapping[str, Tensor], names: Sequence[str], image: Tensor) -> Tensor:
    """(1, R + 1, H, W): the named regions, and what is in none of them."""
    parts = [masks[name].to(image) for name in names]
    rest = (1 - sum(parts, torch.zeros_like(image[:, :1]))).clamp(0, 1)
    return torch.cat([*parts, rest], 1)


def _both(name: str, found: Mapping[str, Tensor], style_masks: Mapping[str, Tensor]) -> bool:
    """Whether a region is to be seen in both pictures; said, where it is not."""
    for what, masks in (("photograph", found), ("artwork", style_masks)):
        if name not in masks or not bool(masks[name].max() > 0):
            warnings.warn(f"There is no {name} to be seen in the {what}: it is left out.", stacklevel=4)
            return False
    return True
