"""Our corruptions by way of tests/support/corrupt_tool.c, an image like a photograph, and how it is evaluated."""
import subprocess

import numpy as np
import support
from PIL import Image


class Tool:
    """Images are arrays of bytes [h][w] or [h][w][3]."""

    def __init__(self):
        self.process = subprocess.Popen([support.BUILD / "tests/e2e/corrupt_tool"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0

    def run(self, image, name, severity, seed=0, sample=0):
        """(milliseconds, corrupted image)"""
        h, w, c = (*image.shape, 1)[:3]
        head = f"{name} {severity} {seed} {sample} {w} {h} {c}\n"
        self.process.stdin.write(head.encode() + np.ascontiguousarray(image).tobytes())
        self.process.stdin.flush()
        milliseconds = float(self.process.stdout.readline())
        return milliseconds, np.frombuffer(self.process.stdout.read(image.size), np.uint8).reshape(image.shape)


def photograph(h, w, c):
    """Smooth shapes with edges and a little noise."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:h, :w] / max(h, w)
    layers = [np.sin(5 * x + k) * np.cos(4 * y - k) + ((x - .6) ** 2 + (y - .4) ** 2 < .05 + .01 * k) for k in range(c)]
    image = 110 + 70 * np.stack(layers, 2) + random.normal(0, 6, (h, w, c))
    return np.clip(image, 0, 255).astype(np.uint8).reshape((h, w, c) if c > 1 else (h, w))


def evaluation_view(image, resize, size):
    """torchvision's Resize and CenterCrop by Pillow."""
    w, h = image.size
    w, h = (resize, int(resize * h / w)) if w <= h else (int(resize * w / h), resize)
    left, top = round((w - size) / 2), round((h - size) / 2)
    return np.asarray(image.resize((w, h), Image.BILINEAR).crop((left, top, left + size, top + size)))
