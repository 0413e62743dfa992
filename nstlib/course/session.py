"""What a notebook talks to: its settings, its device, and the folder its figures and manifest go to.

A notebook calls :func:`start` after its parameters cell, the ``save_`` methods where it has something to
keep, and :meth:`Run.finish` in its last cell.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import make_dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pooch import file_hash

from nstlib.assets.writing import atomic, write_atomic
from nstlib.course import manifest
from nstlib.course.presets import resolve
from nstlib.errors import CourseError, ImageError, SettingError

if TYPE_CHECKING:
    import torch

DPI = 120  # sharp at a notebook's width, and small enough for a stored notebook
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg", ".csv", ".mp4", ".gif")


def start(
    notebook: str, *, preset: str = "quick", presets: Mapping[str, Mapping[str, Any]], device: str = "auto",
    **settings: Any,
) -> Run:  # fmt: skip
    """Begin a notebook's run: choose the preset, open the output folder and its manifest.

    Args:
        notebook: the notebook's name without ``.ipynb``.
        preset: the preset to take; ``NST_PRESET`` in the environment wins.
        presets: settings of each preset, all with the same keys.
        device: ``"auto"``, or a name torch knows (``"cpu"``, ``"cuda"``, ``"mps"``).
        **settings: values that take the place of the preset's; None leaves the preset's.

    Returns:
        The run, with ``settings``, ``preset``, ``device`` and ``out``.

    Raises:
        SettingError: an unknown preset or setting, or a value of another type.
        CourseError: the output folder cannot be written.
    """
    name, chosen = resolve(presets, preset, settings)
    run = Run(notebook, name, chosen, device)
    listed = ", ".join(f"{key} {value}" for key, value in chosen.items())
    print(f"{notebook}: preset {name} ({listed}); figures go to {manifest.shown(run.out)}")
    return run


class Run:
    """One run of one notebook.

    Attributes:
        notebook: the notebook's name.
        preset: name of the preset that is taken.
        settings: the settings as attributes (``run.settings.size``), read-only.
        out: folder of everything the run saves; ``NST_OUT`` in the environment, else
            ``figures/<preset>/<notebook>`` below the course.
    """

    def __init__(self, notebook: str, preset: str, settings: Mapping[str, Any], device: str = "auto") -> None:
        self.notebook, self.preset = notebook, preset
        frozen = make_dataclass("Settings", list(settings), frozen=True)
        self.settings: Any = frozen(**settings)
        self._device, self._values = device, dict(settings)
        self._outputs: dict[str, dict[str, Any]] = {}
        self._began, self._started = time.monotonic(), _now()
        given = os.environ.get("NST_OUT", "").strip()
        inside = manifest.course_root() / "figures" / preset / notebook
        self.out = Path(given).expanduser().resolve() if given else inside
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()  # the run's peak, not an earlier run's in the same kernel
        try:
            self._write()
        except ImageError as error:
            raise CourseError(f"{str(error).rstrip('.')}, or set NST_OUT to another folder.") from error

    @cached_property
    def device(self) -> torch.device:
        """Where to compute; ``"auto"`` means CUDA, else Apple's MPS, else the CPU."""
        from nstlib.nets.hardware import keep_freed_memory, resolve_device

        keep_freed_memory()  # whoever asks for the device is about to compute
        return resolve_device(self._device)

    def save_figure(self, figure: Any, name: str, *, caption: str = "") -> Path:
        """Save a matplotlib figure as PNG; in a notebook, show it with its caption under it.

        Args:
            figure: the figure.
            name: file name; ``.png`` is added where it is missing.
            caption: one sentence on what it shows; without one, the figure is left for ``plt.show()``.

        Returns:
            The file's path.
        """
        path = self._path(name, ".png")
        with atomic(path) as part:
            figure.savefig(part, dpi=DPI, bbox_inches="tight")
        if caption and "ipykernel" in sys.modules:
            _show(figure, caption)
        return self._record(path, caption)

    def save_image(self, image: torch.Tensor, name: str, *, caption: str = "") -> Path:
        """Save a picture (1, 3, H, W) in [0, 1], with the run's settings in its metadata.

        Args:
            image: the picture.
            name: file name; ``.png`` is added where it is missing.
            caption: one sentence on what it shows.

        Returns:
            The file's path.
        """
        from nstlib.pictures.files import save_image

        path = self._path(name, ".png")
        save_image(image, path, settings={"notebook": self.notebook, "preset": self.preset, **self._values})
        return self._record(path, caption)

    def save_film(
        self, frames: Iterable[torch.Tensor], name: str, *, fps: float = 12, hold: float = 1.5,
        caption: str = "",
    ) -> Path:  # fmt: skip
        """Save a film of pictures (1, 3, H, W) in [0, 1].

        Args:
            frames: the pictures, all of one size; a generator's are written as they come.
            name: file name ending in ``.mp4``, ``.gif`` or ``.webp``; ``.mp4`` is added where it is missing.
            fps: frames a second.
            hold: seconds for which the last picture stays.
            caption: one sentence on what it shows.

        Returns:
            The file's path.

        Raises:
            ImageError: no frame, one that is no picture or has another size, or a full disk; a film of that
                name stays as it was.
            SettingError: the name, fps or hold make no sense.
        """
        from nstlib.pictures.video import save_film

        path = self._path(name, ".mp4")
        save_film(frames, path, fps=fps, hold=hold)
        return self._record(path, caption)

    def save_table(self, table: Any, name: str, *, caption: str = "") -> Path:
        """Save a pandas table as CSV, and beside it as Markdown, there with four digits.

        Args:
            table: the DataFrame; its index is written when it has a name or is not a plain count.
            name: file name without ending.
            caption: one sentence on what it shows.

        Returns:
            Path of the CSV.
        """
        path = self._path(name.removesuffix(".csv"), ".csv")
        if type(table.index).__name__ != "RangeIndex" or table.index.name:
            table = table.reset_index()
        write_atomic(path, table.to_csv(index=False).encode())
        rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
        lines = [" | ".join(map(_cell, row)) for row in rows]
        markdown = path.with_suffix(".md")
        write_atomic(markdown, "".join(f"| {line} |\n" for line in lines).encode())
        self._record(markdown, caption)
        return self._record(path, caption)

    def finish(self) -> dict[str, Any]:
        """End the run: enter seconds and peak memory in the manifest, and say them in one line.

        Returns:
            The manifest.
        """
        seconds, peak = time.monotonic() - self._began, manifest.peak_mib()
        content = self._write(finished=_now(), seconds=round(seconds, 2), peak_mib=round(peak, 1))
        gpu = content["machine"].get("peak_gpu_mib")
        memory = manifest.show_mib(peak) + (f", GPU {manifest.show_mib(gpu)}" if gpu is not None else "")
        count = f"{len(self._outputs)} file{'' if len(self._outputs) == 1 else 's'}"
        print(
            f"{self.notebook}: {manifest.show_seconds(seconds)} at preset {self.preset}, "
            f"peak memory {memory}, {count} in {manifest.shown(self.out)}"
        )
        return content

    def _path(self, name: str, ending: str) -> Path:
        if not name or Path(name).name != name or name.startswith(".") or name == manifest.MANIFEST:
            raise SettingError(f"{name!r} is not a plain file name: give one like 'layers' or 'layers.png'.")
        # A dot alone is no ending: "alpha_0.5" is a name.
        return self.out / (name if name.lower().endswith(ENDINGS) else name + ending)

    def _record(self, path: Path, caption: str) -> Path:
        digest, size = file_hash(path), path.stat().st_size
        self._outputs[path.name] = {"file": path.name, "sha256": digest, "bytes": size, "caption": caption}
        self._write()
        return path

    def _write(self, **ended: Any) -> dict[str, Any]:
        machine = manifest.device_report()
        if "device" in self.__dict__:  # the notebook has asked for it
            machine["device"] = self.device.type
        # NST_RUN tells the runner this run's manifest from an older one.
        content = {
            "notebook": self.notebook, "preset": self.preset, "settings": self._values,
            "run": os.environ.get("NST_RUN", ""), "started": self._started, "finished": None, **ended,
            "versions": {"python": platform.python_version(), **manifest.versions()},
            "machine": machine, "outputs": list(self._outputs.values()),
        }  # fmt: skip
        manifest.write_json(self.out / manifest.MANIFEST, content)
        return content


def _show(figure: Any, caption: str) -> None:
    """Show a figure and its caption on the page, unless it is closed: then the page has it already."""
    import matplotlib.pyplot as plt
    from IPython.display import Markdown, display

    if plt.fignum_exists(getattr(figure, "number", -1)):
        display(figure)
        plt.close(figure)  # or plt.show() would show it again
    display(Markdown(f"*{caption}*"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _cell(value: Any) -> str:
    """One cell of a Markdown table; a bar would end the cell, so it is escaped."""
    if isinstance(value, float):  # NumPy's float64 is one, too
        return f"{value:.4g}"
    return str(value).replace("|", r"\|").replace("\n", " ")
