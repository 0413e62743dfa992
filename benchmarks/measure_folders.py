"""`measure` on growing folders of 256 px: seconds, peak memory, and whether both grow as the pictures do.

    python benchmarks/measure_folders.py [--counts 250 500 1000] [--metrics mse,ssim,lpips,identity,fid,kid]

Folder A holds generated faces with a little noise, so that no two files are the same; B holds them blurred.
Each count is measured in a process of its own, or the first one's memory would count for all. The peer is the
plain way: LPIPS of the `lpips` package and torchmetrics' SSIM, a pair at a time, in the same run. The result
is written to benchmarks/measure_folders.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torchvision.transforms.functional import gaussian_blur

from nstlib import metrics
from nstlib.course.manifest import peak_mib, processor
from nstlib.faces.generated import Faces
from nstlib.metrics import Protocol
from nstlib.metrics.measure import measure
from nstlib.nets import hardware
from nstlib.pictures import files as images

HERE = Path(__file__).resolve().parent
PEOPLE = 20


def write(folder: Path, count: int) -> None:
    """The folders A and B with so many pictures each."""
    source = Faces()
    faces = [source.pictures(w) for w in source.w(PEOPLE).split(1)]
    for name in ("A", "B"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        face = faces[index % PEOPLE].cpu()
        face = (face + 0.01 * torch.randn(face.shape, generator=generator)).clamp(0, 1)
        images.save_image(face, folder / "A" / f"{index:05}.jpg")
        images.save_image(gaussian_blur(face, [7, 7], [1.5, 1.5]), folder / "B" / f"{index:05}.jpg")


def one(folder: Path, names: str) -> None:
    """Measure, and say what it took as JSON."""
    hardware.keep_freed_memory()
    result = measure(folder / "A", folder / "B", Protocol(metrics=tuple(names.split(","))), progress=False)
    rows = result.summary[["metric", "value", "low", "high", "n"]].to_dict("records")
    print(json.dumps({"seconds": result.seconds, "peak": peak_mib(), "rows": rows}))


def peer(folder: Path, count: int) -> tuple[float, float]:
    """Seconds a pair of LPIPS and SSIM: ours in batches, the packages' a pair at a time."""
    import lpips
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    ours = metrics.Lpips("alexnet")
    theirs = lpips.LPIPS(pretrained=True, pnet_rand=True, verbose=False)
    pairs = [[images.load_image(folder / n / f"{i:05}.jpg") for n in ("A", "B")] for i in range(count)]
    a, b = (torch.cat(side) for side in zip(*pairs, strict=True))

    def batched() -> None:
        for x, y in zip(a.split(8), b.split(8), strict=True):
            ours(x, y)
            metrics.ssim(x, y)

    def plain() -> None:
        with torch.no_grad():
            for x, y in zip(a.split(1), b.split(1), strict=True):
                theirs(2 * x - 1, 2 * y - 1)
                ssim(x, y, data_range=1.0)

    best = []
    for way in (batched, plain):
        way()
        took = []
        for _ in range(3):
            start = time.perf_counter()
            way()
            took.append(time.perf_counter() - start)
        best.append(min(took) / count)
    return best[0], best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--metrics", default="mse,psnr,ssim,lpips,identity,fid,kid")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.metrics)
        return
    lines = [
        "# Measuring folders",
        "",
        f"{options.metrics} on pairs of 256 px; {processor()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}; by `python benchmarks/measure_folders.py`. Each row is a process of its own; "
        "the peak is the whole process's.",
        "",
        "| pairs | seconds | seconds a pair | peak MiB |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        for count in options.counts:
            folder = Path(name) / str(count)
            write(folder, count)
            command = [sys.executable, __file__, "--one", str(folder), "--metrics", options.metrics]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            told = json.loads(done.stdout.splitlines()[-1])
            lines.append(
                f"| {count} | {told['seconds']:.0f} | {told['seconds'] / count:.3f} | {told['peak']:.0f} |"
            )
            print(lines[-1], flush=True)
        ours, theirs = peer(folder, 32)
    lines += [
        "",
        f"LPIPS and SSIM alone: {ours:.3f} s a pair in batches of 8, {theirs:.3f} s by the packages a pair "
        f"at a time, {theirs / ours:.2f} times as long.",
        "",
        "The last row's numbers: "
        + ", ".join(f"{r['metric']} {r['value']:.4g} [{r['low']:.4g}, {r['high']:.4g}]" for r in told["rows"])
        + ".",
        "",
    ]
    (HERE / "measure_folders.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
