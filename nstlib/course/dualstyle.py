"""What notebook 05 stands on: a generator of faces with its encoder at each preset, and a drawing of it.

At ``smoke`` both are tiny and have learned nothing; at ``quick`` they are the course's own, for 128 pixels;
at ``paper`` they are the reader's: DualStyleGAN's published files, for 1024 pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar, cast

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor, nn

from ..errors import SettingError
from ..faces.generated import Faces
from ..methods.dualstylegan import settings as recipes
from ..methods.dualstylegan import stage_settings as stages
from ..methods.dualstylegan.critic import source_critic
from ..methods.dualstylegan.presets import Preset, released, smoke
from ..methods.dualstylegan.published import load_published, load_published_critic
from ..methods.dualstylegan.transfer import WAIST
from ..methods.face_networks import load_encoder
from ..methods.inversion import encode
from ..nets.dualstylegan import DualStyleGAN
from ..nets.face_encoder import FaceEncoder
from ..nets.style_generator import STRUCTURE, StyleGenerator
from ..nets.stylegan2 import Discriminator, Generator
from .plots import COLORS, house_style

Net = TypeVar("Net", bound=nn.Module)

TINY = (8, 8, 8, 8)  # channels at 4, 8, 16, 32 pixels
TINY_SIZE = 4 << (len(TINY) - 1)


@dataclass(frozen=True)
class Ground:
    """A generator of faces, and how styles are learned over it.

    Attributes:
        source: the generator, frozen.
        reader: portraits (N, 3, S, S) in [0, 1] -> codes (N, layers, 512) in the space of the settings.
        preset: the four stages' settings.
        waist: of a new extrinsic path.
        net: a network that has learned already, as it was published; None where there is none.
        judge: the critic that has learned with the source; None where there is none.
    """

    source: StyleGenerator
    reader: nn.Module
    preset: Preset
    waist: int | None
    net: DualStyleGAN | None = None
    judge: Discriminator | None = None

    @property
    def space(self) -> str:
        """Of the codes that the first stage works on: "z" or "w"."""
        return self.preset.stages.destylization.inversion.space

    def codes(self, portraits: Tensor) -> Tensor:
        """Portraits to w+ (N, layers, 512), whatever the reader's space is."""
        with torch.no_grad():
            return self.source.w_plus(self.reader(portraits), self.space)

    def critic(self) -> Discriminator | None:
        """What judges the fine-tuned source in the first stage; None where it does without."""
        if not self.preset.stages.destylization.adversarial_weight:
            return None
        return source_critic(self.judge, self.source.size).to(next(self.source.parameters()).device)


class _Reader(nn.Module):
    """The course's own encoder, for pictures in [0, 1]."""

    def __init__(self, encoder: FaceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, portraits: Tensor) -> Tensor:
        return encode(portraits, self.encoder)


def quick() -> Preset:
    """So few steps that all stages run in a minute or two on a processor, and one sees what they do."""
    first, last = stages.SMALL.destylization, stages.SMALL.latent
    structure, style = recipes.SMALL.structure, recipes.SMALL.style
    return Preset(
        stages.Stages(
            first.changed(
                tuning_steps=24,
                tuning_batch=1,
                tuning_rate=2e-4,
                steps=8,
                inversion=first.inversion.changed(learning_rate=0.03),  # at 0.06 so few steps stay rough
            ),
            last.changed(steps=6),
            stages.SMALL.sampler.changed(steps=400),  # for few portraits; cut shorter, it draws none of them
        ),
        replace(
            recipes.SMALL,
            structure=structure.changed(mixing=((7, 3), (6, 3), (5, 10))),
            style=style.changed(phases=((16, 1.0, 0.002),)),
            average=0.8,
        ),
    )


def ground(
    preset: str,
    checkpoint: str | os.PathLike[str] | None = None,
    encoder: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Ground:
    """The generator of a preset, and what belongs to it.

    Args:
        preset: "smoke", "quick" or "paper".
        checkpoint: DualStyleGAN's published file; for "paper".
        encoder: the published encoder's file, whose codes are z+; for "paper".
        device: where to.
        seed: of what has learned nothing.

    Raises:
        SettingError: a file is missing, or holds something else.
    """
    if preset == "paper":
        return _published(checkpoint, encoder, torch.device(device))
    if preset == "quick":
        own = load_encoder(device=device)
        return Ground(Faces(device).prior(), _Reader(own), quick(), WAIST)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        source = Generator(TINY_SIZE, TINY)
        reader = FaceEncoder(source.layers)
    return Ground(_frozen(source, device), _Reader(_frozen(reader, device)), smoke(), 4)


def _published(
    checkpoint: str | os.PathLike[str] | None, encoder: str | os.PathLike[str] | None, device: torch.device
) -> Ground:
    if checkpoint is None or encoder is None:
        raise SettingError(
            "The preset 'paper' fine-tunes the published network: give its two files, as in "
            "nst course 05 --preset paper -p checkpoint=generator.pt -p encoder=encoder.pt."
        )
    made = load_published(checkpoint, encoder, device=device)
    preset, critic = released(), load_published_critic(checkpoint, device)
    return Ground(made.source, cast(nn.Module, made.encoder), preset, None, made.net, critic)


def _frozen(net: Net, device: str | torch.device) -> Net:
    return net.to(device).requires_grad_(False).eval()


class Part(NamedTuple):
    """One code of a DualStyleGAN, and what it enters."""

    code: int
    kind: str  # "structure" or "color"
    side: int  # pixels of the features
    channels: int | None  # of these; None where the code is a color's
    weights: int  # of the extrinsic path's part: ModRes or T_c


def parts_of(net: DualStyleGAN) -> list[Part]:
    """Walk a live network: draw one picture, and look at what passes each of the extrinsic path's parts."""
    seen: dict[int, torch.Size] = {}

    def look(index: int, x: Tensor) -> Tensor:
        seen[index] = x.shape
        return x

    source = net.generator
    with torch.no_grad():
        center = source.mean_w(16)
        source.synthesize(source.w_plus(center), source.noise_maps("fixed", 1), look)
    found = []
    for code, block in enumerate(net.res):
        weights = sum(p.numel() for p in block.parameters())
        if code < STRUCTURE:
            found.append(Part(code, "structure", seen[code][-1], seen[code][1], weights))
        else:
            found.append(Part(code, "color", min(4 << (code + 1) // 2, net.size), None, weights))
    return found


def two_paths(parts: Sequence[Part], totals: dict[str, int]) -> Figure:
    """Paper A's Figure 3, drawn from a live network.

    Args:
        parts: see :func:`parts_of`.
        totals: weights of "mapping", "synthesis" and "T_s".
    """
    with house_style():
        figure, axis = plt.subplots(figsize=(max(7.5, 0.86 * (len(parts) + 1)), 3.5))
        axis.set(xlim=(-1.9, len(parts) + 0.2), ylim=(-0.65, 3.6))
        axis.axis("off")
        for part in parts:
            x, structure = part.code, part.kind == "structure"
            color = COLORS[1] if structure else COLORS[2]
            _box(
                axis, x, 0.55, f"{part.side} px" + (f"\n{part.channels}" if part.channels else ""), COLORS[0]
            )
            name = "ModRes" if structure else "$T_c$"
            _box(axis, x, 1.85, f"{name}\n{_short(part.weights)}", color)
            axis.add_patch(_arrow((x + 0.4, 1.85), (x + 0.4, 1.25)))
            axis.text(x + 0.4, 0.38, f"$w_{{{x}}}$", ha="center", va="top", fontsize=8)
            if x:
                axis.add_patch(_arrow((x - 0.2, 0.9), (x, 0.9)))
        inner = sum(part.kind == "structure" for part in parts)
        _box(axis, 0, 2.95, f"$T_s$, {_short(totals['T_s'])}", COLORS[1], inner - 0.2)
        axis.add_patch(_arrow((inner / 2 - 0.1, 2.95), (inner / 2 - 0.1, 2.6)))
        for y, text in ((3.2, "extrinsic\ncodes $w_E$"), (0.9, "intrinsic\n" + _short(totals["synthesis"]))):
            axis.text(-0.25, y, text, ha="right", va="center", fontsize=9)
        axis.text(
            -0.25, 0.15, f"$w_I$ = mapping($z_I$),\n{_short(totals['mapping'])}", ha="right", va="center",
            fontsize=9,
        )  # fmt: skip
        axis.text(inner / 2, -0.45, "structure: a residual is added", ha="center", color=COLORS[1])
        axis.text(
            (inner + len(parts)) / 2, -0.45, "color: $w$ is mixed", ha="center", color=COLORS[2]
        )  # fmt: skip
    return figure


def _box(axis: plt.Axes, x: float, y: float, text: str, color: str, width: float = 0.8) -> None:
    axis.add_patch(Rectangle((x, y), width, 0.7, facecolor=color, alpha=0.18, edgecolor=color))
    axis.text(x + width / 2, y + 0.35, text, ha="center", va="center", fontsize=8)


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> FancyArrowPatch:
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, linewidth=1, color="#555555")


def _short(number: int) -> str:
    """1234567 -> 1.2 M."""
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number / 1e3:.1f} k"
