"""What every method of the course is: four verbs with one signature, and :data:`nstlib.methods.METHODS`.

A new method is one file: a subclass of :class:`Method` with its settings, a training step if it learns, and
``stylize``; and one line in ``METHODS``. The command ``nst``, the notebooks and the comparison loop over it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import assets
from ..assets.weights import read_weights, save_weights
from ..errors import SettingError, Settings, settings
from ..nets.hardware import resolve_device, resolve_precision
from ..nets.official import check_layout
from ..pictures import color
from ..pictures.files import load_style
from ..training import Callback, Schedule, Task, TrainingResult, train

WEIGHTS = (".safetensors", ".pth", ".pt", ".model")  # endings of files of weights


@settings
class NoOptions(Settings):
    """For methods with nothing to set."""


class Method:
    """A way to paint a picture in a style.

    Args:
        settings: what decides the result, or what is learned; None: the defaults.
        device: see :func:`nstlib.nets.hardware.resolve_device`.
        precision: see :func:`nstlib.nets.hardware.resolve_precision`.
        seed: of everything random.

    Attributes:
        about: what is known of the training: settings, steps, seconds, losses.
    """

    summary: ClassVar[str] = ""  # a sentence for the command's help
    settings_class: ClassVar[type[Settings]] = NoOptions
    options_class: ClassVar[type[Settings]] = NoOptions  # what stylize takes besides the common arguments
    # Values for schedule, settings and the number of generated faces, by name; the first is the default.
    # Empty: there is nothing to learn.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    shipped: ClassVar[Sequence[str]] = ()  # styles whose weights the course carries
    published: ClassVar[Sequence[str]] = ()  # others that are fetched by name, as assets METHOD_NAME
    takes: ClassVar[frozenset[str]] = frozenset({"size"})  # common options of `nst stylize` it listens to
    any_style: ClassVar[bool] = False  # a network paints any picture's style, whatever it has learned
    portraits: ClassVar[bool] = False  # it draws faces that are cut out and aligned like FFHQ's
    size: int = 256  # pixels a side of these

    def __init__(
        self, settings: Any = None, *, device: str | torch.device = "auto",
        precision: str | torch.dtype = "auto", seed: int = 0,
    ) -> None:  # fmt: skip
        self.settings: Any = settings or self.settings_class()
        self.device, self.seed = resolve_device(device), seed
        self.precision = resolve_precision(precision, self.device)
        self.about: dict[str, Any] = {}

    def autocast(self) -> torch.autocast:
        """Inside this block networks compute in bfloat16, if that is the precision."""
        half = self.precision == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    # ---------------------------------------------------------------- what a method that learns brings

    def task(self, faces: Any, styles: Any, schedule: Schedule) -> Task:
        """The training: its ``modules`` are what :meth:`save` writes."""
        raise NotImplementedError

    def modules(self) -> dict[str, nn.Module]:
        """The networks that have learned, by the names of the task's modules."""
        return {}

    # ---------------------------------------------------------------- the four verbs

    def fit(
        self, faces: Any = None, styles: Any = None, *, schedule: Schedule | None = None,
        folder: str | os.PathLike[str] | None = None, callback: Callback | None = None, progress: bool = True,
    ) -> TrainingResult:  # fmt: skip
        """Learn from pictures; what has nothing to learn returns at once.

        Args:
            faces: what to learn on: a folder, pictures (N, 3, H, W), or :class:`nstlib.training.Pictures`.
            styles: (1, 3, H, W), or several.
            schedule: steps, batch, average of the weights (which is kept, if there is one).
            folder: where to keep checkpoints; the same call goes on from there.
            callback: see :func:`nstlib.training.train`.
            progress: show a progress bar.

        Raises:
            OptimizationError: see :func:`nstlib.training.train`.
            SettingError: the same.
        """
        if not self.presets:
            return TrainingResult(0, {}, {})
        if schedule is None:
            schedule = schedule_of(next(iter(self.presets.values())), seed=self.seed)
        task = self.task(faces, styles, schedule)
        result = train(
            task, schedule, folder, device=self.device, precision=self.precision, callback=callback,
            progress=progress,
        )  # fmt: skip
        for name, average in result.averages.items():
            task.modules[name].load_state_dict(average)
        for module in task.modules.values():
            module.eval().requires_grad_(False)
        self.about = {
            "settings": asdict(self.settings), "steps": result.step, "batch": schedule.batch,
            "seconds": round(self.about.get("seconds", 0) + result.seconds), "losses": result.losses,
        }  # fmt: skip
        return result

    def stylize(
        self, content: Tensor, style: Any = None, *, strength: float = 1.0, keep_colors: bool | str = False,
        masks: Sequence[Tensor] | None = None, **own: Any,
    ) -> Tensor:  # fmt: skip
        """A picture in a style.

        Args:
            content: (N, 3, H, W), RGB in [0, 1].
            style: (1, 3, H', W') or several; what has learned one style does not look at it.
            strength: from 0, the content, to 1, the full style.
            keep_colors: True or "luminance": the content's colors; see :mod:`.color` for others.
            masks: one (1, 1, H, W) a style: each style in its own region, the content elsewhere.
            own: see the method's ``options_class``.

        Returns:
            (N, 3, H, W), in [0, 1], on the CPU.

        Raises:
            ImageError: not a picture.
            SettingError: an option that the method does not have.
        """
        self.options_class(**own)
        how = color_mode(keep_colors)
        with torch.no_grad():
            made = self.paint(content, style, how)
        return blend(postprocess(made, content, how), content, strength, masks)

    def paint(self, content: Tensor, style: Any, how: str) -> Tensor:
        """What :meth:`stylize` cuts to size, recolors and blends; one that needs more overrides that instead.

        Args:
            content: see :meth:`stylize`.
            style: the same.
            how: the way with colors, see :mod:`.color`.

        Returns:
            (N, 3, H', W') about [0, 1], at least as large as the content.
        """
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str], **about: Any) -> Path:
        """Write what was learned as float16 safetensors, with the story of the training in the header.

        Raises:
            ImageError: the file cannot be written.
            SettingError: nothing was learned.
        """
        state = self.state()
        if not state:
            raise SettingError("There is nothing to save: fit the method first.")
        return save_weights(path, state, {"method": _name(type(self)), **self.about, **about})

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """A method as :meth:`save` has written it: a file, or the name of a style that can be had.

        Raises:
            AssetError: the style cannot be fetched.
            SettingError: no such file or style, or it holds something else.
        """
        if str(path) in cls.shipped:
            path = assets.data_path(f"weights/{_name(cls)}_{path}.safetensors")
        elif str(path) in cls.published:
            path = assets.fetch(f"{_name(cls)}_{path}")
        otherwise = f", or a style of {', '.join(cls.shipped)}" if cls.shipped else ""
        tensors, about = read_weights(Path(path), otherwise)
        fields = cls.settings_class.__dataclass_fields__
        known = {key: value for key, value in about.get("settings", {}).items() if key in fields}
        method = cls(cls.settings_class(**known), **options)
        method.about = about
        method.load_state(tensors)
        return method

    def state(self) -> dict[str, Tensor]:
        """The tensors of :meth:`save`."""
        parts = self.modules()
        return {f"{name}.{k}": t for name, net in parts.items() for k, t in net.state_dict().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            SettingError: these are other networks' weights.
        """
        for name, net in self.modules().items():
            own = inside(tensors, f"{name}.")
            check_layout(_name(type(self)), net.state_dict(), own)
            net.load_state_dict(own)

    # ---------------------------------------------------------------- what the command asks

    @classmethod
    def read_styles(cls, words: Sequence[str], size: int | None = None) -> Any:
        """What ``nst train`` learns, from the words after its name: here, pictures (1, 3, H, W)."""
        return [load_style(word, size=size) for word in words]

    @classmethod
    def words(cls, style: str, artwork: str, number: int) -> list[str]:
        """What ``nst stylize`` names to paint in a style set; empty if no network has learned the set.

        Args:
            style: the set's name, or a file of weights.
            artwork: file of one picture of the set; what learns nothing, or any style, takes this.
            number: the picture's number.
        """
        if not cls.presets:
            return [artwork]
        known = [style] if cls.has_weights(style) else []
        if not known and not cls.any_style:
            return []
        return [artwork, *known] if "style_size" in cls.takes else known

    @classmethod
    def open(
        cls, words: Sequence[str], chosen: Mapping[str, Any], *, size: int, progress: bool, **options: Any
    ) -> tuple[Self, Any]:
        """The method and the style that ``nst stylize`` names; ``options`` are those of the class.

        Raises:
            SettingError: no such style.
        """
        if not cls.presets:
            return cls(cls.settings_class(**chosen), **options), cls.read_styles(words, size)
        weights = [word for word in words if cls.has_weights(word)]
        styles = [word for word in words if word not in weights]
        takes_style = "style_size" in cls.takes
        if takes_style:
            weights = weights or [*cls.shipped, *cls.published][:1]
        if len(weights) != 1 or len(styles) > takes_style:
            known = ", ".join((*cls.shipped, *cls.published, "a file of weights"))
            name = _name(cls)
            picture = " and one picture of a style" if takes_style else ", which has learned one style"
            raise SettingError(
                f"{name} takes one network{picture}, not {', '.join(words)}: take one of {known}, train one "
                f"(nst train {name} -h), or take --method adain, which paints any style."
            )
        return cls.load(weights[0], **options), load_style(styles[0], size=size) if styles else None

    @classmethod
    def has_weights(cls, word: str) -> bool:
        """Whether a word names a network that has learned: one by name, or a file."""
        return word in (*cls.shipped, *cls.published) or Path(word).suffix.lower() in WEIGHTS


def _name(cls: type[Method]) -> str:
    from . import METHODS

    return next((name for name, method in METHODS.items() if method is cls), cls.__name__.lower())


def numbered(word: str, *besides: str) -> tuple[str, str]:
    """NAME[:NUMBER] -> name and number, which is 0 if it is not said; or a word of ``besides``."""
    name, sign, number = word.rpartition(":")
    return (name, number) if sign and (number.isdigit() or number in besides) else (word, "0")


def inside(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, without this beginning."""
    return {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}


def schedule_of(values: Mapping[str, Any], **more: Any) -> Schedule:
    """The part of a preset that concerns the schedule."""
    return Schedule(**{k: v for k, v in values.items() if k in Schedule.__dataclass_fields__}, **more)


def pad_to_multiple(images: Tensor, stride: int) -> Tensor:
    """Pictures whose sides are multiples of ``stride``: mirrored at the lower and the right border."""
    down, right = (-images.shape[-2]) % stride, (-images.shape[-1]) % stride
    return F.pad(images, (0, right, 0, down), mode="reflect") if down or right else images


def postprocess(made: Tensor, content: Tensor, keep_colors: bool | str = False) -> Tensor:
    """A network's pictures (N, 3, H', W') cut to the content's size, in [0, 1], with the colors asked for."""
    made = made[..., : content.shape[-2], : content.shape[-1]].float().clamp(0, 1).cpu()
    how = color_mode(keep_colors)
    if how != "luminance":
        return made
    pairs = zip(made.split(1), content.cpu().split(1), strict=True)
    return torch.cat([color.finish(how, m, c) for m, c in pairs])


def blend(made: Tensor, content: Tensor, strength: float, masks: Sequence[Tensor] | None = None) -> Tensor:
    """So much of what was made, inside the masks, and the content elsewhere; (N, 3, H, W) on the CPU."""
    check_strength(strength)
    if strength == 1 and masks is None:
        return made
    share = 1.0 if masks is None else torch.stack([m.cpu() for m in masks]).sum(0).clamp(0, 1)
    return content.cpu() + strength * share * (made - content.cpu())


def check_strength(strength: float) -> None:
    """Raises a SettingError unless this is a share of the style."""
    if not 0 <= strength <= 1:
        raise SettingError(f"strength is from 0 (the content) to 1 (the full style), not {strength}.")


def style_list(styles: Any) -> list[Any]:
    """One style, or several, as a list of them.

    Raises:
        SettingError: there is none.
    """
    found = list(styles) if isinstance(styles, list | tuple) else [styles]
    if not found or found[0] is None:
        raise SettingError("The list of styles is empty: give a style picture, or a set of portraits.")
    return found


def one_set(words: Sequence[str]) -> str:
    """The one set of portraits that ``nst train`` names.

    Raises:
        SettingError: it names none, or several.
    """
    if len(words) != 1:
        raise SettingError(f"One set of portraits is learned at a time, not {', '.join(words)}.")
    return words[0]


def color_mode(keep_colors: bool | str) -> str:
    """The name of a way with colors, see :mod:`nstlib.pictures.color`."""
    return keep_colors if isinstance(keep_colors, str) else "luminance" if keep_colors else "style"
