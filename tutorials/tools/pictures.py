"""Make outputs small and visible everywhere: plotly figures become PNG pictures, and HTML becomes plain text."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageChops, ImageOps

from tutorials.tools.notebook import Notebook

__all__ = ["freeze"]

_FIGURE = "application/vnd.plotly.v1+json"
_KEPT = ("image/png", "text/markdown", "text/plain")
_WIDTH, _HEIGHT, _SCALE, _MARGIN = 820, 420, 1.5, 18
_DRAW = """async (figure) => {
  const place = document.getElementById("figure");
  await Plotly.newPlot(place, figure.data, figure.layout, {staticPlot: true});
  return await Plotly.toImage(place, {format: "png", width: figure.width, height: figure.height, scale: figure.scale});
}"""


def freeze(notebook: Notebook) -> Notebook:
    """Replace each figure by a picture of it, in place, and keep only what GitHub and the documentation can show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    figures = [output for output in outputs if _FIGURE in output.data]
    for output, picture in zip(figures, _draw([output.data[_FIGURE] for output in figures]), strict=True):
        output.data["image/png"] = picture
        output.data["text/plain"] = _told(output.data[_FIGURE])
    for output in outputs:
        output.data = {kind: output.data[kind] for kind in _KEPT if kind in output.data}
        output.metadata = {}
    return notebook


def _draw(figures: Sequence[dict[str, Any]]) -> list[str]:
    """PNG of each figure in base64, by one headless Chromium with plotly's own script, offline."""
    if not figures:
        return []
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_content('<div id="figure"></div>')
        page.add_script_tag(content=get_plotlyjs())
        pictures = [page.evaluate(_DRAW, _still(figure)) for figure in figures]
        browser.close()
    return [_trimmed(picture.partition(",")[2]) for picture in pictures]


def _trimmed(picture: str) -> str:
    """The same PNG without the white around it, but for a small margin."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    drawn = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox() or (0, 0, *image.size)
    sheet = ImageOps.expand(image.crop(drawn), _MARGIN, "white")
    written = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode("ascii")


def _still(figure: dict[str, Any]) -> dict[str, Any]:
    """What to draw: a figure with a player is shown at its middle frame, without buttons that a picture cannot have."""
    still = json.loads(json.dumps({"data": figure["data"], "layout": figure["layout"]}))
    layout = still["layout"]
    frames = figure.get("frames") or []
    if frames:
        frame = frames[len(frames) // 2]
        for number, part in zip(frame.get("traces") or range(len(still["data"])), frame.get("data", []), strict=False):
            still["data"][number].update(part)
        layout.update({key: value for key, value in frame.get("layout", {}).items() if value})
    layout.pop("sliders", None)
    layout.pop("updatemenus", None)
    layout.setdefault("font", {}).setdefault("family", "DejaVu Sans, Arial, sans-serif")
    return still | {"width": layout.get("width") or _WIDTH, "height": layout.get("height") or _HEIGHT, "scale": _SCALE}


def _told(figure: dict[str, Any]) -> str:
    """The figure in one line, for those who do not see it: its title, as plain words."""
    layout = figure["layout"]
    meta = layout.get("meta")
    title = (meta.get("finding") if isinstance(meta, dict) else None) or (layout.get("title") or {}).get("text")
    return f"Figure: {title}" if title else "Figure"
