"""Pages of the documentation from the committed notebooks: Markdown and pictures, nothing is run."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path

import nbformat

from tutorials.tools.notebook import FOLDER, Notebook, find

__all__ = ["page", "write_pages"]

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_INDEX = """# Tutorials

Each takes 10 to 15 minutes to read, less than a minute to run on a laptop without a GPU, and ends with two exercises. They build
on one another in this order, but each says at its top what it needs. The pages here show the notebooks of the folder `tutorials/`
as they were last run; to try them, open those (`jupyter lab tutorials/`), or run the Python files beside them cell by cell.
Figures with a time slider stand still on these pages, at their middle frame.
"""


def write_pages(folder: Path) -> list[Path]:
    """Write one page a notebook and an index into `folder`, replacing what stood there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    index, written = [_INDEX], []
    for path in (path for path in find() if path.with_suffix(".ipynb").exists()):
        notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
        text, pictures = page(notebook, path.stem)
        for name, picture in pictures.items():
            (folder / name).write_bytes(picture)
        place = folder / f"{path.stem}.md"
        place.write_text(text, encoding="utf-8")
        title, promise = _opening(text)
        index.append(f"- [{title}]({place.name}): {promise}")
        written.append(place)
    (folder / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")
    return written


def page(notebook: Notebook, stem: str) -> tuple[str, dict[str, bytes]]:
    """One notebook as Markdown, and its pictures by file name.

    Parameters
    ----------
    notebook : Notebook
        With outputs of text and PNG only, as `pictures.freeze` leaves them.
    stem : str
        Name of the tutorial; its pictures are called ``<stem>_1.png`` and so on.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(_LINK.sub(_relinked, cell.source.replace("<details>", '<details markdown="1">')))
            continue
        if cell.source.strip():
            parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{stem}_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![{_alternative(data)}]({name})")
            elif "text/markdown" in data:
                parts.append(data["text/markdown"])
            elif data["text/plain"].strip():
                parts.append(f"``` {{.text .output}}\n{data['text/plain'].rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _relinked(link: re.Match[str]) -> str:
    """A link of a notebook, seen from docs/tutorials: documentation one level up, other tutorials as pages."""
    target = link[2]
    if not target.startswith(("http://", "https://", "#")):
        name, hash_, anchor = target.partition("#")
        if name.startswith("../docs/"):
            name = "../" + name.removeprefix("../docs/")
        elif (FOLDER / name).suffix == ".ipynb" and "/" not in name:
            name = name.removesuffix(".ipynb") + ".md"
        else:
            raise ValueError(f"a tutorial links to {target!r}: expected ../docs/..., another tutorial's .ipynb, or an address")
        target = name + hash_ + anchor
    return link[1] + target + link[3]


def _alternative(data: dict[str, str]) -> str:
    """What stands for a picture that is not seen, without characters that would end it."""
    told = data.get("text/plain", "Picture")
    return "Picture" if told.startswith("<") else re.sub(r"<[^>]+>|[\[\]\n]", " ", told).strip()


def _opening(text: str) -> tuple[str, str]:
    """Title of a page, and the sentence that says what its reader will be able to do."""
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    promise = re.search(r"^\*\*You will be able to\*\* (.+?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    if title is None or promise is None:
        raise ValueError("a tutorial starts with '# title' and a paragraph '**You will be able to** ...'")
    return title[1], " ".join(promise[1].split())
