"""A network for each style: Johnson, Alahi and Fei-Fei 2016, which papers A and C build on.

Gatys minimizes a loss for one picture, anew for each. Johnson minimizes the same loss over the weights of a
network, once, on many pictures; afterwards a picture takes one forward pass. What is saved is time, what is
lost is choice: one style, one strength, one way of painting it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from .. import assets
from ..assets.weights import read_weights, save_weights
from ..errors import Changeable, SettingError
from ..losses import content_loss, gram_matrix, style_loss, total_variation
from ..nets.features import FeatureExtractor
from ..nets.hardware import resolve_device, resolve_precision
from ..nets.johnson import STRIDE, TransformNet, from_official
from ..training import Callback, Pictures, Schedule, Step, TrainingResult, train
from .feedforward import check_pictures, finished, padded

SHIPPED = ("starry_night", "the_kiss", "great_wave")
"""Styles whose trained networks the course carries, in ``data/weights``."""

LEAST = 16  # pixels a side: reflection needs more than the kernel's half at a quarter of the size


@dataclass(frozen=True)
class Settings(Changeable):
    """What a network is trained for. The weights are those of PyTorch's fast_neural_style example, divided by
    its content weight: 1e5 for content, 1e10 for style there.
    """

    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")  # Johnson, section 4.1
    content_layer: str = "relu2_2"  # the same; relu3_3 in his released code, and keeps less of the outlines
    content_weight: float = 1.0
    style_weight: float = 1e5  # of Gram matrices divided by c·h·w, mean squares: losses' "neural_style_pt"
    tv_weight: float = 0.0  # Johnson: 1e-6 to 1e-4 of squared differences; ours is absolute, see losses
    size: int = 256  # pixels a side of the training crops; Johnson, section 4.1
    zoom: tuple[float, float] = (0.5, 1.0)  # of the crops, as a part of the picture: ours
    style_size: int = 256  # longest side of the style picture; smaller gives finer strokes
    learning_rate: float = 1e-3  # of Adam; Johnson, section 4.1
    decay: float = 1.0  # the last step's learning rate as a part of the first's, falling by a cosine: ours
    width: int = 32
    normalization: str = "instance"  # Ulyanov et al. 2016; "batch" as Johnson printed it

    def __post_init__(self) -> None:
        self._not_negative("content_weight", "style_weight", "tv_weight")
        self._positive("learning_rate", "decay")
        if not self.style_layers:
            raise SettingError("style_layers is empty: name the layers whose Gram matrices are the style.")
        if min(self.size, self.style_size) < LEAST or self.width < 1:
            raise SettingError(
                f"size and style_size are {LEAST} pixels or more and width 1 or more, not {self.size}, "
                f"{self.style_size} and {self.width}."
            )


AS_PRINTED = Settings(normalization="batch", content_layer="relu3_3")
"""Johnson's paper: 40,000 steps of 4 pictures of 256 px, Adam 1e-3, on MS COCO."""

AS_RELEASED = Settings()
"""PyTorch's fast_neural_style example: two epochs of MS COCO in batches of 4 of 256 px, Adam 1e-3."""


class TransferTask:
    """One training step of the network: A's (2) to (4) for the network's picture instead of a free one.

    Args:
        net: what learns; reads and writes [0, 255].
        faces: pictures to learn on.
        styles: (1, 3, H, W) each; the mean of their Gram matrices is the style.
        settings: see :class:`Settings`.
        steps: of the whole training, by which the learning rate falls.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: of the features.
        tensors: VGG-16's weights instead of the asset's (tests).
    """

    def __init__(
        self,
        net: TransformNet,
        faces: Pictures,
        styles: Sequence[Tensor],
        settings: Settings,
        steps: int,
        *,
        device: str | torch.device = "auto",
        precision: str | torch.dtype = "auto",
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.settings, self.faces, self.steps = settings, faces, steps
        options: dict[str, Any] = {"device": device, "precision": precision, "tensors": tensors}
        self.seen = FeatureExtractor("vgg16", [*settings.style_layers, settings.content_layer], **options)
        self.wanted = FeatureExtractor("vgg16", [settings.content_layer], **options)
        grams: dict[str, list[Tensor]] = {name: [] for name in settings.style_layers}
        with torch.no_grad():
            for style in styles:
                for name, features in self.seen(style).items():
                    if name in grams:
                        grams[name].append(gram_matrix(features, "chw"))
        self.targets = {name: torch.stack(found).mean(0) for name, found in grams.items()}
        self.modules: dict[str, nn.Module] = {"net": net}
        head = list(net.deconv3.parameters())
        ids = {id(p) for p in head}
        body = [p for p in net.parameters() if id(p) not in ids]
        # The last layer writes [0, 255]: its weights are larger, and Adam's steps have to be; at 255 times
        # the others' rate the first pictures overshoot, and their loss with them.
        self.rates = (settings.learning_rate, 16 * settings.learning_rate)
        groups = [{"params": p, "lr": rate} for p, rate in zip((body, head), self.rates, strict=True)]
        self.optimizers: dict[str, torch.optim.Optimizer] = {"main": torch.optim.Adam(groups)}

    def describe(self) -> dict[str, Any]:
        """All of the settings, the number of pictures, and the style, as a few of its numbers."""
        style = {name: [round(float(v), 6) for v in gram[0, 0, :3]] for name, gram in self.targets.items()}
        described = {"method": "johnson", **asdict(self.settings), "pictures": len(self.faces)}
        crops = {key: getattr(self.faces, key) for key in ("size", "zoom", "flip", "seed")}
        if crops != {"size": self.settings.size, "zoom": self.settings.zoom, "flip": True, "seed": 0}:
            described["crops"] = crops
        # The learning rate falls towards the end, so with another end it is another training.
        return described | {"style": style} | ({"until": self.steps} if self.settings.decay != 1 else {})

    def batch(self, positions: Sequence[int]) -> Tensor:
        """(len(positions), 3, size, size)."""
        return self.faces(positions)

    def step(self, step: Step) -> dict[str, Tensor]:
        """The network's picture of the batch, its losses, one step of Adam."""
        s = self.settings
        fallen = s.decay + (1 - s.decay) * (1 + math.cos(math.pi * step.number / self.steps)) / 2
        for group, rate in zip(self.optimizers["main"].param_groups, self.rates, strict=True):
            group["lr"] = rate * fallen
        height, width = step.batch.shape[-2:]
        images = step.modules["net"](255 * padded(step.batch, STRIDE)).float() / 255
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
            wanted = self.wanted(contents)[s.content_layer]
        seen = self.seen(images)
        parts = {
            "content": s.content_weight * content_loss(seen[s.content_layer], wanted),
            "style": s.style_weight
            * torch.stack(
                [style_loss(seen[n], self.targets[n], "neural_style_pt") for n in s.style_layers]
            ).sum(),
            "tv": s.tv_weight * total_variation(images),
        }
        return {"total": torch.stack(list(parts.values())).sum(), **parts}


class Johnson:
    """A trained network behind the course's common protocol.

    Args:
        weights: a style of :data:`SHIPPED`, a file (.safetensors of ours, or .pth of PyTorch's example), a
            state dict; None: untrained, to be :meth:`fit`.
        color: "style" (the painting's colors) or "luminance" (the content's).
        settings: for :meth:`fit`.
        seed: of an untrained network's weights.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: see :func:`nstlib.nets.hardware.resolve_precision`.

    Attributes:
        net: the network.
        about: what is known of its training: style, settings, steps, seconds, losses.

    Raises:
        SettingError: no such style, a file that holds no such network, a color mode that needs the style.

    Example:
        >>> picture = Johnson("starry_night").stylize(load_image("me.jpg", size=512))     # doctest: +SKIP
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = None,
        *,
        color: str = "style",
        settings: Settings | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
        precision: str | torch.dtype = "auto",
    ) -> None:
        if color not in ("style", "luminance"):
            raise SettingError(
                f"A trained network keeps colors by 'style' or 'luminance', not '{color}': the others change "
                "the style before it is learned."
            )
        self.color, self.settings = color, settings or Settings()
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.about: dict[str, Any] = {}
        if weights is None:
            self.net = _untrained(self.settings, seed)
        elif isinstance(weights, str | os.PathLike):
            tensors, self.about = read_weights(_path(weights), f"or a style of {', '.join(SHIPPED)}")
            self.net = from_official(tensors)
        else:
            self.net = from_official(weights)
        self._ready()

    def fit(
        self,
        faces: Pictures | Tensor | str | os.PathLike[str],
        styles: Tensor | Sequence[Tensor],
        schedule: Schedule,
        folder: str | os.PathLike[str] | None = None,
        *,
        tensors: Mapping[str, Tensor] | None = None,
        callback: Callback | None = None,
        progress: bool = True,
    ) -> TrainingResult:
        """Learn a style, from the weights there are (an untrained network's, or another style's).

        Args:
            faces: what to learn on: a folder, pictures (N, 3, H, W), or :class:`nstlib.training.Pictures`
                (whose crops have a size of their own).
            styles: (1, 3, H, W), or several, whose Gram matrices are averaged.
            schedule: steps, batch, average of the weights (which is kept, if there is one).
            folder: where to keep checkpoints; the same call goes on from there.
            tensors: VGG-16's weights instead of the asset's (tests).
            callback: see :func:`nstlib.training.train`.
            progress: show a progress bar.

        Returns:
            The training's result. The network is ready to :meth:`stylize` afterwards.

        Raises:
            OptimizationError: see :func:`nstlib.training.train`.
            SettingError: the same, or no style.
        """
        styles = [styles] if isinstance(styles, Tensor) else list(styles)
        if not styles:
            raise SettingError("The list of styles is empty: give a style picture.")
        styles = [one for style in styles for one in check_pictures("style", style, LEAST).split(1)]
        if not isinstance(faces, Pictures):
            faces = Pictures(faces, self.settings.size, zoom=self.settings.zoom, seed=schedule.seed)
        net = self.net.float().requires_grad_(True)
        net.load_state_dict(self._exact)
        try:
            task = TransferTask(
                net, faces, styles, self.settings, schedule.steps, device=self.device,
                precision=self.precision, tensors=tensors,
            )  # fmt: skip
            result = train(
                task, schedule, folder, device=self.device, precision=self.precision, callback=callback,
                progress=progress,
            )  # fmt: skip
            if result.averages:
                net.load_state_dict(result.averages["net"])
        finally:
            self._ready()
        self.about = {
            "settings": asdict(self.settings), "steps": result.step, "batch": schedule.batch,
            "pictures": len(faces), "seconds": round(result.seconds),
            "losses": {k: float(f"{v:.4g}") for k, v in result.history[-1].items() if k not in _COUNTS},
        }  # fmt: skip
        return result

    @torch.inference_mode()
    def stylize(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        """The style the network has learned, on a picture, in one pass.

        Args:
            content: (N, 3, H, W), RGB in [0, 1], any size of at least 16 pixels.
            style: for the common protocol; a network has one style, so this is not looked at.

        Returns:
            (N, 3, H, W), in [0, 1], on the CPU.

        Raises:
            ImageError: not a picture.
        """
        check_pictures("content", content, LEAST)
        images = (255 * padded(content, STRIDE)).to(self.device, self.precision)
        made = self.net(images.contiguous(memory_format=self._memory_format)) / 255
        return finished(made, content, self.color)

    def save(self, path: str | os.PathLike[str], **about: Any) -> Path:
        """Write the weights as float16 safetensors, with what is known of their training in the header.

        Raises:
            ImageError: the file cannot be written.
        """
        return save_weights(path, self._exact, {"method": "johnson", **self.about, **about})

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


_COUNTS = ("step", "seconds")


def _path(name: str | os.PathLike[str]) -> Path:
    if isinstance(name, str) and name in SHIPPED:
        return assets.data_path(f"weights/johnson_{name}.safetensors")
    return Path(name)


def _untrained(settings: Settings, seed: int) -> TransformNet:
    """A network that begins with gray pictures of some contrast, not with black ones.

    Its last layer writes [0, 255], which torch's own initialization does not know.
    """
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        net = TransformNet(settings.width, normalization=settings.normalization)
    layer = net.deconv3.conv2d
    with torch.no_grad():
        layer.weight.mul_(255 / 4)
        nn.init.constant_(cast(Tensor, layer.bias), 255 / 2)
    return net
