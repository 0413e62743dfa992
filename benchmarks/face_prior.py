"""How good are the small face prior and its encoder? FID and KID against the whole network; reconstructions.

    python benchmarks/face_prior.py [--count 1000] [--photographs FOLDER]

The prior's faces (seed 1) stand against the whole network's (seed 0, made smaller to 256 pixels), and these
against themselves, because an FID of so few pictures is mostly bias. Reconstructed are 10 faces that the
prior drew and nobody has trained on (seed 777), and the first 10 photographs of the folder in which a face is
found: by the encoder in one pass, then by descent from there. The result is written to face_prior.md beside
this file (half an hour on two cores with 1,000 faces; drawing the whole network's, once, is half of it).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from nstlib import metrics
from nstlib.course.manifest import processor
from nstlib.errors import NstError
from nstlib.faces import generated as faces
from nstlib.faces.align import align_portrait
from nstlib.faces.identity import Identity, portrait_alignment
from nstlib.methods.inversion import course_encoder, invert
from nstlib.nets import hardware
from nstlib.pictures import files as images

HERE = Path(__file__).resolve().parent
FACES, STEPS, SIDE, BATCH = 10, (25, 40), 256, 10


def shown(prior: torch.nn.Module, codes: Tensor) -> Tensor:
    """Codes to pictures (N, 3, 256, 256) in [0, 1]."""
    with torch.no_grad():
        return torch.cat([((prior(one, space="w") + 1) / 2).clamp(0, 1) for one in codes.split(1)])


def distances(source: faces.Faces, count: int) -> list[str]:
    """Rows of FID and KID."""
    extractor = metrics.InceptionFeatures(device=source.device)
    files, _ = faces.listed(faces.cached(count, 256), count)
    prior, styles = source.prior(), source.w(count, seed=1)
    whole, small = [], []
    for start in range(0, count, BATCH):
        pictures = [images.resize(images.load_image(path), (SIDE, SIDE)) for path in files[start:][:BATCH]]
        with torch.no_grad():
            whole.append(extractor(torch.cat(pictures)))
            small.append(extractor(shown(prior, styles[start:][:BATCH])))
    a, b = torch.cat(whole), torch.cat(small)
    half = count // 2
    pairs = {
        f"the prior against the whole network | {count} and {count}": (a, b),
        f"... | {half} and {half}": (a[:half], b[half:]),
        f"the whole network against itself, other faces | {half} and {half}": (a[:half], a[half:]),
    }
    return [
        f"| {name} | {metrics.fid(x, y):.1f} | {metrics.kid(x, y):.4f} |" for name, (x, y) in pairs.items()
    ]


def photographs(folder: Path) -> Tensor:
    """The first of a folder, framed like FFHQ; those without a face are left out."""
    found = []
    for path in sorted(folder.iterdir()):
        try:
            found.append(align_portrait(images.load_image(path), SIDE).picture)
        except NstError as error:
            print(f"{path.name}: {error}")
        if len(found) == FACES:
            break
    return torch.cat(found)


def reconstructions(source: faces.Faces, folder: Path | None) -> Iterator[str]:
    """Rows of identity and LPIPS, and the pictures as benchmarks/face_prior.jpg."""
    prior, identity = source.prior(), Identity(source.device)
    encode = course_encoder(prior)
    lpips = {name: metrics.Lpips(name, device=source.device) for name in ("alexnet", "vgg16")}

    def row(kind: str, way: str, wanted: Tensor, made: Tensor) -> str:
        with torch.no_grad():
            same = [identity.embed(x, portrait_alignment()) for x in (wanted, made)]
            alike = (same[0] * same[1]).sum(1)
            apart = [f"{measure(wanted, made).mean():.3f}" for measure in lpips.values()]
        said = [f"{alike.mean():.2f}, {alike.min():.2f}", *apart, f"{metrics.ssim(wanted, made).mean():.2f}"]
        return f"| {kind} | {way} | {' | '.join(said)} |"

    drawn = shown(prior, source.w(FACES, seed=777))
    yield row("drawn", "the encoder, one pass", drawn, shown(prior, encode(drawn)))
    if folder is None:
        return
    real = photographs(folder)
    codes = encode(real)
    sheet = [real, shown(prior, codes)]
    yield row("photographs", "the encoder, one pass", *sheet)
    for steps in STEPS:
        searched = [
            invert(picture[None], prior, start=code[None], steps=steps, progress=False).pictures
            for picture, code in zip(real, codes, strict=True)
        ]
        sheet.append(torch.cat(searched))
        yield row("photographs", f"and {steps} steps of descent", real, sheet[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--photographs", type=Path)
    options = parser.parse_args()
    hardware.keep_freed_memory()
    warnings.simplefilter("ignore", metrics.FidBiasWarning)  # the table says it in numbers
    source = faces.Faces()
    lines = [
        "# The face prior and its encoder",
        "",
        f"At {SIDE} px, truncation {faces.TRUNCATION}. {processor()}, torch {torch.__version__}; by "
        f"`python benchmarks/face_prior.py{' --photographs FOLDER' if options.photographs else ''}`.",
        "",
        "Inception-v3 of 2015; the last row would be 0 for as many pictures as one likes:",
        "",
        "| | pictures | FID | KID |",
        "|---|---|---|---|",
        *distances(source, options.count),
        "",
        f"{FACES} faces of each kind. Identity: ArcFace's similarity. The descent minimizes it, and LPIPS "
        "with AlexNet, so LPIPS with VGG-16 and SSIM are its judges:",
        "",
        "| faces | way | identity, mean and least | LPIPS AlexNet | VGG-16 | SSIM |",
        "|---|---|---|---|---|---|",
        *reconstructions(source, options.photographs),
        "",
    ]
    print("\n".join(lines))
    (HERE / "face_prior.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
