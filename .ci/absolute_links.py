"""Make the links of README.md absolute, for the package index: python .ci/absolute_links.py FOLDER."""

import re
import sys
from pathlib import Path

import tomllib

folder = Path(sys.argv[1])
urls = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
readme = folder / "README.md"
text = readme.read_text(encoding="utf-8")
text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{urls['Source']}/raw/main/", text)
text = re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\1{urls['Source']}/blob/main/", text)
readme.write_text(text, encoding="utf-8")
