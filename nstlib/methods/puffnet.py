"""Puff-Net: StyTr2 with less transformer, and pictures of pure content and pure style (Zheng et al. 2024).

Two small networks take apart what a picture shows: one is to leave its lines, the other its colors and
strokes. The transformer, which has encoder layers alone, gets the lines of the content and the strokes of the
style. Both networks take faces and styles apart, and each picture has to be found again from its own two
parts. Paper E compares itself with it. No weights were released.

Losses, weights and learning rate are StyTr2's, see :mod:`.stytr2`; in addition, where the paper and the
authors' released program differ, or leave something open:

=============  ==========================================  ===================================================
what           as printed                                  as released; ours where it is another
=============  ==========================================  ===================================================
position       CAPE, added to the queries                  passed one argument too far to the left, where
                                                           nothing reads it; ours printed: ``positional``
extractors     an invertible network for content           its steps are; the maps before and behind are not,
                                                           and end in ReLU
their losses   style and content kept by each              style at relu1_1 alone, content at relu4_1 and
                                                           relu5_1, times 0.7; the whole times 20
warm-up        StyTr2's                                    rises for 400,000 steps, to 6e-3; ours StyTr2's
sizes          any                                         a square, and one size for both; ours any
=============  ==========================================  ===================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import NotNegative, settings
from ..losses import content_loss
from ..nets.features import FeatureExtractor
from ..nets.puff_extractors import ContentExtractor, StyleExtractor
from ..nets.transformer_style import FusionTransformer, StyleTransformer
from ..training import Step
from . import stytr2
from .stytr2 import CONTENT_LAYERS, LAYERS, OURS, PIXELS, SMOKE, Stage, StyleTask, StyTr2


@settings
class Settings(stytr2.Settings):
    """StyTr2's, and those of the extractors, from the released program."""

    extractor_weight: NotNegative = 20.0
    pure_content_weight: NotNegative = 0.7  # within the extractors' losses
    positional: bool = True  # False: as released


class PuffTask(StyleTask):
    """StyTr2's step, with pictures taken apart: "detail" gives pure content, "base" pure style."""

    def __init__(self, modules: dict[str, nn.Module], *args: Any, **options: Any) -> None:
        super().__init__(modules, *args, **options)
        of = {k: options[k] for k in ("device", "precision")}
        self.first_features = FeatureExtractor("vgg19", LAYERS[:1], padding="reflect", **of)

    def paint(
        self, step: Step, contents: Tensor, styles: Tensor, stage: Stage
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`.StyleTask.paint`; the further losses are the extractors'."""
        m = step.modules
        # One after the other, as released: batch normalization must not mix faces with paintings.
        lines, strokes = ([m[k](images).float() for images in (contents, styles)] for k in ("detail", "base"))
        made = m["net"](torch.cat([lines[0], *lines]), torch.cat([strokes[1], *strokes]))
        return made, self.extractor_losses(torch.cat(lines), torch.cat(strokes), contents, styles, stage)

    def extractor_losses(
        self, lines: Tensor, strokes: Tensor, contents: Tensor, styles: Tensor, stage: Stage = "all"
    ) -> dict[str, Tensor]:
        """That pure content has the content of its picture, and pure style the style; weighted.

        Args:
            lines: pure content of contents and styles, (2 N, 3, S, S).
            strokes: pure style, likewise.
            contents: (N, 3, S, S).
            styles: likewise.
            stage: "pixels" compares pictures, which is ours, "style" computes the style only.
        """
        s, originals = self.settings, torch.cat([contents, styles])
        # Means over contents and styles are half the sum of both.
        if stage == "pixels":
            style = 2 * content_loss(strokes, originals)
            content = 2 * stytr2.content_distance(lines, originals)
        else:
            first = LAYERS[0]
            wanted, found = self.first_features(originals)[first], self.first_features(strokes)[first]
            style, content = 2 * stytr2.style_distance(found, wanted), contents.new_zeros(())
        if stage == "all":
            with torch.no_grad():
                deep = self.features(originals)
            own = self.features(lines)
            contents = torch.stack([stytr2.content_distance(own[n], deep[n]) for n in CONTENT_LAYERS])
            content = 2 * s.deep_every * contents.sum()
        return {
            "pure_style": s.extractor_weight * style,
            "pure_content": s.extractor_weight * s.pure_content_weight * content,
        }


class PuffNet(StyTr2):
    """A transformer that paints any style from pure content and pure style; see :class:`.StyTr2`.

    Attributes:
        net: what paints.
        detail: the extractor of content.
        base: the extractor of style; both by the names of the released program.

    Example:
        >>> method = PuffNet()                                                   # doctest: +SKIP
        >>> method.fit("my/photographs", ["data/paintings", "my/drawings"])      # doctest: +SKIP
        >>> picture = method.stylize(load_image("me.jpg", size=512), painting)   # doctest: +SKIP
    """

    summary = "any style, from pure content and pure style; smaller than stytr2"
    settings_class = Settings
    task_class = PuffTask
    published: ClassVar[Sequence[str]] = ()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": OURS | {"steps": 150, "faces": 100},  # from the course's weights: --start course
        "smoke": OURS | SMOKE,
        "pixels": OURS | PIXELS | {"steps": 600},
        "shipped": OURS | {"steps": 200, "faces": 400},
        # The released program's million steps, one picture each. On MS COCO and WikiArt: --pictures.
        "paper": {"steps": 1_000_000, "batch": 1, "size": 256, "faces": 10_000},
    }

    def build(self) -> None:
        """Make the untrained networks."""
        s = self.settings
        transformer = FusionTransformer(s.width, s.layers, dropout=s.dropout, positional=s.positional)
        self.net = StyleTransformer(transformer, s.width).eval()
        self.detail, self.base = ContentExtractor().eval(), StyleExtractor().eval()

    def modules(self) -> dict[str, nn.Module]:
        """What paints, and both extractors."""
        return {"net": self.net, "detail": self.detail, "base": self.base}

    def painted(self, contents: Tensor, styles: Tensor) -> Tensor:
        """The network's pictures."""
        net, detail, base = (module.to(self.device) for module in self.modules().values())
        return net(detail(contents), base(styles))
