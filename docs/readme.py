"""Write the generated tables into README.md, between the markers: python docs/readme.py"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import tables

README = tables.ROOT / "README.md"
TABLES = {
    "demo": tables.demo_scores,
    "notebooks": lambda: tables.notebooks("notebooks/"),
}


def generated(text: str) -> str:
    """The text with what lies between `<!-- name -->` and `<!-- end -->` replaced by its table."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, n = re.subn(pattern, lambda m, t=table: f"{m[1]}\n{t()}\n\n{m[2]}", text, flags=re.S)
        if n != 1:
            raise ValueError(
                f"README.md must have the markers <!-- {name} --> … <!-- end --> once."
            )
    return text


if __name__ == "__main__":
    README.write_text(generated(README.read_text()))
