"""DualStyleGAN behind the common protocol: styles by name and number, the authors' own files, presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field
from torch import Tensor

from ...errors import Fraction, SettingError, settings
from ...errors import Settings as Base
from ...faces import style_sets
from ...training import Callback, Schedule, TrainingResult
from ..base import Method
from .presets import Preset, released, smoke
from .published import AS_RELEASED, load_published, load_published_critic
from .transfer import SHIPPED, DualStyle

SEARCH = 40  # steps from the encoder's codes to a photograph's: without them it is another person


@settings
class Training(Base):
    """What ``nst train dualstylegan`` learns with."""

    preset: str = "small"
    generator: Path | None = Field(
        default=None,
        description="Of paper: the authors' generator-pretrain.pt, or a StyleGAN2 in this layout.",
    )
    encoder: Path | None = Field(default=None, description="Of paper: the authors' encoder.pt.")
    portraits: int | None = Field(
        default=None, ge=1, description="How many of the set, from its first.  [default: all]"
    )


@settings
class Options(Base):
    """What :meth:`DualStyleMethod.stylize` takes besides the common arguments."""

    structure: Fraction | None = Field(
        default=None, description="How much of the portrait's shapes.  [default: 1]"
    )
    color_strength: Fraction | None = Field(default=None, description="How much of its colors.  [default: 1]")
    iterations: int | None = Field(
        default=None, ge=0, description=f"Steps from the encoder's codes.  [default: {SEARCH}]"
    )
    encoder: Path | None = Field(
        default=None, description="With the authors' generator.pt:12 as the style: their encoder.pt."
    )
    codes: Path | None = Field(default=None, description="Likewise: their refined_exstyle_code.npy.")
    shares: tuple[float, ...] | None = None  # of several exemplars


class DualStyleMethod(Method):
    """:class:`DualStyle` behind the common protocol."""

    summary = "the face alone, like a portrait of a style it was trained for (ink:12)"
    settings_class = Training
    options_class = Options
    shipped = SHIPPED
    portraits = True
    takes = frozenset({"shares"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"preset": name} for name in ("small", "smoke", "paper")
    }

    def __init__(
        self, settings: Training | None = None, *, style: DualStyle | None = None, **options: Any
    ) -> None:
        super().__init__(settings, **options)
        s = self.settings
        if (s.preset == "paper") != (s.generator is not None) or (s.generator is None) != (s.encoder is None):
            raise SettingError(
                "--preset paper learns over the authors' networks: give --generator and --encoder with it, "
                "and with no other preset."
            )
        if style is None and s.generator is not None:
            style = load_published(s.generator, s.encoder, seed=self.seed, device=self.device)
        self.style = style or DualStyle(seed=self.seed, device=self.device)
        self.size = self.style.size

    @classmethod
    def load(cls, path: Any, **options: Any) -> Self:
        """See :meth:`Method.load`."""
        device = options.get("device", "auto")
        return cls(style=DualStyle(path if str(path) in SHIPPED else Path(path), device=device), **options)

    def fit(
        self, faces: Any = None, styles: Any = None, *, schedule: Schedule | None = None, folder: Any = None,
        callback: Callback | None = None, progress: bool = True,
    ) -> TrainingResult:  # fmt: skip
        """All four stages on the style's portraits (K, 3, S, S); the generator draws its own faces."""
        s = self.settings
        critic = None if s.generator is None else load_published_critic(s.generator, self.device)
        preset = {"small": Preset, "smoke": smoke, "paper": released}[s.preset]()
        return self.style.fit(
            faces, styles, preset, folder, seed=self.seed, critic=critic, progress=progress,
            told=(lambda stage: print(stage, flush=True)) if progress else None,
        )  # fmt: skip

    def stylize(
        self, content: Tensor, style: Any = None, *, strength: float = 1.0, keep_colors: bool | str = False,
        masks: Sequence[Tensor] | None = None, **own: Any,
    ) -> Tensor:  # fmt: skip
        """A portrait (N, 3, size, size) in the style of an exemplar, or of several with ``shares``."""
        o = Options(**own)
        theirs = self.style.center == "zero"
        usual = AS_RELEASED if theirs else {"structure": 1.0, "color": 1.0, "truncation": 1.0}
        given = {"structure": o.structure, "color": o.color_strength}
        chosen = usual | {key: value for key, value in given.items() if value is not None}
        steps = (0 if theirs else SEARCH) if o.iterations is None else o.iterations
        if isinstance(style, list):  # numbers of portraits
            shares = list(o.shares or [1.0] * len(style))
            style = {
                number: sum(v for n, v in zip(style, shares, strict=True) if n == number) for number in style
            }
        chosen["structure"] = strength * chosen["structure"]
        return self.style.stylize(
            content, 0 if style is None else style, steps=steps, keep_colors=bool(keep_colors), **chosen
        )

    def save(self, path: Any, **about: Any) -> Path:
        """See :meth:`Method.save`."""
        return self.style.save(path, **about)

    def read_styles(self, words: Sequence[str], size: int | None = None) -> Tensor:  # type: ignore[override]
        """The portraits of a style set: the course's (oil, ink ...), the authors' (cartoon ...), a folder."""
        if len(words) != 1:
            raise SettingError(f"One set of portraits is learned at a time, not {', '.join(words)}.")
        found = style_sets.load_style_set(words[0], self.size)
        self.about = {"licence": found.licence}
        return found.pictures[: self.settings.portraits]

    @classmethod
    def open(
        cls, words: Sequence[str], chosen: Mapping[str, Any], *, size: int, progress: bool, **options: Any
    ) -> tuple[Self, Any]:
        """NAME[:NUMBER] ..., each a portrait of one style; NAME:random draws a new one."""
        named = [_parted(word) for word in words]
        names = list(dict.fromkeys(name for name, _ in named))
        if len(names) != 1:
            raise SettingError(
                f"Portraits of one style can be fused, not {' and '.join(names) or 'none'}: name one "
                "of them only."
            )
        name, theirs = names[0], names[0].endswith(".pt")
        encoder, codes = chosen.get("encoder"), chosen.get("codes")
        if theirs != bool(encoder and codes) or bool(encoder) != bool(codes):
            raise SettingError(
                "The authors' generator.pt goes with the files it was published with: --encoder encoder.pt "
                f"and --codes refined_exstyle_code.npy; '{name}' needs {'both' if theirs else 'none'}."
            )
        if theirs and encoder and codes:
            style = load_published(name, encoder, codes, device=options["device"])
            method = cls(style=style, **options)
        elif name in SHIPPED or name.endswith(".safetensors"):
            method = cls.load(name, **options)
        else:
            raise SettingError(
                f"No style '{name}' has been learned: take one of {', '.join(SHIPPED)}, as in ink:12, or a "
                "file that nst train dualstylegan has written."
            )
        numbers = [number for _, number in named]
        if "random" not in numbers:
            return method, [int(number) for number in numbers]
        if len(numbers) > 1:
            raise SettingError("A random style stands alone: name it once, and no other portrait.")
        return method, method.style.sample(1, options.get("seed", 0))[0]


def _parted(text: str) -> tuple[str, str]:
    """NAME[:NUMBER] -> name and number, which is 0 if it is not said."""
    name, sign, number = text.rpartition(":")
    if sign and (number == "random" or number.isdigit()):
        return name, number
    return text, "0"
