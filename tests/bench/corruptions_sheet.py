"""One image under every corruption and severity of the benchmark: docs/img/corruptions.png.

Usage: corruptions_sheet.py BUILD OUT.png [--sample N]. The image is sample N of Fashion-MNIST's test set.
"""
import argparse
import os
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw

sys.path[:0] = [str(pathlib.Path(__file__).parents[1] / folder) for folder in ("e2e", "oracle")]
ZOOM, GAP, LABEL, COLUMNS = 2, 4, 112, 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--sample", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["APD_BUILD"] = str(arguments.build.resolve())
    import corrupt_tool
    import support
    from corruptions import NAMES

    names = ["as it is", *NAMES[:15]]
    tool = corrupt_tool.Tool()
    image = support.read_idx(support.FASHION / "t10k-images-idx3-ubyte.gz")[arguments.sample]
    cell = ZOOM * image.shape[0] + GAP
    rows = -(-len(names) // COLUMNS)
    sheet = Image.new("L", (COLUMNS * (LABEL + 5 * cell), rows * cell + GAP), 255)
    draw = ImageDraw.Draw(sheet)
    for i, name in enumerate(names):
        x, y = i // rows * (LABEL + 5 * cell), i % rows * cell + GAP
        draw.text((x + GAP, y + cell // 2 - 8), name, 0)
        for severity in range(1, 6 if i > 0 else 2):
            pixels = tool.run(image, name, severity, 0, arguments.sample)[1] if i > 0 else image
            sheet.paste(Image.fromarray(np.kron(pixels, np.ones((ZOOM, ZOOM), np.uint8))),
                        (x + LABEL + (severity - 1) * cell, y))
    tool.close()
    sheet.save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
