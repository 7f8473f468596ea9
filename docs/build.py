"""Build the site: python docs/build.py OUT. English in OUT, Chinese in OUT/zh; then doctests and links."""

from __future__ import annotations

import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.cmd.build import main as sphinx

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "site"))
import chinese  # noqa: E402


class Page(HTMLParser):
    """The links and the targets of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keep what leads somewhere, and what can be led to."""
        for name, value in attributes:
            if name in ("href", "src") and value and tag != "template":
                self.links.append(value)
            if name in ("id", "name") and value:
                self.ids.add(value)


def broken(site: Path) -> list[str]:
    """Links inside the site that lead nowhere, and paths of this machine."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path.relative_to(site)}: names {here}"
            for here in (sys.prefix, str(DOCS.parent))
            if here in text
        ]
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            if not target.exists():
                found.append(f"{path.relative_to(site)}: {link}")
            elif address.fragment and target in pages and unquote(address.fragment) not in pages[target].ids:
                found.append(f"{path.relative_to(site)}: {link}, no such place")
    return sorted(set(found))


def build(out: Path) -> int:
    """English, Chinese, doctests, links; the first failure ends it."""
    work = out.parent / "doctrees"
    shutil.rmtree(out, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    common = ["-W", "--keep-going", "-q", "-c", str(DOCS)]
    runs = [
        ["-b", "html", *common, "-d", str(work / "en"), str(DOCS), str(out)],
        ["-b", "html", *common, "-t", "zh", "-d", str(work / "zh"), str(work / "zh-pages"), str(out / "zh")],
        ["-b", "doctest", *common, "-d", str(work / "en"), str(DOCS), str(out.parent / "doctest")],
    ]
    chinese.written(DOCS / "zh", work / "zh-pages")
    for run in runs:
        if code := sphinx(run):
            return code
    for path in (out / "zh").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for english, words in chinese.THEME.items():
            text = text.replace(english, words)
        path.write_text(text, encoding="utf-8")
    page = out / "explore.html"  # a file of its own, whose links are those of docs/
    page.write_text(page.read_text(encoding="utf-8").replace("theory.md", "theory.html"), encoding="utf-8")
    lost = broken(out)
    print(*lost, sep="\n")
    print(f"{len(list(out.rglob('*.html')))} pages in {out}, {len(lost)} links that lead nowhere or paths")
    return bool(lost)


if __name__ == "__main__":
    raise SystemExit(build(Path(sys.argv[1]).resolve()))
