"""One picture of 1024 px by the full-size DualStyleGAN, against the plain way.

    python benchmarks/dualstylegan_1024.py [--rounds 3] [--size 1024]

The weights are random: what is measured does not depend on them. The plain way is what published code does
on a processor: float32, PyTorch's default layout, weights modulated for each picture and convolved in groups,
filters that put zeros between the pixels first, each step of a layer by itself (tests/plain_stylegan2.py).
It runs once as it is, and once with the memory that nstlib's programs keep. Machines are shared and noisy, so
each way runs in a process of its own, in turn, several rounds, and what counts is the ratio of the medians
within this run. The result is written to benchmarks/dualstylegan_1024.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from nstlib.course.manifest import peak_mib, processor
from nstlib.nets import hardware
from nstlib.nets.dualstylegan import DualStyleGAN

HERE = Path(__file__).resolve().parent
WAYS = ("plain", "plain, memory kept", "nstlib, float32", "nstlib")
TIMED = 2


def worker(way: str, size: int, result: Path) -> None:
    """Time one way, and say what it took as JSON."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import plain_stylegan2

    if way != "plain":
        hardware.keep_freed_memory()
    precision = hardware.resolve_precision("auto" if way == "nstlib" else "float32", "cpu")
    torch.manual_seed(0)
    net = DualStyleGAN(size).eval().requires_grad_(False)
    for name, one in net.named_parameters():
        if name.endswith(("noise.weight", "activate.bias")):
            torch.nn.init.normal_(one, std=0.1)
    face, style = torch.randn(2, 1, net.layers, 512)
    state = net.state_dict()

    def plain() -> torch.Tensor:
        w, art = (plain_stylegan2.mapping(state, "generator.style", 8, z) for z in (face, style))
        return plain_stylegan2.dualstylegan(state, w, art, [1.0] * net.layers, net.layers)

    def ours() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            return net(face, style)

    step = plain if way.startswith("plain") else ours
    seconds = []
    with torch.inference_mode():
        for _ in range(1 + TIMED):
            start = time.perf_counter()
            picture = step()
            seconds.append(time.perf_counter() - start)
    peak = peak_mib()
    torch.save(picture.clone(), result)
    print(json.dumps({"seconds": statistics.median(seconds[1:]), "peak": peak, "precision": str(precision)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.size, options.result)
        return
    told: dict[str, list[dict]] = {way: [] for way in WAYS}
    if not hardware.processor_likes_bfloat16():
        del told["nstlib, float32"]  # which is "nstlib" there
    pictures = {}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "picture.pt"
        for number in range(options.rounds):
            for way in told:
                command = [sys.executable, __file__, "--size", str(options.size), "--worker", way]
                command += ["--result", str(result)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                told[way].append(json.loads(done.stdout.splitlines()[-1]))
                pictures[way] = torch.load(result, weights_only=True)
                print(f"round {number + 1}: {way} {told[way][-1]['seconds']:.2f} s", flush=True)
    seconds = {way: statistics.median(one["seconds"] for one in rounds) for way, rounds in told.items()}
    peaks = {way: max(one["peak"] for one in rounds) for way, rounds in told.items()}
    largest = pictures["plain"].abs().max()
    lines = [
        f"# One picture of {options.size} px by DualStyleGAN",
        "",
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; by `python "
        f"benchmarks/dualstylegan_1024.py`. Medians of {options.rounds} processes, {TIMED} pictures each "
        "after a first one that does not count; the peak is the whole process's, which holds the weights. "
        f"nstlib computes in {told['nstlib'][0]['precision'].removeprefix('torch.')} here. Apart: furthest "
        "from the plain way's picture, as a part of its largest value.",
        "",
        "| way | seconds | times as fast | peak MiB | apart |",
        "|---|---|---|---|---|",
    ]
    for way, took in seconds.items():
        apart = ((pictures[way] - pictures["plain"]).abs().max() / largest).item()
        lines.append(
            f"| {way} | {took:.2f} | {seconds['plain'] / took:.2f} | {peaks[way]:.0f} | {apart:.1e} |"
        )
    text = "\n".join([*lines, ""])
    (HERE / "dualstylegan_1024.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
