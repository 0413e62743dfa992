"""The method as a whole: four stages in a row to learn a style, one pass to put a face into it.

    >>> method = DualStyle.load("ink")                                                   # doctest: +SKIP
    >>> face = align_portrait(load_image("me.jpg")).picture                              # doctest: +SKIP
    >>> picture = method.stylize(face, 12, structure=0.6)                                # doctest: +SKIP

The authors' files: their encoder reads z+ off 256 pixels, the face's w+ is shortened towards 0, the structure
of a portrait enters by three quarters and its colors whole, as in the released program.

    >>> theirs = DualStyle.load("cartoon")                  # 1.5 GB, once              # doctest: +SKIP
    >>> files = {"generator": "generator.pt", "encoder": "encoder.pt"}                   # doctest: +SKIP
    >>> theirs = DualStyle(Training(**files, codes="refined_exstyle_code.npy"))          # doctest: +SKIP

Source: paper A, section 3.2 and its figures 3 and 8, after Yang et al. 2022, "Pastiche Master".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from ... import assets
from ...assets.weights import read_arrays, read_checkpoint
from ...errors import Fraction, NotNegative, SettingError, settings
from ...errors import Settings as Base
from ...faces.generated import Faces
from ...faces.identity import Identity
from ...faces.style_sets import load_style_set
from ...nets import from_official
from ...nets.dualstylegan import DualStyleGAN, layer_weights, sampler_from_official
from ...nets.hardware import resolve_device, seeded
from ...nets.official import check_layout
from ...nets.psp import PICTURE
from ...nets.style_generator import STYLE, StyleGenerator
from ...nets.stylegan2 import Discriminator, Generator
from ...training import Callback, Schedule, TrainingResult
from ..base import Method, inside, numbered, one_set
from ..inversion import Encoder, Space, check_portraits, course_encoder, find_codes, mean_w
from .destylization import destylize, source_discriminator
from .finetuning import fine_tune
from .latent import PARTS, refine_codes, sample_styles, train_sampler
from .settings import AS_RELEASED, SMALL, SMOKE, Number, Preset

SHIPPED: tuple[str, ...] = ("ink", "sketch", "fantasy_portraits")
"""Styles whose extrinsic paths the course carries, in ``data/weights``; each has learned that style set."""

PUBLISHED: tuple[str, ...] = ("cartoon", "comic", "arcane")
"""Styles of the authors, of 1024 pixels; their generators, codes and encoder are fetched by name."""

BOTTLENECK_CHANNELS = 48
"""Of a small extrinsic path, see :class:`nstlib.nets.dualstylegan.BottleneckModRes`: a file of 5 MB."""

SEARCH = 40  # steps from the encoder's codes to a photograph's: without them it is another person

RELEASED_STRENGTHS: dict[str, Any] = {"structure": 0.75, "truncation": 0.75, "iterations": 0}
"""For :meth:`DualStyle.stylize`: what the released program takes if nothing else is said."""

Exemplar = int | Tensor | Mapping[int, float] | Sequence[int]
"""A portrait of the style by its number, codes (layers, 512), or several numbers, with weights or alike."""

File = str | os.PathLike[str]
Strength = Fraction | tuple[Fraction, ...]


@settings
class Training(Base):
    """What a style is learned with, and over."""

    stages: Preset = SMALL
    generator: Path | None = Field(
        default=None,
        description="Of paper: the authors' generator-pretrain.pt, or a StyleGAN2 in this layout.",
    )
    encoder: Path | None = Field(default=None, description="Of paper: the authors' encoder.pt.")
    codes: Path | None = None  # exstyle_code.npy or refined_exstyle_code.npy: z+ of a style's portraits
    portraits: int | None = Field(
        default=None, ge=1, description="How many of the set, from its first.  [default: all]"
    )


@settings
class Options(Base):
    """What :meth:`DualStyle.stylize` takes besides the common arguments."""

    structure: Strength = Field(default=1.0, description="How much of the portrait's shapes.")
    color_strength: Strength = Field(default=1.0, description="How much of its colors.")
    iterations: Number = Field(
        default=SEARCH, description=f"Steps of descent from the encoder's codes ({SEARCH})."
    )
    truncation: Fraction = 1.0  # of the face toward the mean face: 1 keeps it
    shares: tuple[NotNegative, ...] | None = None  # of several portraits
    encoder: Path | None = Field(
        default=None, description="With the authors' generator.pt:12 as the style: their encoder.pt."
    )
    codes: Path | None = Field(default=None, description="Likewise: their refined_exstyle_code.npy.")


@dataclass
class Learned:
    """What a style's training leaves besides the weights."""

    extrinsic: Tensor  # (K, layers, 512), w+ of the style's portraits
    samplers: nn.ModuleDict | None = None  # "structure" and "color", see train_sampler
    about: dict[str, Any] = field(default_factory=dict)
    portraits: Tensor | None = None  # (K, 3, S, S) in [0, 1], if they are there


class DualStyle(Method):
    """Faces in the style of an artistic portrait, by DualStyleGAN over a generator of faces.

    Args:
        settings: of a training; with a generator of the authors, all that follows is theirs.
        source: the generator of faces; None: the face prior of 256 pixels.
        encoder: portraits (N, 3, S, S) in [0, 1] -> codes (N, layers, 512); None: the course's own, which is
            for the face prior.
        bottleneck_channels: of a new extrinsic path; None: as published.
        options: ``device`` and ``seed`` of :class:`.Method`; the seed is of a new path and of the training.

    Attributes:
        net: the network.
        space: of the encoder's codes: "w" is w+, "z" is z+, as the published one gives them.
        center: what :meth:`stylize` truncates toward: the "mean" w, or "zero" as in the released code.
        learned: the style's codes, samplers and story; None before it is learned.

    Raises:
        SettingError: a file of the authors is missing or holds something else.
        AssetError: the prior's weights cannot be had.
    """

    summary = (
        "the face alone, like a portrait of a style it was trained for (ink:12; the authors' cartoon:26)"
    )
    settings_class = Training
    options_class = Options
    shipped = SHIPPED
    portraits = True
    takes = frozenset({"shares", "strength"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"stages": SMALL}, "smoke": {"stages": SMOKE}, "paper": {"stages": AS_RELEASED}
    }  # fmt: skip

    def __init__(
        self, settings: Training | None = None, *, source: StyleGenerator | None = None,
        encoder: Encoder | None = None, bottleneck_channels: int | None = BOTTLENECK_CHANNELS, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(settings, **options)
        net: DualStyleGAN | None = None
        self.space: Space = "w"
        self.center, self.usual = "mean", dict[str, Any]()
        if self.settings.generator is not None:
            source, net = _published_generator(self.settings.generator)
            self.space, self.center, self.usual = "z", "zero", RELEASED_STRENGTHS
            encoder, bottleneck_channels = None, None
            if self.settings.encoder is not None:
                encoder = PublishedEncoder(self.settings.encoder).to(self.device)
        self.source, self._encoder = (source or Faces(self.device).prior()).to(self.device), encoder
        self.learned: Learned | None = None
        if net is None:
            with seeded(self.seed):
                net = DualStyleGAN.over(self.source, bottleneck_channels)
        self.net = net.to(self.device).requires_grad_(False).eval()
        self.size = self.net.size
        if self.settings.codes is not None:
            codes = _codes(self.settings.codes, self.source)
            self.learned = Learned(codes, about={"codes": self.settings.codes.name})

    @property
    def encoder(self) -> Encoder:
        """What reads the codes of a face off its portrait, in the space :attr:`space`.

        Raises:
            SettingError: none was given, and the course's own is for another generator.
        """
        self._encoder = self._encoder or course_encoder(self.source)
        return self._encoder

    # ---------------------------------------------------------------- the four stages

    def fit(
        self, faces: Any = None, styles: Tensor | str | None = None, *, schedule: Schedule | None = None,
        folder: File | None = None, callback: Callback | None = None, progress: bool = True,
    ) -> TrainingResult:  # fmt: skip
        """All four stages; each goes on from its part of the folder.

        Args:
            faces: for the common protocol; the generator draws its own, so this is not looked at.
            styles: the style's portraits (K, 3, S, S), in [0, 1], aligned like FFHQ; or a style set's name,
                or a folder.
            schedule: likewise; the settings say how long each stage takes.
            folder: where to keep what is done; the same call goes on from there.
            callback: see :func:`nstlib.training.train`; of the last three stages' trainings.
            progress: show the name of each stage, and progress bars.

        Returns:
            The last training's result; if it was stopped, that of the stage it was stopped in.

        Raises:
            ImageError: no portraits, or not square.
            KeyboardInterrupt: after Ctrl-C between two trainings; the same call with the same folder goes on.
            OptimizationError: see the stages.
            SettingError: the same; settings for an encoder of another space.
        """
        s, stages = self.settings, self.settings.stages
        if stages.destylization.inversion.space != self.space:
            raise SettingError(
                f"The settings search in {stages.destylization.inversion.space}+, and the encoder reads "
                f"{self.space}+: with --preset paper give the authors' --generator and --encoder, and with "
                "no other preset."
            )
        about: dict[str, Any] = {}
        if isinstance(styles, str):
            found_set = load_style_set(styles, self.size)
            about["licence"] = found_set.licence
            styles = found_set.pictures
        portraits = check_portraits(cast(Tensor, styles))[: s.portraits]
        # Copies of the discriminator in the authors' file learn on; without one, new ones begin.
        published = s.generator and load_published_discriminator(s.generator, self.device)

        def learning() -> Discriminator:
            channels = stages.structure.discriminator_channels
            return source_discriminator(published, self.size, channels, self.seed).to(self.device)

        def begun(stage: str, part: str) -> Path | None:
            if progress:
                tqdm.write(stage)
            return None if folder is None else Path(folder, part)

        found = destylize(
            portraits, self.source, lambda some: self.encoder(some), stages.destylization,
            begun("destylization", "1_destylization"), seed=self.seed, progress=progress,
            discriminator=learning() if stages.destylization.adversarial_weight else None,
        )  # fmt: skip
        net: nn.Module | None = learning() if stages.structure.discriminator == "stylegan2" else None
        identity = Identity(self.device) if any(weight for _, weight, _ in stages.style.phases) else None
        both = zip(("structure", "style"), stages.schedules(self.seed), strict=True)
        for number, (name, plan) in enumerate(both, start=2):
            net, result = fine_tune(
                self.net, getattr(stages, name), plan, begun(name, f"{number}_{name}"), discriminator=net,
                styles=found, identity=identity, callback=callback, progress=progress,
            )  # fmt: skip
            if result.step < plan.steps:
                return result
        part = begun("latent optimization", "4_codes")
        found = refine_codes(self.net, found, stages.latent, part, progress=progress)
        samplers, result = train_sampler(
            found, stages.sampler, begun("sampling network", "4_sampler"), seed=self.seed,
            device=self.device, callback=callback, progress=progress,
        )  # fmt: skip
        if result.step == stages.sampler.steps:
            steps = {"structure": stages.structure.steps, "style": stages.style.steps}
            about |= {"portraits": len(found), "seed": self.seed, "steps": steps}
            self.learned = Learned(found.extrinsic, samplers, about, found.portraits)
            self.about = about
        return result

    # ---------------------------------------------------------------- codes and pictures

    def faces(self, content: Tensor, iterations: int = 0) -> Tensor:
        """The intrinsic codes w+ (N, layers, 512) of portraits: the encoder's, and by descent from there.

        Args:
            content: (N, 3, H, W), in [0, 1], square, aligned like FFHQ.
            iterations: of :func:`nstlib.methods.inversion.invert`; 0 takes the encoder's codes as they are.

        Raises:
            ImageError: not such portraits.
            SettingError: see :attr:`encoder`.
        """
        return find_codes(content, self.source, self.encoder, iterations, self.space)

    def codes(self, style: Exemplar) -> Tensor:
        """The extrinsic codes (layers, 512) of an exemplar, or of several, fused (paper A, figure 8).

        Raises:
            SettingError: nothing is learned yet, there is no such portrait, weights that sum up to 0.
        """
        wanted = (self.net.layers, STYLE)
        if isinstance(style, Tensor):
            if style.shape not in (wanted, (1, *wanted)):
                raise SettingError(f"Codes of a style are {wanted}, not {tuple(style.shape)}.")
            return style.reshape(wanted)
        extrinsic = self._known().extrinsic
        if not isinstance(style, Mapping):
            style = dict.fromkeys([style] if isinstance(style, int) else style, 1.0)
        wrong = [number for number in style if not 0 <= number < len(extrinsic)]
        if wrong or not style:
            raise SettingError(f"The style has portraits 0 to {len(extrinsic) - 1}, not {wrong or 'none'}.")
        total = sum(style.values())
        if not total > 0 or min(style.values()) < 0:
            raise SettingError("The weights of several styles are 0 or more, and not all 0.")
        return torch.stack([extrinsic[number] * (weight / total) for number, weight in style.items()]).sum(0)

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Codes (count, layers, 512) of styles like those that were learned, from the sampling networks.

        Raises:
            SettingError: no sampling network is there.
        """
        samplers = self._known().samplers
        if samplers is None:
            raise SettingError("This style has no sampling network: name one of its portraits.")
        return sample_styles(samplers, count, seed)

    @torch.no_grad()
    def stylize(
        self, content: Tensor, style: Exemplar | None = None, *, strength: float = 1.0,
        keep_colors: bool | str = False, masks: Sequence[Tensor] | None = None, **own: Any,
    ) -> Tensor:  # fmt: skip
        """Portraits in the style of an exemplar.

        Args:
            content: (N, 3, H, W), in [0, 1], square, aligned like FFHQ (:func:`nstlib.faces.align
                .align_portrait`); or intrinsic codes (N, layers, 512) that :meth:`faces` gave.
            style: see :data:`Exemplar`; None: the first portrait.
            strength: of structure and colors together.
            keep_colors: take the colors from the content.
            masks: there are none for a drawn face.
            own: see :class:`Options`. ``structure`` is a number from 0 to 1, or one for each of 7 layers,
                ``color_strength`` likewise one for each further layer.

        Returns:
            (N, 3, size, size), in [0, 1], on the CPU.

        Raises:
            ImageError: not such portraits.
            SettingError: see :meth:`codes`; strengths that do not fit.
        """
        o = Options(**{**self.usual, **own})
        if masks is not None:
            raise SettingError("A face is drawn anew as a whole, so there are no regions: leave masks out.")
        if isinstance(style, list) and o.shares:
            pairs = list(zip(style, o.shares, strict=True))
            style = {number: sum(share for n, share in pairs if n == number) for number in style}
        face = (content if content.ndim == 3 else self.faces(content, o.iterations)).to(self.device)
        art = self.codes(0 if style is None else style)[None].to(face)
        weights = layer_weights(self.net.layers, o.structure, o.color_strength)
        center = mean_w(self.source) if o.truncation < 1 and self.center == "mean" else None
        drawn = [
            self.net(
                one, art, space="w", extrinsic_space="w", interp_weights=strength * torch.as_tensor(weights),
                keep_colors=bool(keep_colors), truncation=o.truncation, center=center,
            )
            for one in face.split(1)
        ]  # fmt: skip
        return ((torch.cat(drawn).float() + 1) / 2).clamp(0, 1).cpu()

    def grid(
        self, content: Tensor, style: Exemplar, structures: Sequence[float], colors: Sequence[float]
    ) -> Tensor:
        """One face at several strengths, (rows, columns, 3, size, size): structure downward, color across.

        Args:
            content: a single portrait or its codes, see :meth:`stylize`.
            style: see :data:`Exemplar`.
            structures: strengths.
            colors: strengths.
        """
        face = content if content.ndim == 3 else self.faces(content, Options().iterations)
        rows = [
            torch.cat([self.stylize(face, style, structure=s, color_strength=c) for c in colors])
            for s in structures
        ]
        return torch.stack(rows)

    # ---------------------------------------------------------------- files

    def state(self) -> dict[str, Tensor]:
        """The extrinsic path, the portraits' codes and the samplers; no generator."""
        if self.learned is None:
            return {}
        state = {f"path.{key}": tensor for key, tensor in self.net.extrinsic_state().items()}
        samplers = self.learned.samplers.state_dict() if self.learned.samplers else {}
        state |= {f"sampler.{key}": tensor for key, tensor in samplers.items()}
        self.about = self.learned.about
        return {**state, "extrinsic": self.learned.extrinsic}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            SettingError: it is of another generator, or no style.
        """
        state = inside(tensors, "path.")
        narrow = state.get("res.0.narrow.weight")
        net = DualStyleGAN.over(self.source, None if narrow is None else len(narrow)).to(self.device)
        check_layout(f"a style for a generator of {self.size} pixels", net.extrinsic_state(), state)
        net.load_state_dict({**net.state_dict(), **state})
        self.net = net.requires_grad_(False).eval()
        parts = {name: inside(tensors, f"sampler.{name}.") for name in PARTS}
        samplers = None
        if any(parts.values()):
            samplers = nn.ModuleDict({name: sampler_from_official(part) for name, part in parts.items()})
        self.learned = Learned(tensors["extrinsic"].float(), samplers, self.about)

    @classmethod
    def load(cls, path: File, *, progress: bool = True, **options: Any) -> Self:
        """See :meth:`.Method.load`; also one of :data:`PUBLISHED`. ``options`` are those of the class.

        Raises:
            AssetError: a file of the authors can neither be found in the cache nor be fetched.
        """
        if not isinstance(path, str) or path not in PUBLISHED:  # a Path is a file
            return super().load(path, **options)
        parts = (path, "encoder", f"{path}_codes")
        generator, encoder, codes = (assets.fetch(f"dualstylegan_{p}", progress=progress) for p in parts)
        return cls(Training(generator=generator, encoder=encoder, codes=codes), **options)

    # ---------------------------------------------------------------- what the command asks

    @classmethod
    def read_styles(cls, words: Sequence[str], size: int | None = None) -> str:
        """One style set: the course's (oil, ink ...), the authors' (cartoon ...), or a folder."""
        return one_set(words)

    @classmethod
    def words(cls, style: str, artwork: str, number: int) -> list[str]:
        """See :meth:`.Method.words`; the set's portrait of that number."""
        return [f"{word}:{number}" for word in super().words(style, artwork, number)]

    @classmethod
    def open(
        cls, words: Sequence[str], chosen: Mapping[str, Any], *, size: int, progress: bool, **options: Any
    ) -> tuple[Self, Any]:
        """NAME[:NUMBER] ..., each a portrait of one style; NAME:random draws a new one."""
        named = [numbered(word, "random") for word in words]
        names = list(dict.fromkeys(name for name, _ in named))
        if len(names) != 1:
            raise SettingError(f"Portraits of one style are fused, not of {' and '.join(names) or 'none'}.")
        name, encoder, codes = names[0], chosen.get("encoder"), chosen.get("codes")
        if name.endswith(".pt") and encoder and codes:
            method = cls(Training(generator=Path(name), encoder=encoder, codes=codes), **options)
        elif (name in SHIPPED + PUBLISHED or name.endswith(".safetensors")) and not (encoder or codes):
            method = cls.load(name, progress=progress, **options)
        else:
            raise SettingError(
                f"'{name}' names no style: take one of {', '.join(SHIPPED)}, as in ink:12, one of the "
                f"authors' {', '.join(PUBLISHED)}, or a file that nst train dualstylegan has written, each "
                "without --encoder and --codes; or the authors' generator.pt:12 with both of them."
            )
        numbers = [number for _, number in named]
        if "random" not in numbers:
            return method, [int(number) for number in numbers]
        if len(numbers) > 1:
            raise SettingError("A random style stands alone: name it once, and no other portrait.")
        return method, method.sample(1, options.get("seed", 0))[0]

    def _known(self) -> Learned:
        if self.learned is None:
            raise SettingError("No style has been learned yet: fit the method, or load a style.")
        return self.learned


# ------------------------------------------------------------------ the authors' files


class PublishedEncoder(nn.Module):
    """The published encoder for portraits in [0, 1], which are made smaller as in the released program.

    Args:
        path: encoder.pt.
    """

    def __init__(self, path: File) -> None:
        super().__init__()
        state = _part(path, "state_dict", "encoder.pt")
        self.net = from_official("psp_encoder", inside(state, "encoder.") or state)

    @torch.no_grad()
    def forward(self, portraits: Tensor) -> Tensor:
        """(N, 3, S, S) -> z+ (N, layers, 512)."""
        first = next(self.net.parameters())
        return self.net(2 * F.adaptive_avg_pool2d(portraits.to(first), PICTURE) - 1)


def load_published_discriminator(
    checkpoint: File, device: str | torch.device = "auto"
) -> Discriminator | None:
    """The discriminator of a checkpoint ("d"), which has learned with its generator; None if it has none.

    Raises:
        SettingError: the file is missing or holds something else.
    """
    if "d" not in read_checkpoint(Path(checkpoint), ", such as the authors' generator.pt"):
        return None
    net = from_official("stylegan2_disc", _part(checkpoint, "d", "generator.pt"))
    return cast(Discriminator, net.to(resolve_device(device)))


def _published_generator(path: File) -> tuple[Generator, DualStyleGAN | None]:
    """The generator of faces, and the network over it if the file has one."""
    state = _part(path, "g_ema", "generator.pt")
    if any(key.startswith("res.") for key in state):
        net = cast(DualStyleGAN, from_official("dualstylegan", state))
        return cast(Generator, net.generator), net
    return cast(Generator, from_official("jojogan_generator", state)), None


def _part(path: File, name: str, such: str) -> dict[str, Tensor]:
    """A part of a checkpoint, or the whole file where it is that part."""
    held = read_checkpoint(Path(path), f", such as the authors' {such}")
    state = held.get(name, held)
    if not isinstance(state, dict) or not all(isinstance(one, Tensor) for one in state.values()):
        raise SettingError(f"'{path}' has no weights under '{name}': give the checkpoint as published.")
    return state


@torch.no_grad()
def _codes(path: File, source: StyleGenerator) -> Tensor:
    """The portraits' z+, through the mapping network: w+ (K, layers, 512), on the CPU."""
    found = read_arrays(Path(path))
    wanted = (1, source.layers, STYLE)
    if not found or any(one.shape != wanted for one in found.values()):
        raise SettingError(f"'{path}' holds no codes {wanted}: give the file that came with the generator.")
    first = next(source.parameters())
    return torch.cat([source.w_plus(torch.tensor(one).to(first), "z").cpu() for one in found.values()])
