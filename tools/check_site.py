"""Check the built documentation: every link and anchor within it leads somewhere, and no other server is asked for anything.

``python -m tools.check_site site`` reads every built page. A link to another site is allowed; a script, style, picture or font
from another site is not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["Page", "problems", "read_page"]

# Attributes from which a browser fetches by itself.
_FETCHED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
    ("video", "poster"),
    ("object", "data"),
}
_STYLE_URL = re.compile(r"""(?:url\(|@import)\s*['"]?(?P<url>(?:https?:)?//[^'")\s]+)""")


@dataclass
class Page(HTMLParser):
    """What a page fetches, where it leads, and the anchors it has."""

    fetched: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in one tag."""
        values = {name: value for name, value in attrs if value is not None}
        for name, value in values.items():
            fetched = (tag, name) in _FETCHED and not (
                tag == "link" and values.get("rel") in ("canonical", "prev", "next", "alternate")
            )
            if fetched:
                self.fetched.append(value)
            elif (tag, name) == ("a", "href") or (tag, name) in _FETCHED:
                self.links.append(value)
            elif name == "id" or (tag, name) == ("a", "name"):
                self.anchors.add(value)
            elif name == "srcset":
                self.fetched += [part.split()[0] for part in value.split(",") if part.strip()]


def read_page(path: Path) -> Page:
    """Return what a built page fetches, links to, and has as anchors."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def problems(site: Path) -> Iterator[str]:
    """Yield what is wrong with a built site, one line each."""
    pages = {path: read_page(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: expected a built site, got no page; run mkdocs build first"
    for path, page in pages.items():
        name = path.relative_to(site)
        for url in page.fetched:
            if urlsplit(url).netloc:
                yield f"{name}: fetches {url} from another server"
            elif path.name != "404.html":
                yield from _broken(site, path, url, pages)
        for url in page.links if path.name != "404.html" else ():
            yield from _broken(site, path, url, pages)
    for path in sorted(site.rglob("*.css")):
        for found in _STYLE_URL.finditer(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: fetches {found['url']} from another server"


def _broken(site: Path, path: Path, url: str, pages: dict[Path, Page]) -> Iterator[str]:
    """Say so if a link within the site leads nowhere."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return
    target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    target = target / "index.html" if target.is_dir() else target
    where = f"{path.relative_to(site)}: {url}"
    if not target.is_file() or site.resolve() not in target.resolve().parents:
        yield f"{where} leads to no file of the site"
    elif parts.fragment and target.suffix == ".html":
        known = pages.get(site / target.resolve().relative_to(site.resolve()))
        if known is not None and unquote(parts.fragment) not in known.anchors:
            yield f"{where} leads to no anchor"


def main() -> int:
    """Print every problem; 1 if there is any."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    found = list(dict.fromkeys(problems(site)))
    print(
        "\n".join(found)
        or f"{site}: {len(list(site.rglob('*.html')))} pages, every link leads somewhere, nothing is fetched from elsewhere"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
