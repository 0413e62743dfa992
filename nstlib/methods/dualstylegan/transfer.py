"""The method as a whole: four stages in a row to learn a style, one pass to put a face into it.

    >>> method = DualStyle("ink")                                           # doctest: +SKIP
    >>> face = align_portrait(load_image("me.jpg")).picture                 # doctest: +SKIP
    >>> picture = method.stylize(face, 12, structure=0.6, color=1.0)        # doctest: +SKIP

Source: paper A, section 3.2 and its figures 3 and 8, after Yang et al. 2022, "Pastiche Master".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import assets
from ...assets.weights import read_weights, save_weights
from ...errors import SettingError
from ...faces.generated import Faces
from ...faces.identity import Identity
from ...nets.dualstylegan import DualStyleGAN, layer_weights
from ...nets.face_prior import FacePrior
from ...nets.hardware import resolve_device
from ...nets.official import blocks
from ...nets.style_generator import STYLE, StyleGenerator
from ...nets.stylegan2 import Discriminator
from ...pictures.files import resize
from ...training import TrainingResult
from ..face_networks import load_encoder
from ..inversion import SPACES, check_portraits, encode, invert
from .critic import PictureCritic, source_critic
from .destylization import Encoder, destylize
from .finetuning import fine_tune
from .latent import Samplers, refine_codes, sample_styles, train_sampler
from .presets import Preset
from .stage_settings import CENTERS

SHIPPED: tuple[str, ...] = ("ink", "sketch", "fantasy_portraits")
"""Styles whose extrinsic paths the course carries, in ``data/weights``; each has learned that style set."""

BOTTLENECK_CHANNELS = 48
"""Channels between the 1 × 1 convolutions of a small extrinsic path: a style is a file of 5 MB."""

Exemplar = int | Tensor | Mapping[int, float]
"""A portrait of the style by its number, codes (layers, 512), or several numbers with weights."""


@dataclass
class Learned:
    """What a style's training leaves besides the weights."""

    extrinsic: Tensor  # (K, layers, 512), w+ of the style's portraits
    samplers: Samplers | None = None
    about: dict[str, Any] = field(default_factory=dict)
    portraits: Tensor | None = None  # (K, 3, S, S) in [0, 1], if they are there


class DualStyle:
    """Faces in the style of an artistic portrait, by DualStyleGAN over a generator of faces.

    Args:
        style: a name of :data:`SHIPPED` or a file that :meth:`save` has written; None: a new path, which has
            learned nothing and is to be :meth:`fit`.
        source: the generator of faces; None: the face prior of 128 pixels.
        encoder: portraits (N, 3, S, S) in [0, 1] -> codes (N, layers, 512); None: the course's own, which is
            for the face prior.
        space: of the encoder's codes: "w" is w+, "z" is z+, as the published one gives them.
        center: what :meth:`stylize` truncates toward: the "mean" w, or "zero" as in the released code.
        bottleneck_channels: of a new extrinsic path, see :class:`nstlib.nets.dualstylegan.BottleneckModRes`;
            None: as published.
        seed: of a new path's weights.
        device: see :func:`nstlib.nets.hardware.resolve_device`.

    Attributes:
        net: the network.
        learned: the style's codes, samplers and story; None before it is learned.

    Raises:
        SettingError: an unknown space or center; no such style, or a file that does not fit the source.
        AssetError: the prior's weights cannot be had.
    """

    def __init__(
        self,
        style: str | os.PathLike[str] | None = None,
        *,
        source: StyleGenerator | None = None,
        encoder: Encoder | None = None,
        space: str = "w",
        center: str = "mean",
        bottleneck_channels: int | None = BOTTLENECK_CHANNELS,
        seed: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        for name, given, known in (("space", space, SPACES), ("center", center, CENTERS)):
            if given not in known:
                raise SettingError(f"{name} is one of {', '.join(known)}, not '{given}'.")
        self.device = resolve_device(device)
        self.source = (Faces(self.device).prior() if source is None else source).to(self.device)
        self._encoder, self.space, self.center = encoder, space, center
        self.learned: Learned | None = None
        if style is None:
            with torch.random.fork_rng([]):
                torch.default_generator.manual_seed(seed)
                net = DualStyleGAN.over(self.source, bottleneck_channels)
            self.net = net.to(self.device).requires_grad_(False).eval()
        else:
            self.net, self.learned = self._read(style)

    @property
    def size(self) -> int:
        """Pixels a side of the pictures."""
        return self.net.size

    @property
    def encoder(self) -> Encoder:
        """What reads the codes of a face off its portrait, in the space :attr:`space`.

        Raises:
            SettingError: none was given, and the course's own is for another generator.
        """
        if self._encoder is None:
            if not isinstance(self.source, FacePrior):
                raise SettingError(
                    f"The course's encoder is for its own generator, not for this one of {self.size} pixels: "
                    "give the encoder that was trained for it."
                )
            own = load_encoder(device=self.device)
            self._encoder = lambda pictures: encode(pictures, own)
        return self._encoder

    def fit(
        self,
        faces: object,
        styles: Tensor,
        preset: Preset | None = None,
        folder: str | os.PathLike[str] | None = None,
        *,
        seed: int = 0,
        identity: Identity | None = None,
        critic: Discriminator | None = None,
        told: Callable[[str], None] | None = None,
        progress: bool = True,
        **tensors: Mapping[str, Tensor],
    ) -> TrainingResult:
        """All four stages; each goes on from its part of the folder.

        Args:
            faces: for the common protocol; the generator draws its own, so this is not looked at.
            styles: the style's portraits (K, 3, S, S), in [0, 1], aligned like FFHQ.
            preset: the stages' settings; None: the small ones, for a processor.
            folder: where to keep what is done; the same call goes on from there.
            seed: of everything random.
            identity: None: made here, if a setting gives it a weight.
            critic: StyleGAN2's, which has learned with the source; copies of it learn on, where the settings
                ask for one. None: new ones.
            told: called with the name of each stage as it begins.
            progress: show progress bars.
            tensors: ``vgg16``, ``vgg19``: weights instead of the assets' (tests).

        Returns:
            The last stage's result; after Ctrl-C that of the stage it came in, ``interrupted``.

        Raises:
            ImageError: no portraits, or not square.
            OptimizationError: see the stages.
            SettingError: the same; settings for an encoder of another space.
        """
        preset, say = preset or Preset(), told or (lambda stage: None)
        wanted = preset.stages.destylization.inversion.space
        if wanted != self.space:
            raise SettingError(
                f"The settings search in {wanted}+, and the encoder reads {self.space}+: set the inversion's "
                "space, or take another encoder."
            )
        parts = {
            name: None if folder is None else Path(folder) / name
            for name in ("1_destylization", "2_structure", "3_style", "4_codes", "4_sampler")
        }
        vgg16, vgg19 = tensors.get("vgg16"), tensors.get("vgg19")
        say("destylization")
        found = destylize(
            styles, self.source, lambda some: self.encoder(some), preset.stages.destylization,
            parts["1_destylization"],
            critic=self._judge(critic, preset, seed), identity=identity, seed=seed, tensors=vgg16,
            progress=progress,
        )  # fmt: skip
        first, second = preset.recipe.schedules(seed)
        stages: dict[str, Any] = {"2_structure": (preset.recipe.structure, first)}
        stages["3_style"] = (preset.recipe.style, second)
        judge: nn.Module | None = None
        if critic is not None and preset.recipe.structure.critic == "stylegan2":
            judge = PictureCritic(source_critic(critic, self.size))
        for name, (settings, schedule) in stages.items():
            say("structure" if name == "2_structure" else "style")
            options: dict[str, Any] = {"critic": judge, "tensors": vgg19, "progress": progress}
            if name == "3_style":
                known = any(weight for _, weight, _ in settings.phases)
                options |= {
                    "styles": found,
                    "identity": (identity or Identity(self.device)) if known else None,
                }
            judge, result = fine_tune(self.net, settings, schedule, parts[name], **options)
            if result.interrupted:
                return result
        say("latent optimization")
        found = refine_codes(
            self.net, found, preset.stages.latent, parts["4_codes"], tensors=vgg19, progress=progress
        )
        say("sampling network")
        samplers, drawn = train_sampler(
            found, preset.stages.sampler, parts["4_sampler"], seed=seed, device=self.device, progress=progress
        )
        if drawn.interrupted:
            return drawn
        about = {
            "portraits": len(found),
            "seed": seed,
            "steps": {"structure": first.steps, "style": second.steps},
        }
        self.learned = Learned(found.extrinsic, samplers, about, found.portraits)
        return drawn

    def faces(self, content: Tensor, steps: int = 0) -> Tensor:
        """The intrinsic codes of portraits: the encoder's, and if wanted so many steps of descent from there.

        Args:
            content: (N, 3, H, W), in [0, 1], square, aligned like FFHQ.
            steps: of :func:`nstlib.methods.inversion.invert`; 0 takes the encoder's codes as they are.

        Returns:
            (N, layers, 512), w+.

        Raises:
            ImageError: not such portraits.
            SettingError: see :attr:`encoder`.
        """
        pictures = resize(check_portraits(content), (self.size, self.size)).to(self.device)
        with torch.no_grad():
            codes = self.source.w_plus(self.encoder(pictures), self.space)
        return (
            invert(pictures, self.source, start=codes, steps=steps, progress=False).codes if steps else codes
        )

    def codes(self, style: Exemplar) -> Tensor:
        """The extrinsic codes (layers, 512) of an exemplar, or of several, fused (paper A, figure 8).

        Raises:
            SettingError: nothing is learned yet, there is no such portrait, weights that sum up to 0.
        """
        if isinstance(style, Tensor):
            if style.shape not in ((self.net.layers, STYLE), (1, self.net.layers, STYLE)):
                raise SettingError(
                    f"Codes of a style are ({self.net.layers}, {STYLE}), not {tuple(style.shape)}."
                )
            return style.reshape(self.net.layers, STYLE)
        if self.learned is None:
            raise SettingError(
                "No style has been learned yet: fit the method, or name a style when making it."
            )
        extrinsic, weights = self.learned.extrinsic, {style: 1.0} if isinstance(style, int) else dict(style)
        wrong = [number for number in weights if not 0 <= number < len(extrinsic)]
        if wrong or not weights:
            raise SettingError(
                f"The style has portraits 0 to {len(extrinsic) - 1}, not {wrong[0] if wrong else 'none'}: "
                "name one of these."
            )
        total = sum(weights.values())
        if not total > 0 or min(weights.values()) < 0:
            raise SettingError("The weights of several styles are 0 or more, and not all 0.")
        return torch.stack([extrinsic[number] * (weight / total) for number, weight in weights.items()]).sum(
            0
        )

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Codes (count, layers, 512) of styles like those that were learned, from the sampling networks.

        Raises:
            SettingError: no sampling network is there.
        """
        if self.learned is None or self.learned.samplers is None:
            raise SettingError(
                "No sampling network is there: fit the method, or name a style when making it."
            )
        return sample_styles(self.learned.samplers, count, seed)

    @torch.no_grad()
    def stylize(
        self,
        content: Tensor,
        style: Exemplar = 0,
        *,
        structure: float | Sequence[float] = 1.0,
        color: float | Sequence[float] = 1.0,
        keep_colors: bool = False,
        fuse_index: int | None = None,
        truncation: float = 1.0,
        steps: int = 0,
    ) -> Tensor:
        """Portraits in the style of an exemplar.

        Args:
            content: (N, 3, H, W), in [0, 1], square, aligned like FFHQ (:func:`nstlib.faces.align
                .align_portrait`); or intrinsic codes (N, layers, 512) that :meth:`faces` gave.
            style: see :data:`Exemplar`.
            structure: how much of the exemplar's shapes: a number from 0 to 1, or one for each of 7 layers.
            color: how much of its colors: a number, or one for each further layer.
            keep_colors: take the colors from the content.
            fuse_index: the last layer with the style, see :class:`nstlib.nets.dualstylegan.DualStyleGAN`.
            truncation: of the face toward the mean face: 1 keeps it.
            steps: see :meth:`faces`.

        Returns:
            (N, 3, size, size), in [0, 1], on the CPU.

        Raises:
            ImageError: not such portraits.
            SettingError: see :meth:`codes`; weights that do not fit.
        """
        face = content if content.ndim == 3 else self.faces(content, steps)
        face = face.to(self.device)
        art = self.codes(style)[None].to(face)
        center = self._mean() if truncation < 1 and self.center == "mean" else None
        drawn = [
            self.net(
                one, art, space="w", extrinsic_space="w",
                interp_weights=layer_weights(self.net.layers, structure, color), fuse_index=fuse_index,
                keep_colors=keep_colors, truncation=truncation, center=center,
            )
            for one in face.split(1)
        ]  # fmt: skip
        return ((torch.cat(drawn).float() + 1) / 2).clamp(0, 1).cpu()

    def grid(
        self, content: Tensor, style: Exemplar, structures: Sequence[float], colors: Sequence[float]
    ) -> Tensor:
        """One face at several strengths: a row for each of structure, a column for each of color.

        Args:
            content: a single portrait or its codes, see :meth:`stylize`.
            style: see :data:`Exemplar`.
            structures: strengths.
            colors: strengths.

        Returns:
            (rows, columns, 3, size, size), in [0, 1].
        """
        face = content if content.ndim == 3 else self.faces(content)
        rows = [
            torch.stack([self.stylize(face, style, structure=s, color=c)[0] for c in colors])
            for s in structures
        ]
        return torch.stack(rows)

    def save(self, path: str | os.PathLike[str], **about: Any) -> Path:
        """Write the style as float16 safetensors: extrinsic path, codes, samplers, and no generator.

        Raises:
            ImageError: the file cannot be written.
            SettingError: nothing is learned yet.
        """
        if self.learned is None:
            raise SettingError("No style has been learned yet: fit the method first.")
        state = {f"path.{key}": tensor for key, tensor in self.net.extrinsic_state().items()}
        state["extrinsic"] = self.learned.extrinsic
        if self.learned.samplers is not None:
            for name in ("structure", "color"):
                net = getattr(self.learned.samplers, name)
                state |= {f"sampler.{name}.{key}": tensor for key, tensor in net.state_dict().items()}
        return save_weights(path, state, {"method": "dualstylegan", **self.learned.about, **about})

    def _mean(self) -> Tensor:
        return self.source.mean_w(generator=torch.Generator(self.device).manual_seed(0))

    def _judge(self, given: Discriminator | None, preset: Preset, seed: int) -> Discriminator | None:
        """The critic of the first stage, where the settings ask for one."""
        if not preset.stages.destylization.adversarial_weight:
            return None
        channels = preset.recipe.structure.critic_channels
        return source_critic(given, self.size, channels, seed).to(self.device)

    def _read(self, style: str | os.PathLike[str]) -> tuple[DualStyleGAN, Learned]:
        named = isinstance(style, str) and style in SHIPPED
        path = assets.data_path(f"weights/dualstyle_{style}.safetensors") if named else Path(style)
        tensors, about = read_weights(path, f"or a style of {', '.join(SHIPPED)}")
        state = {k.removeprefix("path."): t.float() for k, t in tensors.items() if k.startswith("path.")}
        bottleneck_channels = len(state["res.0.narrow.weight"]) if "res.0.narrow.weight" in state else None
        net = DualStyleGAN.over(self.source, bottleneck_channels).to(self.device)
        fits = blocks(state, "res.") == net.layers and {k: t.shape for k, t in state.items()} == {
            k: t.shape for k, t in net.extrinsic_state().items()
        }
        if "extrinsic" not in tensors or not fits:
            raise SettingError(
                f"'{path}' holds no style for a generator of {self.source.size} pixels and "
                f"{self.source.layers} codes: name a file that DualStyle.save has written for it."
            )
        net.load_state_dict({**net.state_dict(), **state})
        return net.requires_grad_(False).eval(), Learned(
            tensors["extrinsic"].float(), Samplers.of(tensors, "sampler."), about
        )
