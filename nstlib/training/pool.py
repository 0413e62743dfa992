"""Generated pictures of earlier steps: a discriminator that sees these too forgets less, and swings less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ReplayPool:
    """Keeps some generated pictures, and gives older ones in place of half of the new ones.

    They are kept in float16, and given back so. Of several processes each has its own pool, and a checkpoint
    holds that of the first one.

    Args:
        capacity: how many pictures are kept; 50 in Shrivastava et al. 2017 and in CycleGAN.

    Source: Shrivastava et al. 2017, "Learning from Simulated and Unsupervised Images through Adversarial
    Training", section 2.3; the odds are those of CycleGAN's released code.
    """

    def __init__(self, capacity: int = 50) -> None:
        self.capacity = capacity
        self.pictures = torch.zeros(0)

    def exchange(self, made: Tensor, generator: torch.Generator) -> Tensor:
        """As many pictures as are given, new or old; until the pool is full, the new ones.

        Args:
            made: (N, C, H, W), always of one size.
            generator: random numbers, on the CPU.

        Returns:
            (N, C, H, W), without gradients.
        """
        given = []
        new = made.detach().half()
        self.pictures = self.pictures.to(new) if len(self.pictures) else new[:0].clone()
        for one in new.split(1):
            if len(self.pictures) < self.capacity:
                self.pictures = torch.cat([self.pictures, one])
            elif torch.rand((), generator=generator) < 0.5:
                place = int(torch.randint(self.capacity, (), generator=generator))
                older = self.pictures[place, None].clone()
                self.pictures[place] = one[0]
                one = older
            given.append(one)
        return torch.cat(given).to(made)

    def state_dict(self) -> dict[str, Tensor]:
        """The pictures, for a checkpoint."""
        return {"pictures": self.pictures}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.pictures = state["pictures"]
