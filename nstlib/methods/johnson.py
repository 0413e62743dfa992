"""A network for each style: Johnson, Alahi and Fei-Fei 2016, which papers A and C cite.

Gatys minimizes a loss for one picture, anew for each. Johnson minimizes the same loss over the weights of a
network, once, on many pictures; afterwards a picture takes one forward pass. What is saved is time, what is
lost is choice: one style, one strength, one way of painting it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..errors import Count, Fraction, NotNegative, Positive, settings
from ..errors import Settings as Base
from ..losses import content_loss, gram_matrix, style_loss, total_variation
from ..nets.features import FeatureExtractor
from ..nets.hardware import seeded
from ..nets.johnson import STRIDE, TransformNet, from_official
from ..pictures.files import check_picture
from ..training import Pictures, Schedule, Step, Task, TrainingResult, means
from .base import Method, pad_to_multiple, style_list

SHIPPED = ("starry_night", "the_kiss", "great_wave", "ink")
"""Styles whose trained networks the course carries, in ``data/weights``."""

LEAST = 16  # pixels a side: reflection needs more than the kernel's half at a quarter of the size

Pixels = Annotated[int, Field(ge=LEAST)]

# Of every preset.
OURS = {"average": 0.99, "style_weight": 2e4, "tv_weight": 2.0, "learning_rate": 2e-3, "decay": 0.1}


@settings
class Settings(Base):
    """What a network is trained for. The weights are those of PyTorch's fast_neural_style example, divided by
    its content weight: 1e5 for content, 1e10 for style there. It ran two epochs of MS COCO in batches of 4 of
    256 px with Adam's 1e-3; Johnson's paper has 40,000 such steps, with ``normalization="batch"`` and
    ``content_layer="relu3_3"``.
    """

    style_layers: tuple[str, ...] = Field(  # Johnson, section 4.1
        default=("relu1_2", "relu2_2", "relu3_3", "relu4_3"), min_length=1
    )
    content_layer: str = "relu2_2"  # the same; relu3_3 in his released code, and keeps less of the outlines
    content_weight: NotNegative = 1.0
    # Of Gram matrices divided by c·h·w, mean squares: losses' "neural_style_pt".
    style_weight: NotNegative = Field(default=1e5, description="How much style.")
    tv_weight: NotNegative = 0.0  # Johnson: 1e-6 to 1e-4 of squared differences; ours is absolute, see losses
    size: Pixels = Field(default=256, description="Side of the crops in pixels.")  # Johnson, section 4.1
    zoom: tuple[Positive, Fraction] = (0.5, 1.0)  # of the crops, as a part of the picture: ours
    style_size: Pixels = Field(
        default=256, description="Longest side of the style picture in pixels; smaller gives finer strokes."
    )
    learning_rate: Positive = Field(default=1e-3, description="Of Adam.")  # Johnson, section 4.1
    decay: Positive = 1.0  # the last step's learning rate as a part of the first's, falling by a cosine: ours
    width: Count = 32
    # Ulyanov et al. 2016; "batch" as Johnson printed.
    normalization: Literal["instance", "batch"] = "instance"


class TransferTask(Task):
    """One training step of the network: A's (2) to (4) for the network's picture instead of a free one.

    Args:
        net: what learns; reads and writes [0, 255].
        faces: pictures to learn on.
        styles: (1, 3, H, W) each; the mean of their Gram matrices is the style.
        settings: see :class:`Settings`.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: of the features.
    """

    def __init__(
        self, net: TransformNet, faces: Pictures, styles: Sequence[Tensor], settings: Settings,
        *, device: str | torch.device = "auto", precision: str | torch.dtype = "auto",
    ) -> None:  # fmt: skip
        self.settings, self.faces, self.decay = settings, faces, settings.decay
        crops = {key: getattr(faces, key) for key in ("size", "zoom", "flip", "seed")}
        self.sources = {"pictures": len(faces), "crops": crops, "styles": [means(one) for one in styles]}
        options: dict[str, Any] = {"device": device, "precision": precision}
        self.features = FeatureExtractor("vgg16", [*settings.style_layers, settings.content_layer], **options)
        self.content_features = FeatureExtractor("vgg16", [settings.content_layer], **options)
        with torch.no_grad():
            found = [self.features(style) for style in styles]
            grams = {n: [gram_matrix(one[n], "chw") for one in found] for n in settings.style_layers}
        self.targets = {name: torch.stack(several).mean(0) for name, several in grams.items()}
        self.modules = {"net": net}
        head = list(net.deconv3.parameters())
        body = [p for name, p in net.named_parameters() if not name.startswith("deconv3.")]
        # The last layer writes [0, 255]: its weights are larger, and Adam's steps have to be; at 255 times
        # the others' rate the first pictures overshoot, and their loss with them.
        rate = settings.learning_rate
        groups = [{"params": body, "lr": rate}, {"params": head, "lr": 16 * rate}]
        self.optimizers = {"main": torch.optim.Adam(groups)}

    def step(self, step: Step) -> dict[str, Tensor]:
        """The network's picture of the batch, its losses, one step of Adam."""
        height, width = step.batch.shape[-2:]
        images = step.modules["net"](255 * pad_to_multiple(step.batch, STRIDE)).float() / 255
        losses = self.losses(images[..., :height, :width], step.batch)
        step.descend(losses["total"])
        return losses

    def losses(self, images: Tensor, contents: Tensor) -> dict[str, Tensor]:
        """What is minimized: "total", and its weighted parts "content", "style", "tv".

        Args:
            images: the network's, (N, 3, H, W).
            contents: what they were made from, (N, 3, H, W).
        """
        s = self.settings
        with torch.no_grad():
            wanted = self.content_features(contents)[s.content_layer]
        found = self.features(images)
        style = [style_loss(found[n], self.targets[n], "neural_style_pt") for n in s.style_layers]
        parts = {
            "content": s.content_weight * content_loss(found[s.content_layer], wanted),
            "style": s.style_weight * torch.stack(style).sum(),
            "tv": s.tv_weight * total_variation(images),
        }
        return {"total": torch.stack(list(parts.values())).sum(), **parts}


class Johnson(Method):
    """A network that has learned one style, or will; the arguments of :class:`Method`.

    Attributes:
        net: the network.

    Example:
        >>> picture = Johnson.load("starry_night").stylize(load_image("me.jpg", size=512))  # doctest: +SKIP
    """

    summary = "a style it was trained for, in one forward pass"
    settings_class = Settings
    shipped = SHIPPED
    takes = frozenset({"size", "color", "precision"})
    # `quick` and `shipped`: 0.7 to 1.3 s a step on two cores without AVX-512.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": OURS | {"steps": 1000, "batch": 1, "size": 128, "faces": 200},
        "smoke": OURS | {"steps": 4, "batch": 1, "size": 64, "faces": 4},
        "shipped": OURS | {"steps": 2000, "batch": 1, "size": 128, "faces": 400},
        "paper": OURS | {"steps": 40_000, "batch": 4, "size": 256, "faces": 10_000},  # Johnson, section 4.1
    }

    def __init__(self, settings: Settings | None = None, **options: Any) -> None:
        super().__init__(settings, **options)
        with seeded(self.seed):
            self.net = TransformNet(self.settings.width, normalization=self.settings.normalization)
        # It is to begin with gray pictures of some contrast, not with black ones: its last layer writes
        # [0, 255], which torch's own initialization does not know.
        layer = self.net.deconv3.conv2d
        with torch.no_grad():
            layer.weight.mul_(255 / 4)
            layer.get_parameter("bias").fill_(255 / 2)
        self._ready()

    def task(self, faces: Any, styles: Tensor | Sequence[Tensor], schedule: Schedule) -> TransferTask:
        """The training of the network it has: untrained, or of another style."""
        given = [check_picture("style", one, LEAST) for one in style_list(styles)]
        styles = [one for several in given for one in several.split(1)]
        if not isinstance(faces, Pictures):
            faces = Pictures(faces, self.settings.size, zoom=self.settings.zoom, seed=schedule.seed)
        self._pictures = len(faces)
        self.net.float().requires_grad_(True).load_state_dict(self._exact)
        options: dict[str, Any] = {"device": self.device, "precision": self.precision}
        return TransferTask(self.net, faces, styles, self.settings, **options)

    def fit(self, *args: Any, **options: Any) -> TrainingResult:
        """See :meth:`Method.fit`; from the weights there are, an untrained network's or another style's."""
        try:
            result = super().fit(*args, **options)
        finally:
            self._ready()
        self.about["pictures"] = self._pictures
        return result

    def paint(self, content: Tensor, style: Any, how: str) -> Tensor:
        """See :meth:`.Method.paint`."""
        check_picture("content", content, LEAST)
        images = (255 * pad_to_multiple(content, STRIDE)).to(self.device, self.precision)
        return self.net(images.contiguous(memory_format=self._memory_format)) / 255

    def state(self) -> dict[str, Tensor]:
        """The network's weights, in the published layout."""
        return self._exact

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights in the published layout, of ours or of PyTorch's example."""
        self.net = from_official(tensors)
        self._ready()

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last

    def _ready(self) -> None:
        # What is saved or trained on must not be rounded to the precision that pictures are painted with.
        plain = torch.contiguous_format
        self._exact = {
            k: t.detach().to("cpu", copy=True, memory_format=plain) for k, t in self.net.state_dict().items()
        }
        form: dict[str, Any] = {"memory_format": self._memory_format}
        self.net.to(self.device, self.precision).to(**form).eval().requires_grad_(False)
