"""Milliseconds of augmenting one 224 x 224 RGB image on one core, ours beside torchvision with Pillow. Not a test.

Usage: bench_augment.py BUILD [--rounds N]. Operations: the median of N calls. Recipes: the mean of N samples, whose
draws differ from torchvision's; ours flips half of them, too.
"""
import argparse
import os
import pathlib
import statistics
import sys
import time

import numpy as np
import PIL
import torch
import torchvision
from torchvision import transforms

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))

OPERATIONS = {"ShearX": 0.1, "ShearY": 0.1, "TranslateX": 30, "TranslateY": 30, "Rotate": 9,
              "Brightness": 0.27, "Color": 0.27, "Contrast": 0.27, "Sharpness": 0.27, "Posterize": 5,
              "Solarize": 178.5, "AutoContrast": 0, "Equalize": 0, "Invert": 0, "Hue": 0.1}
RECIPES = {"rrc_flip_jitter": transforms.ColorJitter(0.4, 0.4, 0.4, 0.1), "randaugment": transforms.RandAugment(),
           "autoaugment": transforms.AutoAugment()}
PX = 224


def natural_like():
    """Smooth with some noise, so that histograms and branches are no easier than a photograph's."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:PX, :PX] / PX
    smooth = np.stack([np.sin(5 * x + k) * np.cos(4 * y - k) for k in range(3)], 2)
    return np.clip(128 + 100 * smooth + random.normal(0, 8, (PX, PX, 3)), 0, 255).astype(np.uint8)


def times_of(call, rounds):
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        yield 1000 * (time.perf_counter() - began)


def report(name, ours, theirs):
    print(f"{name:16s} {ours:7.3f} {theirs:7.3f} {theirs / ours:6.1f} x")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    os.environ["APD_BUILD"] = str(arguments.build.resolve())
    import augment_tool

    torch.set_num_threads(1)
    rounds, image, tool = arguments.rounds, natural_like(), augment_tool.Tool()
    pillow = augment_tool.pillow(image)
    print(f"ms: ours, Pillow {PIL.__version__} with torchvision {torchvision.__version__}")
    for name, magnitude in OPERATIONS.items():
        report(name, tool.time_op(image, name, magnitude, rounds),
               statistics.median(times_of(lambda: augment_tool.peer_op(pillow, name, magnitude), rounds)))
    for name, peer in RECIPES.items():
        report(name, statistics.mean(tool.time_augment(image, name, (1, 0, sample)) for sample in range(rounds)),
               statistics.mean(times_of(lambda: peer(pillow), rounds)))
    tool.close()


if __name__ == "__main__":
    main()
