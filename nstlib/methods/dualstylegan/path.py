"""The extrinsic path as a module of its own: what learns, is saved and averaged, and how it is restrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ...nets.dualstylegan import DualStyleGAN
from ...nets.style_generator import STRUCTURE
from ...training import TrainingResult


class ExtrinsicPath(nn.Module):
    """The part of a DualStyleGAN that learns: called, the whole network; saved and averaged, this part alone.

    Args:
        net: whose parts these are.

    Attributes:
        path_length: the running mean of path length regularization.
    """

    path_length: Tensor

    def __init__(self, net: DualStyleGAN) -> None:
        super().__init__()
        self.style, self.res = net.style, net.res
        self.register_buffer("path_length", torch.zeros(()))
        self.__dict__["whole"] = net  # not as a module of this one: the generator would be saved with it

    def forward(self, intrinsic: Tensor, extrinsic: Tensor) -> Tensor:
        """Codes w+ (N, layers, 512) of faces and of styles -> pictures (N, 3, size, size), about [-1, 1]."""
        # The noise is fixed: the goal of the second stage has the same one, and differs in style alone.
        return self.__dict__["whole"](intrinsic, extrinsic, space="w", extrinsic_space="w")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExtrinsicPath:
        self.__dict__["whole"].generator._apply(fn)  # to another device together
        return super()._apply(fn, recurse)


def uneven(
    path: ExtrinsicPath, module: nn.Module, face: Tensor, style: Tensor, generator: torch.Generator
) -> Tensor:
    """How unevenly steps of the styles' codes move the pictures: path length regularization.

    Args:
        path: keeps the lengths' running mean, which this moves.
        module: the same, as it is to be called.
        face: w+ (N, layers, 512).
        style: w+, likewise.
        generator: of the random directions, on the CPU.

    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", equation 4.
    """
    codes = style.detach().clone().requires_grad_(True)
    made = module(face, codes)
    noise = torch.randn(made.shape, generator=generator).to(made) / made.shape[-1]
    (slope,) = torch.autograd.grad((made * noise).sum(), codes, create_graph=True)
    lengths = slope.square().sum(2).mean(1).sqrt()
    with torch.no_grad():
        path.path_length.lerp_(lengths.mean(), 0.01)
    return (lengths - path.path_length.clone()).square().mean()


def residual_norms(net: DualStyleGAN) -> Tensor:
    """The sum of the norms, not squared, of the residual blocks' weights: paper A (10), as released."""
    blocks = list(net.res)[:STRUCTURE]
    return torch.stack([p.norm() for block in blocks for p in block.parameters()]).sum()


def extrinsic_weights(
    result: TrainingResult, first_transform: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """What a training gives in the end, as :meth:`DualStyleGAN.extrinsic_state` names it.

    Args:
        result: of a training of :class:`FineTuning`.
        first_transform: T_s as it was before the training, to stand in for what was learned; see
            ``average_transform`` of the settings. It makes sense only together with an average.

    Returns:
        The averages if they were taken, else the last weights.
    """
    state = result.averages.get("net") or result.modules["net"].state_dict()
    weights = {k: t.detach().clone() for k, t in state.items() if k != "path_length"}
    return weights | {f"style.{k}": t.clone() for k, t in (first_transform or {}).items()}
