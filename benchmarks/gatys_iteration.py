"""One Gatys iteration at 512 px against the plain way: same network, layers, losses and optimizer.

    make bench        (or: python benchmarks/gatys_iteration.py [--rounds 3] [--size 512])

The plain way is what tutorials do: float32, PyTorch's default layout, autograd through a Gram matrix written
as F Fᵀ. Machines are shared and noisy, so each way runs in a process of its own, in turn, several rounds, and
what counts is the ratio of the medians within this run. Two ceilings stand beside it: the machine's rate of
matrix multiplication, and the plain way's time. The result is written to benchmarks/gatys_iteration.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WARM_UP, TIMED = 2, 5

# The second pair of rows shows a processor without bfloat16: oneDNN is told to use nothing newer than AVX2.
WITHOUT_BFLOAT16 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
WAYS = {
    "plain": ("plain", {}),
    "nstlib": ("nstlib", {}),
    "plain, AVX2 only": ("plain", WITHOUT_BFLOAT16),
    "nstlib, AVX2 only": ("nstlib-float32", WITHOUT_BFLOAT16),
}


def time_steps(step) -> list[float]:
    seconds = []
    for index in range(WARM_UP + TIMED):
        start = time.perf_counter()
        step()
        if index >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    return seconds


def plain_way(content, style, size):
    """The textbook's implementation, on the weights nstlib uses."""
    import torch
    from torch import nn

    from nstlib import assets
    from nstlib.methods import gatys
    from nstlib.methods.gatys import FIVE_BLOCKS
    from nstlib.nets.vgg import layers_up_to

    weights = assets.load_tensors("vgg19")
    layers = [("conv0", nn.Conv2d(3, 3, 1))]
    channels = 3
    for layer in layers_up_to("vgg19", FIVE_BLOCKS):
        if layer.kind == "conv":
            layers.append((layer.name, nn.Conv2d(channels, layer.channels, 3, padding=1)))
            channels = layer.channels
        else:
            layers.append((layer.name, nn.ReLU() if layer.kind == "relu" else nn.MaxPool2d(2)))
    for name, module in layers:
        if isinstance(module, nn.Conv2d):
            module.load_state_dict({key: weights[f"{name}.{key}"] for key in ("weight", "bias")})
            module.requires_grad_(False)

    def features(x):
        found = {}
        for name, module in layers:
            x = module(x)
            found[name] = x
        return found

    def gram(f):
        rows = f.flatten(2)[0]
        return rows @ rows.T / rows.shape[1]

    with torch.no_grad():
        content_target = features(content)["relu4_2"]
        style_targets = {name: gram(f) for name, f in features(style).items() if name in FIVE_BLOCKS}
    weight = gatys.PLAIN.style_weight / len(style_targets)
    x = content.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([x], max_iter=1, history_size=20)

    def closure():
        optimizer.zero_grad()
        found = features(x)
        loss = (found["relu4_2"] - content_target).square().mean() / content_target.square().mean()
        for name, target in style_targets.items():
            loss = loss + weight * (gram(found[name]) - target).square().mean() / target.square().mean()
        loss.backward()
        return loss

    return lambda: optimizer.step(closure).item()


def nstlib_way(content, style, float32):
    from nstlib.methods import gatys
    from nstlib.nets.features import FeatureExtractor
    from nstlib.nets.hardware import keep_freed_memory

    keep_freed_memory()
    settings = gatys.PLAIN.changed(iterations=WARM_UP + TIMED)
    layers = [*settings.style_layers, *settings.content_layers]
    extractor = FeatureExtractor("vgg19", layers, precision="float32" if float32 else "auto", device="cpu")
    extractor.net.quick = True  # as "auto" is on a processor without bfloat16
    objective = gatys.Objective(extractor, content, style, settings)
    seconds: list[float] = [0.0]
    gatys.minimize(objective, content, callback=lambda p: seconds.append(p.seconds) or None, progress=False)
    return [b - a for a, b in itertools.pairwise(seconds)][WARM_UP:]


def worker(way: str, size: int) -> None:
    from nstlib import assets
    from nstlib.course.manifest import peak_mib
    from nstlib.pictures import files as images

    content, style = (
        images.square(images.load_image(assets.data_path(name)), size, allow_upscale=True)
        for name in ("portraits/collins.jpg", "paintings/starry_night.jpg")
    )
    if way == "plain":
        seconds = time_steps(plain_way(content, style, size))
    else:
        seconds = nstlib_way(content, style, float32=way.endswith("float32"))
    import torch

    from nstlib.nets.hardware import processor_likes_bfloat16

    # The ceiling is the machine's own; emulated bfloat16 would take minutes.
    formats = (torch.float32, torch.bfloat16) if processor_likes_bfloat16() else (torch.float32,)
    rate = {}
    for dtype in () if WITHOUT_BFLOAT16.keys() & os.environ.keys() else formats:
        a = torch.randn(2048, 2048).to(dtype)
        best = min(time_steps(lambda a=a: a @ a))
        rate[str(dtype).removeprefix("torch.")] = 2 * 2048**3 / best / 1e9
    print(json.dumps({"seconds": statistics.median(seconds), "rate": rate, "peak_mib": peak_mib()}))


def work_of_one_step(size: int) -> float:
    """The work that must be done, in GFLOP: network and Gram matrices, one product forward, one backward."""
    from nstlib.methods.gatys import FIVE_BLOCKS
    from nstlib.nets.vgg import layers_up_to, output_size

    flops, side, channels = 0.0, size, 3
    for layer in layers_up_to("vgg19", FIVE_BLOCKS):
        side = output_size(side, layer)
        if layer.kind == "conv":
            flops += 2 * 2 * side**2 * layer.kernel**2 * channels * layer.channels
            channels = layer.channels
        if layer.name in FIVE_BLOCKS:
            flops += 2 * 2 * side**2 * channels**2
    return flops / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--worker", choices=["plain", "nstlib", "nstlib-float32"])
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.size)
        return

    import torch

    from nstlib.course.manifest import processor
    from nstlib.nets.hardware import processor_likes_bfloat16

    found: dict[str, list[dict]] = {name: [] for name in WAYS}
    for number in range(1, options.rounds + 1):
        for name, (way, environment) in WAYS.items():
            command = [sys.executable, __file__, "--worker", way, "--size", str(options.size)]
            done = subprocess.run(
                command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
            )
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number}  {name:<18} {found[name][-1]['seconds']:.3f} s an iteration", flush=True)
    median = {name: statistics.median(r["seconds"] for r in rows) for name, rows in found.items()}
    rate = {k: max(r["rate"][k] for r in found["plain"]) for k in found["plain"][0]["rate"]}
    work = work_of_one_step(options.size)
    ceilings = [
        f"{rate[name]:.0f} GFLOP/s in {name} (no way that multiplies as often takes less than "
        f"{work / rate[name]:.3f} s)"
        for name in rate
    ]
    lines = [
        f"# One Gatys iteration at {options.size} px",
        "",
        f"VGG-19, five style layers, relu4_2, L-BFGS; {processor()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, bfloat16 in hardware: {'yes' if processor_likes_bfloat16() else 'no'}. "
        f"Medians of {options.rounds} rounds of {TIMED} iterations, the ways taken in turn; by `make bench`.",
        "",
        "| way | seconds | against plain | GFLOP/s | peak memory |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in median.items():
        base = median["plain, AVX2 only" if "AVX2" in name else "plain"]
        peak = max(r["peak_mib"] for r in found[name])
        lines.append(
            f"| {name} | {seconds:.3f} | {base / seconds:.2f}× | {work / seconds:.0f} | {peak:.0f} MiB |"
        )
    lines += [
        "",
        f"Ceilings: one iteration is {work:.0f} GFLOP; this machine multiplies 2048² matrices at "
        f"{' and '.join(ceilings)}. The peer is the plain way itself.",
        "",
    ]
    (HERE / "gatys_iteration.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
