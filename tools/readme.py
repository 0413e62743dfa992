"""Fill the generated parts of README.md: the map with measured times, and the table of assets.

python tools/readme.py         (after a maintainer's `make store`; a test holds the README to it)
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from nstlib.assets import cache, registry
from nstlib.course.manifest import show_mib, show_seconds

ROOT = Path(__file__).resolve().parents[1]

NOTEBOOKS = {
    "01_gram_matrix_theory": ("Gram-matrix theory: what style is, as a matrix", "A (1)–(7), B (1)–(5), D"),
    "02_vgg16_vs_vgg19_layers": (
        "VGG-16 against VGG-19 and AlexNet, layer by layer",
        "A Fig. 7, B Figs 3–4, D Fig. 6",
    ),
    "03_optimizers_and_weights": (
        "Optimizers, style weights and recipes",
        "A Figs 4–6, B section 3, C, D Figs 8–13",
    ),
    "03b_sizes_colors_regions_films": (
        "Appendix: sizes, colors, faces, regions, films, movements",
        "B section 4, E (9)–(10)",
    ),
    "04_fast_style_transfer": (
        "One forward pass: Johnson's networks and AdaIN",
        "C (MSE, training time); Johnson (1)–(5), Fig. 5, Table 1; Huang and Belongie (8)",
    ),
    "05_dualstylegan_four_stages": (
        "DualStyleGAN in its four stages, and JoJoGAN",
        "A (8)–(10), section 3.2, Figs 3, 8; Yang et al. 2022; Chong and Forsyth 2022",
    ),
    "06_u2_local_transfer": (
        "Regions of a portrait: paper E's U² network, CycleGAN, portrait drawing",
        "E (1)–(15), Figs 2–4, 6–8, 10–12; Qin et al. 2020; Park and Lee 2019",
    ),
    "07_metrics_comparison": (
        "Metrics, Table 1 of every method, and a user study",
        "A (11)–(12) and Fig. 9, C, E sections 4.1, 4.3, 4.4, Fig. 9, Tables 1–2",
    ),
}


def course_map() -> str:
    """The notebooks with what was measured for each preset."""
    measured = json.loads((ROOT / "notebooks" / "measured.json").read_text(encoding="utf-8"))
    rows = ["| notebook | papers | `smoke` | `quick` |", "|---|---|---|---|"]
    runs = {name: [measured[name][preset]["cpu"] for preset in ("smoke", "quick")] for name in NOTEBOOKS}
    machines = list(dict.fromkeys(run["processor"] for two in runs.values() for run in two))
    for name, (title, papers) in NOTEBOOKS.items():
        cells = []
        for run in runs[name]:
            mark = machines.index(run["processor"])  # the first machine is the rule, others are marked
            note = f" <sup>{mark}</sup>" if mark else ""
            cells.append(f"{show_seconds(run['seconds'])}, {show_mib(run['peak_mib'])}{note}")
        rows.append(
            f"| [{name.split('_')[0]}](notebooks/{name}.ipynb) {title} | {papers} | {' | '.join(cells)} |"
        )
    others = "".join(f"; <sup>{i}</sup> on {name}" for i, name in enumerate(machines[1:], start=1))
    return "\n".join(rows) + f"\n\nTime and peak memory as measured on {machines[0]}{others}.\n"


def assets() -> str:
    """All assets, in the registry's order."""
    rows = ["| asset | what for | source | size | licence | non-commercial |", "|---|---|---|---|---|---|"]
    for asset in registry.assets().values():
        first = asset.sources[0]
        origin = f"[{asset.file}]({first.url})" if first.url else first.title
        what = f"{asset.title}: {asset.purpose}"
        flag = "**yes**" if asset.non_commercial else "no"
        cells = (f"`{asset.name}`", what, origin, cache.human(asset.bytes), asset.licence, flag)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def filled(text: str) -> str:
    """README.md with its generated parts made anew."""
    for name, block in (("map", course_map()), ("assets", assets())):
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, block=block: f"{found[1]}\n{block}\n{found[2]}",
            text,
            flags=re.S,
        )
        assert count == 1, name
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
