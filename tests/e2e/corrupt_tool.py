"""Our corruptions by way of tests/support/corrupt_tool.c, and an image that is like a photograph."""
import subprocess

import numpy as np
import support


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
