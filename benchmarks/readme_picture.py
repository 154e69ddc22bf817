"""The README's picture: the demo's clip before and after balancing, side by side.

vico-lens demo --out demo-output && python -m benchmarks.readme_picture demo-output
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, TEXT, RATE = 352, 16, 66, 250
LARGE, SMALL = (ImageFont.load_default(size) for size in (22, 19))  # the page shows the picture at about two thirds
OUT = Path(__file__).parents[1] / "docs" / "images" / "demo.gif"


def main() -> None:
    folder = Path(sys.argv[1])
    summary = json.loads((folder / "summary.json").read_text())
    clips = [iio.imread(folder / f"{name}.mp4") for name in ("before", "after")]
    frames = []
    for pair in zip(*clips, strict=True):
        page = Image.new("RGB", (2 * SIDE + GAP, SIDE + TEXT), "white")
        draw = ImageDraw.Draw(page)
        for column, (frame, name) in enumerate(zip(pair, ("before", "after"), strict=True)):
            x = column * (SIDE + GAP)
            page.paste(Image.fromarray(np.asarray(frame)).resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, 0))
            shares = ", ".join(f"{concept} {100 * share:.0f} %" for concept, share in summary[name]["share"].items())
            draw.text((x, SIDE + 6), "plain" if name == "before" else "balanced", fill="black", font=LARGE)
            draw.text((x, SIDE + 36), shares, fill="#444444", font=SMALL)
        frames.append(page)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(OUT, save_all=True, append_images=frames[1:], duration=RATE, loop=0)


if __name__ == "__main__":
    main()
