"""The authors' own files as a method: their network, their encoder, the codes of their style's portraits.

    >>> method = load_published("generator.pt", "encoder.pt", "refined_exstyle_code.npy")   # doctest: +SKIP
    >>> face = align_portrait(load_image("me.jpg"), 1024).picture                           # doctest: +SKIP
    >>> picture = method.stylize(face, 26, **AS_RELEASED)                                   # doctest: +SKIP

What the released program does with them: the encoder reads z+ off 256 pixels, the face's w+ is shortened
towards 0, the structure of a portrait enters by three quarters and its colors whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...assets.weights import read_arrays, read_checkpoint
from ...errors import SettingError
from ...nets import from_official
from ...nets.dualstylegan import DualStyleGAN
from ...nets.hardware import resolve_device
from ...nets.psp import PICTURE
from ...nets.style_generator import STYLE
from ...nets.stylegan2 import Discriminator, Generator
from .transfer import DualStyle, Learned

AS_RELEASED: dict[str, Any] = {"structure": 0.75, "color": 1.0, "truncation": 0.75}
"""For :meth:`DualStyle.stylize`: what the released program takes if nothing else is said."""

File = str | os.PathLike[str]


class PublishedEncoder(nn.Module):
    """The published encoder for portraits in [0, 1], made smaller as in the released program.

    Args:
        net: :class:`nstlib.nets.psp.PspEncoder`.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    @torch.no_grad()
    def forward(self, portraits: Tensor) -> Tensor:
        """(N, 3, S, S) -> z+ (N, layers, 512)."""
        first = next(self.net.parameters())
        return self.net(2 * F.adaptive_avg_pool2d(portraits.to(first), PICTURE) - 1)


def load_published(
    checkpoint: File, encoder: File | None = None, codes: File | None = None,
    *, seed: int = 0, device: str | torch.device = "auto",
) -> DualStyle:  # fmt: skip
    """DualStyleGAN from its authors' files, or a new one over a published StyleGAN2.

    Args:
        checkpoint: a DualStyleGAN ("g_ema" of a generator.pt), with the style it has learned; or a StyleGAN2
            in the same layout, over which the extrinsic path is new.
        encoder: encoder.pt, which gives z+; needed for all that begins with a portrait.
        codes: exstyle_code.npy or refined_exstyle_code.npy: z+ of the style's portraits, in the file's order.
        seed: of a new extrinsic path.
        device: see :func:`nstlib.nets.hardware.resolve_device`.

    Returns:
        The method. Its truncation goes toward 0, as released.

    Raises:
        SettingError: a file is missing or holds something else, or they do not belong together.
    """
    where = resolve_device(device)
    held = read_checkpoint(Path(checkpoint), "such as the authors' generator.pt")
    state = _inside(held, "g_ema", checkpoint)
    own = any(key.startswith("res.") for key in state)
    net = from_official("dualstylegan" if own else "jojogan_generator", state).to(where)
    source = cast(Generator, net.generator if own else net)
    reader = None if encoder is None else PublishedEncoder(_encoder(encoder)).to(where)
    made = DualStyle(
        source=source,
        encoder=reader,
        space="z",
        center="zero",
        bottleneck_channels=None,
        seed=seed,
        device=where,
    )
    if own:
        made.net = cast(DualStyleGAN, net)
    if codes is not None:
        made.learned = Learned(_codes(codes, source), about={"codes": Path(codes).name})
    return made


def load_published_critic(checkpoint: File, device: str | torch.device = "auto") -> Discriminator | None:
    """The discriminator of a checkpoint ("d"), which has learned with its generator; None if it has none.

    Raises:
        SettingError: the file is missing or holds something else.
    """
    held = read_checkpoint(Path(checkpoint), "such as the authors' generator.pt")
    if "d" not in held:
        return None
    net = from_official("stylegan2_disc", _inside(held, "d", checkpoint))
    return cast(Discriminator, net.to(resolve_device(device)))


def _inside(held: dict[str, Any], name: str, path: File) -> dict[str, Tensor]:
    """A part of a checkpoint, or the whole file where it is that part."""
    state = held.get(name, held)
    if not isinstance(state, dict) or not all(isinstance(one, Tensor) for one in state.values()):
        raise SettingError(
            f"'{os.fspath(path)}' has no weights under '{name}': give the checkpoint as it was published."
        )
    return state


def _encoder(path: File) -> nn.Module:
    state = _inside(read_checkpoint(Path(path), "such as the authors' encoder.pt"), "state_dict", path)
    inside = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    return from_official("psp_encoder", inside or state)


@torch.no_grad()
def _codes(path: File, source: Generator) -> Tensor:
    """The portraits' z+, through the mapping network: w+ (K, layers, 512), on the CPU."""
    found = read_arrays(Path(path))
    wanted = (1, source.layers, STYLE)
    wrong = [name for name, one in found.items() if one.shape != wanted]
    if wrong or not found:
        raise SettingError(
            f"'{os.fspath(path)}' holds no codes {wanted} for a generator of {source.size} pixels: give the "
            "file that was published with it."
        )
    first = next(source.parameters())
    rows = [source.w_plus(torch.tensor(one).to(first), "z").cpu() for one in found.values()]
    return torch.cat(rows)
