"""The progress of a pretext task as one image, like the paper's Figure 7: the input, the output after some epochs, the truth."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from bench.errors import DataError
from bench.storage import files, seal

IMAGES = "images"
"""The folder, in the working folder, of the images that were kept after some epochs."""
LEARNED = "learned"
"""The name of the row of which one for each of the chosen epochs is kept; of other rows, such as input and truth, the last."""
MARGIN, LABEL = 4, 96


def keep(folder: Path, epoch: int, rows: dict[str, NDArray[np.uint8]]) -> None:
    """Keep a pretext task's images after an epoch, one file for each of `rows`: row name -> uint8 (N, 3, H, W), if any."""
    if not rows:
        return
    for name, row in rows.items():
        title = f"epoch {epoch}" if name == LEARNED else name
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(list(row.transpose(0, 2, 3, 1)), axis=1)).save(buffer, "png")
        files.publish_file(folder / f"{title}.png", buffer.getvalue())
    files.publish_json(folder / "rows.json", {"rows": list(rows)})


def draw(folder: Path, path: Path) -> None:
    """Draw the kept rows below each other, each with its name, and save the image; `learned` gives a row for each epoch.

    The file says in its text `rows` what the rows are called and where they lie, for a page that shows them one by one.
    DataError names a kept file that cannot be read.
    """
    way_out = f"remove {folder}, and the trunk gets no {path.name}"
    names: list[str] = seal.load(folder / "rows.json", "a list of rows", way_out)["rows"]
    epochs = sorted(folder.glob("epoch *.png"), key=lambda file: int(file.stem.split()[1]))
    paths: list[Path] = []
    for name in names:
        paths += epochs if name == LEARNED else [folder / f"{name}.png"]
    strips = [_opened(file, way_out) for file in paths]
    height = strips[0].height + MARGIN
    canvas = Image.new("RGB", (LABEL + strips[0].width, height * len(strips)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for place, (file, strip) in enumerate(zip(paths, strips, strict=True)):
        pen.text((MARGIN, place * height + strip.height // 2), file.stem, fill="black", font=font, anchor="lm")
        canvas.paste(strip, (LABEL, place * height))
    about = PngInfo()
    rows = {"names": [file.stem for file in paths], "left": LABEL, "height": strips[0].height, "step": height}
    about.add_text("rows", json.dumps(rows))
    canvas.save(path, pnginfo=about)


def _opened(file: Path, way_out: str) -> Image.Image:
    try:
        return Image.open(file).convert("RGB")
    except Exception as error:  # Pillow's plug-ins have no common base for what a damaged file raises
        raise DataError(f"{file} does not decode; {way_out}.") from error
