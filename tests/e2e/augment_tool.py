"""Our augmentation by way of tests/support/augment_tool.c, and torchvision's operations on Pillow images."""
import subprocess

import numpy as np
import support
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment, functional


class Tool:
    """worker/data's augmentation. Images are arrays [h][w][3] or [h][w]."""

    def __init__(self):
        self.process = subprocess.Popen([support.BUILD / "tests/e2e/augment_tool"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0

    def ask(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return [float(word) for word in self.process.stdout.readline().split()]

    def send(self, image, *words):
        """(the answered line's number, image)"""
        h, w, c = (*image.shape, 1)[:3]
        head = " ".join(map(str, (*words, w, h, c))) + "\n"
        self.process.stdin.write(head.encode() + np.ascontiguousarray(image).tobytes())
        self.process.stdin.flush()
        (number,) = self.process.stdout.readline().split()
        return float(number), np.frombuffer(self.process.stdout.read(image.size), np.uint8).reshape(image.shape)

    def op(self, image, name, magnitude=0.0):
        return self.send(image, "op", name, repr(float(magnitude)), 1)[1]

    def time_op(self, image, name, magnitude, rounds):
        return self.send(image, "op", name, repr(float(magnitude)), rounds)[0]

    def augment(self, image, recipe, place, ops=2, magnitude=9, erase=0.0, noise=0):
        return self.send(image, "image", recipe, *place, ops, magnitude, erase, noise)[1]

    def time_augment(self, image, recipe, place):
        return self.send(image, "image", recipe, *place, 2, 9, 0.0, 0)[0]


def peer_op(image, name, magnitude):
    """Tool.op on a Pillow image."""
    if name == "Hue":
        return functional.adjust_hue(image, magnitude)
    return autoaugment._apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)


def pillow(array):
    return Image.fromarray(array)
