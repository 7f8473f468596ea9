"""Make the links of README.md absolute, for the package index: python .ci/absolute_links.py FOLDER."""

import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])
project = (folder / "pyproject.toml").read_text(encoding="utf-8")
source = re.findall(r'^Source = "(.*)"$', project, re.MULTILINE)[0]  # Python 3.10 has no reader of TOML
readme = folder / "README.md"
text = readme.read_text(encoding="utf-8")
text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{source}/raw/main/", text)
text = re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\1{source}/blob/main/", text)
readme.write_text(text, encoding="utf-8")
