"""The fenced code blocks of a Markdown page, with the marks that say what a test may do with them.

A mark is an HTML comment on the line before the fence, which a reader of the page does not see:

- ``<!-- real weights -->``: needs weights that are not bundled; compiled, its imports and calls are checked, it is not run.
- ``<!-- elsewhere: PATH -->``: run by another test of this repository, the file or folder PATH; here it is only checked.
- ``<!-- raises NAME -->``: ends with this error.
- ``<!-- output -->``: a ``text`` block that must be what the block above printed; ``...`` stands for anything.

A page that starts with ``<!-- continues PAGE -->`` goes on with the names and files of another page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w+-]*)(?P<info>[^\n`]*)$")
_MARK = re.compile(r"^ *<!-- *(real weights|elsewhere: *\S+|raises \w+|output) *-->$")
_CONTINUES = re.compile(r"<!-- *continues (\S+) *-->")


@dataclass(frozen=True)
class CodeBlock:
    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def raises(self) -> str | None:
        return self.mark.partition("raises ")[2] or None

    @property
    def runs(self) -> bool:
        return self.mark != "real weights" and not self.mark.startswith("elsewhere")


def pages() -> list[Path]:
    """Every page whose code this suite answers for; the tutorials' pages are rendered from notebooks that are run as such."""
    written = [page for page in sorted(DOCS.rglob("*.md")) if page.relative_to(DOCS).parts[0] != "tutorials"]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written]


def continues(page: Path) -> Path | None:
    found = _CONTINUES.match(page.read_text(encoding="utf-8"))
    return None if found is None else DOCS / found[1]


def blocks_of(page: Path) -> list[CodeBlock]:
    found: list[CodeBlock] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if opening is None:
            at += 1
            continue
        indent, ticks = len(opening["indent"]), opening["ticks"]
        end = next((row for row in range(at + 1, len(lines)) if lines[row].strip() == ticks), None)
        assert end is not None, f"{page}:{at + 1}: this fence is not closed"
        mark = _MARK.match(lines[at - 1]) if at else None
        body = "\n".join(line[indent:] for line in lines[at + 1 : end]) + "\n"
        found.append(CodeBlock(page, at + 2, opening["language"], body, mark[1] if mark else ""))
        at = end + 1
    return found
