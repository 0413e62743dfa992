"""One picture of 512 px through Johnson's network and through AdaIN, against the plain way of each.

    make bench        (or: python benchmarks/fast_networks.py [--rounds 3] [--size 512])

The plain way is what the published code does: float32, PyTorch's default layout, nearest neighbors and then a
3 × 3 convolution. Both ways of AdaIN have looked at the style beforehand. Machines are shared and noisy, so
each way runs in a process of its own, in turn, several rounds, and what counts is the ratio of the medians
within this run. The machine's rate of matrix multiplication stands beside it. The result is written to
benchmarks/fast_networks.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from gatys_iteration import time_steps

HERE = Path(__file__).resolve().parent
WAYS = ("Johnson, plain", "Johnson, nstlib", "AdaIN, plain", "AdaIN, nstlib")


def plain_johnson(content):
    """The layers of the published network one by one, on the weights nstlib uses."""
    import torch
    import torch.nn.functional as F

    from nstlib.methods.johnson import SHIPPED, Johnson

    net = Johnson.load(SHIPPED[0], precision="float32", device="cpu").net
    net.to(memory_format=torch.contiguous_format)

    def up(layer, x):
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return layer.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"))

    def forward():
        x = F.relu(net.in1(net.conv1(255 * content)))
        x = F.relu(net.in2(net.conv2(x)))
        x = F.relu(net.in3(net.conv3(x)))
        for index in range(1, net.blocks + 1):
            x = net.get_submodule(f"res{index}")(x)
        x = F.relu(net.in4(up(net.deconv1, x)))
        x = F.relu(net.in5(up(net.deconv2, x)))
        return (net.deconv3(x) / 255).clamp(0, 1)

    return forward


def plain_adain(content, style):
    """Encoder, equation 8, decoder, in PyTorch's default layout."""
    import torch

    from nstlib.methods.adain import LAYER, AdaIN, adain, channel_statistics

    method = AdaIN(precision="float32", device="cpu")
    method.encoder.memory_format = torch.contiguous_format
    for net in (method.encoder, method.decoder):
        net.to(memory_format=torch.contiguous_format)
    known = channel_statistics(method.encoder(style)[LAYER])
    return lambda: method.decoder(adain(method.encoder(content)[LAYER], known)).clamp(0, 1)


def worker(way: str, size: int) -> None:
    import torch

    from nstlib import assets
    from nstlib.course.manifest import peak_mib
    from nstlib.methods.adain import AdaIN
    from nstlib.methods.johnson import SHIPPED, Johnson
    from nstlib.nets import hardware
    from nstlib.pictures import files as images

    content, style = (
        images.square(images.load_image(assets.data_path(name)), size, allow_upscale=True)
        for name in ("portraits/collins.jpg", "paintings/starry_night.jpg")
    )
    with torch.inference_mode():
        if way == "Johnson, plain":
            step = plain_johnson(content)
        elif way == "AdaIN, plain":
            step = plain_adain(content, style)
        else:
            hardware.keep_freed_memory()
            if way == "Johnson, nstlib":
                network = Johnson.load(SHIPPED[0], device="cpu")
                step = lambda: network.stylize(content)  # noqa: E731
            else:
                method = AdaIN(device="cpu")
                known = method.statistics(style)
                step = lambda: method.stylize(content, known)  # noqa: E731
        seconds = statistics.median(time_steps(step))
        a = torch.randn(2048, 2048)
        rate = 2 * 2048**3 / min(time_steps(lambda: a @ a)) / 1e9
    print(json.dumps({"seconds": seconds, "rate": rate, "peak_mib": peak_mib()}))


def work(size: int) -> dict[str, float]:
    """GFLOP of the published layers' convolutions, counted from the modules' own weights."""
    from torch import nn

    from nstlib.nets.adain import Decoder
    from nstlib.nets.johnson import TransformNet
    from nstlib.nets.vgg import layers_up_to

    johnson, side = 0.0, float(size)
    for name, layer in TransformNet().named_modules():
        if isinstance(layer, nn.Conv2d):
            side /= layer.stride[0]
            side *= 2 if name.startswith(("deconv1", "deconv2")) else 1
            johnson += 2 * layer.weight.numel() * side**2
    adain, side, channels = 0.0, float(size), 3
    for one in layers_up_to("vgg19", ["relu4_1"]):
        if one.kind == "conv":
            adain += 2 * 9 * channels * one.channels * side**2
            channels = one.channels
        side /= one.stride if one.kind == "pool" else 1
    for layer in Decoder():
        side *= 2 if isinstance(layer, nn.Upsample) else 1
        adain += 2 * layer.weight.numel() * side**2 if isinstance(layer, nn.Conv2d) else 0
    return {"Johnson": johnson / 1e9, "AdaIN": adain / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--worker", choices=WAYS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.size)
        return

    import torch

    from nstlib.course.manifest import processor
    from nstlib.nets.hardware import processor_likes_bfloat16

    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    for number in range(1, options.rounds + 1):
        for way in WAYS:
            command = [sys.executable, __file__, "--worker", way, "--size", str(options.size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number}  {way:<16} {found[way][-1]['seconds']:.3f} s a picture", flush=True)
    median = {way: statistics.median(r["seconds"] for r in rows) for way, rows in found.items()}
    rate = max(r["rate"] for rows in found.values() for r in rows)
    gflop = work(options.size)
    lines = [
        f"# One picture of {options.size} px in one pass",
        "",
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, bfloat16 in hardware: "
        f"{'yes' if processor_likes_bfloat16() else 'no'}. Medians of {options.rounds} rounds, the ways "
        "taken in turn; by `make bench`.",
        "",
        "| way | seconds | against plain | GFLOP/s of the plain way's work | peak memory |",
        "|---|---|---|---|---|",
    ]
    for way, seconds in median.items():
        method = way.split(",")[0]
        against = median[f"{method}, plain"] / seconds
        peak = max(r["peak_mib"] for r in found[way])
        lines.append(
            f"| {way} | {seconds:.3f} | {against:.2f}× | {gflop[method] / seconds:.0f} | {peak:.0f} MiB |"
        )
    lines += [
        "",
        f"Ceilings: Johnson's network is {gflop['Johnson']:.0f} GFLOP, AdaIN {gflop['AdaIN']:.0f}; "
        f"this machine multiplies 2048² matrices at {rate:.0f} GFLOP/s in float32. The peer "
        "is the plain way itself.",
        "",
    ]
    (HERE / "fast_networks.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
