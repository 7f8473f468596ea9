"""Run the Python examples of pages, each page's one after the other: python -W error tests/readme.py PAGE…

Blocks of a README are independent; the cells of a notebook share their names.
"""

import contextlib
import io
import re
import sys
import time
from pathlib import Path

BLOCK = re.compile(r"^```(?:python|\{code-cell\}[^\n]*)\n((?::[^\n]*\n)*)(.*?)^```", re.DOTALL | re.MULTILINE)


def examples(page: Path) -> list[str]:
    """The programs of a page: those of a notebook are one."""
    text = page.read_text(encoding="utf-8")
    blocks = [code for _, code in BLOCK.findall(text)]
    return ["\n".join(blocks)] if "{code-cell}" in text else blocks


def main() -> None:
    """Run every example; an error or a warning ends it."""
    for page in map(Path, sys.argv[1:]):
        for i, code in enumerate(examples(page)):
            begin = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, f"{page}, example {i}", "exec"), {"__name__": "__main__"})
            print(f"{page.name}, example {i}: {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
