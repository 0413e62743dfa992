"""Check the course's English with proselint: the Markdown cells of the notebooks, and the Markdown files."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def prose(path: Path) -> str:
    """What a reader reads: no code, no formulas, no tables of numbers."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    number = itertools.count()  # each another word: the same one twice would be a slip
    left_out = r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|<!--.*?-->"
    return re.sub(left_out, lambda _: f"x{next(number)}", text, flags=re.DOTALL)


def main() -> int:
    found = [*(ROOT / "notebooks").glob("0*.ipynb"), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for path in sorted(found):
            files.append(Path(folder) / f"{path.name}.md")
            files[-1].write_text(prose(path), encoding="utf-8")
        config = ["--config", str(ROOT / ".proselintrc.json")]
        done = subprocess.run(
            ["proselint", "check", *config, "-o", "compact", *map(str, files)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    print((done.stdout + done.stderr).replace(f"{folder}/", ""), end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
