#!/usr/bin/python3
"""JPEG files to normalised training images: torchvision beside ours, on one core, in one run.

    tests/bench/bench_data.py BUILD_DIR [--images 300] [--rounds 5] [--px 224] [--size 500x375] [--core 0]

Synthesises photograph-like JPEGs of about 100 KB (4:2:0, quality 90 to 95) and loads them all per round: torchvision's
ImageFolder with RandomResizedCrop, RandomHorizontalFlip, ToTensor and Normalize, and our decoder with the same
choices (tests/bench/bench_data.c). Prints the images per second of each, medians of the rounds, and the ratio.
Rounds alternate, so that a busy minute hits both. Not a test.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy
import torch
import torchvision
from PIL import Image
from torchvision import transforms


def photograph(random, width, height):
    """Soft shapes of several scales, edges and sensor noise."""
    picture = numpy.zeros((height, width, 3))
    for cells, strength in ((3, 90), (9, 50), (40, 25), (120, 14)):
        coarse = random.normal(128, strength, (cells * height // width + 1, cells, 3)).clip(0, 255).astype(numpy.uint8)
        picture += numpy.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC), dtype=float) - 128
    for _ in range(12):
        x, y = random.integers(0, width), random.integers(0, height)
        picture[y:y + random.integers(10, height // 2), x:x + random.integers(10, width // 2)] += random.normal(0, 30, 3)
    picture += random.normal(0, 9.5, picture.shape)
    return Image.fromarray((picture + 128).clip(0, 255).astype(numpy.uint8))


def synthesise(folder, images, width, height):
    random = numpy.random.default_rng(1)
    for i in range(images):
        scale = random.uniform(0.85, 1.15)
        size = (int(width * scale), int(height * scale))
        if i % 4 == 3:
            size = size[::-1]
        path = folder / f"class{i % 10}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        photograph(random, *size).save(path, quality=int(random.integers(90, 96)), subsampling="4:2:0")
    return sorted(folder.glob("*/*.jpg"))


def torchvision_rate(folder, px):
    data = torchvision.datasets.ImageFolder(folder, transforms.Compose([
        transforms.RandomResizedCrop(px), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]))
    began = time.perf_counter()
    for i in range(len(data)):
        data[i]
    return len(data) / (time.perf_counter() - began)


def our_rate(program, paths, px, seed):
    result = subprocess.run([program, str(px), str(seed)], input="\n".join(map(str, paths)), text=True,
                            stdout=subprocess.PIPE, check=True)
    return float(result.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--size", default="500x375")
    parser.add_argument("--core", type=int, default=0)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.core})
    torch.set_num_threads(1)
    torch.manual_seed(1)
    program = arguments.build.resolve() / "tests" / "bench" / "bench_data"
    with tempfile.TemporaryDirectory() as folder:
        width, height = map(int, arguments.size.split("x"))
        paths = synthesise(pathlib.Path(folder), arguments.images, width, height)
        mean_kb = sum(path.stat().st_size for path in paths) / len(paths) / 1e3
        theirs, ours = [], []
        for i in range(arguments.rounds):
            theirs.append(torchvision_rate(folder, arguments.px))
            ours.append(our_rate(program, paths, arguments.px, i))
    print(f"{len(paths)} JPEGs of about {arguments.size}, {mean_kb:.0f} KB; to {arguments.px} px, one core; "
          f"images/s, median of {arguments.rounds} rounds (lowest, highest)")
    for name, rates in ((f"torchvision {torchvision.__version__}", theirs), ("ours", ours)):
        print(f"{name:24s} {statistics.median(rates):8.0f}   ({min(rates):.0f}, {max(rates):.0f})")
    print(f"{'ratio':24s} {statistics.median(ours) / statistics.median(theirs):8.2f}")


if __name__ == "__main__":
    main()
