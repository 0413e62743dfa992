"""A face generator that runs in milliseconds: MobileStyleGAN up to its features of 64 pixels, and a new head.

What StyleGAN2 knows of faces lies in its coarse layers, and those are kept (they learned from StyleGAN2, on
FFHQ); the later ones cost most of the time, and :class:`nstlib.nets.mobilestylegan.DistilledHead` replaces
them. So whatever a method does with a StyleGAN2 of 1024 pixels can be done here at 128, on a processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor

from .mobilestylegan import (
    CHANNELS,
    CUT,
    DistilledHead,
    Level,
    MappingNetwork,
    SynthesisNetwork,
    inverse_haar,
)
from .style_generator import STRUCTURE, After, StyleGenerator


class FacePrior(StyleGenerator):
    """Codes to faces of 128 pixels, by layers that correspond to StyleGAN2's.

    MobileStyleGAN has three styles at each size, StyleGAN2 two: here the doubling and the convolution behind
    it share one, as in StyleGAN2. So codes 0 to 6 are structure (4 to 32 pixels), 7 and 8 belong to the
    features of 64 pixels, 9 to the head, and the code of a face is (10, 512).

    Args:
        channels: of the features at 4, 8, 16 ... pixels, each a multiple of 4, four sizes at least.

    Attributes:
        synthesis: MobileStyleGAN's own layers.
        head: features to a picture.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS[: CUT + 1]) -> None:
        super().__init__()
        self.style = MappingNetwork()
        self.synthesis = SynthesisNetwork(channels)
        del self.synthesis.modulation, self.synthesis.to_img  # the head stands in for them
        self.head = DistilledHead(channels[-1])
        self.size, self.layers = 4 << len(channels), 2 * len(channels)
        self.structure_channels = tuple(channels[(index + 1) // 2] for index in range(STRUCTURE))

    @classmethod
    def of(cls, mapping: MappingNetwork, synthesis: SynthesisNetwork, head: DistilledHead) -> FacePrior:
        """The prior with the weights of networks that are there: copies, frozen."""
        prior = cls(synthesis.channels[: CUT + 1])
        prior.style.load_state_dict(mapping.state_dict())
        prior.head.load_state_dict(head.state_dict())
        own = prior.synthesis.state_dict()
        prior.synthesis.load_state_dict({k: v for k, v in synthesis.state_dict().items() if k in own})
        return prior.requires_grad_(False).eval()

    def synthesize(
        self, w_plus: Tensor, maps: Sequence[Tensor | None] = (), after: After = lambda _, x: x
    ) -> Tensor:
        """See :meth:`StyleGenerator.synthesize`; there are no maps."""
        codes, net = w_plus.unbind(1), self.synthesis
        x = after(0, net.conv1(net.input.expand(len(w_plus), -1, -1, -1), codes[0]))
        for index, level in enumerate(cast(Iterable[Level], net.levels)):
            first, second = 2 * index + 1, 2 * index + 2
            x = inverse_haar(level.up(x, codes[first]))
            x = after(first, level.conv1(x, codes[first]))
            x = after(second, level.conv2(x, codes[second]))
        return self.head(x, codes[-1])
