#!/usr/bin/python3
"""The data path on photograph-like JPEGs: decoding beside torchvision, the index, and the loader's memory, in one run.

    tests/bench/bench_data.py BUILD_DIR [--images 384] [--copies 10] [--rounds 7] [--px 224] [--size 500x375] [--cores 0,1]

Synthesises JPEGs of about 100 KB (4:2:0, quality 90 to 95). Rounds alternate, so that a busy minute hits both; each
line is the median of its rounds with the lowest and the highest. Not a test.

decoding  file to normalised floats, RandomResizedCrop and mirror. One core: torchvision's ImageFolder item by item,
          and our loader (bench_data.c) with one decode thread. Two cores: torchvision's DataLoader with two workers
          that are there already, and our loader, made anew each time, with two decode threads.
index     `advprop data index` on so many copies of each file, no two alike: without a manifest, and again on the same files.
          Whole commands, start of the process included.
memory    peak resident bytes of the loader above the state before it was made, beside the size of its ring.
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

MANIFEST = ".advprop-index"
WORKER_BATCH = 32  # of torchvision's workers and of our loader where speed is measured
MEMORY_BATCH, MEMORY_STEPS, READ_AHEAD = 64, 12, 2


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
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(random, *size).save(path, quality=int(random.integers(90, 96)), subsampling="4:2:0")
    return sorted(folder.glob("*/*.jpg"))


def copies_of(paths, folder, copies):
    """A comment segment with a number makes every copy another file."""
    for number, path in enumerate(paths * copies):
        copy = folder / path.parent.name / f"{number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        jpeg = path.read_bytes()
        copy.write_bytes(jpeg[:2] + b"\xff\xfe\x00\x06" + number.to_bytes(4, "big") + jpeg[2:])
    return len(paths) * copies


class Torchvision:
    def __init__(self, folder, px):
        self.data = torchvision.datasets.ImageFolder(folder, transforms.Compose([
            transforms.RandomResizedCrop(px), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]))
        self.workers = torch.utils.data.DataLoader(self.data, WORKER_BATCH, num_workers=2, persistent_workers=True)
        for _ in self.workers:  # starts them
            pass

    def rate(self, cores):
        began = time.perf_counter()
        for _ in self.workers if cores == 2 else map(self.data.__getitem__, range(len(self.data))):
            pass
        return len(self.data) / (time.perf_counter() - began)


class Ours:
    def __init__(self, build, folder, px):
        self.build, self.manifest, self.px = build, folder / MANIFEST, px
        self.index(folder)

    def index(self, folder):
        """Seconds of the command, and what it says."""
        began = time.perf_counter()
        result = subprocess.run([self.build / "cli" / "advprop", "data", "index", folder], text=True,
                                stdout=subprocess.PIPE, check=True)
        return time.perf_counter() - began, result.stdout

    def load(self, threads, batch, steps, seed):
        """Images per second, bytes of the ring, peak bytes."""
        command = [self.build / "tests" / "bench" / "bench_data", self.manifest,
                   *map(str, (self.px, threads, batch, READ_AHEAD, steps, seed))]
        result = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
        rate, ring, peak = result.stdout.split()
        return float(rate), int(ring), int(peak)


def line(name, values, form="8.0f"):
    low, high = (format(value, form).strip() for value in (min(values), max(values)))
    print(f"{name:44s} {statistics.median(values):{form}}   ({low}, {high})")


def decoding(theirs, ours, images, rounds, cores):
    rates = {(name, count): [] for count in (1, 2) for name in ("theirs", "ours")}
    for i in range(rounds):
        for count in (1, 2):
            os.sched_setaffinity(0, set(cores[:count]))
            rates["theirs", count].append(theirs.rate(count))
            rates["ours", count].append(ours.load(count, WORKER_BATCH, images // WORKER_BATCH, i)[0])
    for count, how in ((1, ("no worker", "1 thread")), (2, ("2 workers", "2 threads"))):
        print(f"\ndecoding, {count} core{'s' * (count > 1)}, images/s")
        line(f"torchvision {torchvision.__version__}, {how[0]}", rates["theirs", count])
        line(f"ours, {how[1]}", rates["ours", count])
        print(f"{'ratio of the medians':44s} "
              f"{statistics.median(rates['ours', count]) / statistics.median(rates['theirs', count]):8.2f}")


def indexing(ours, folder, files, rounds):
    rates = {"first time": [], "again, unchanged": []}
    for _ in range(rounds):
        (folder / MANIFEST).unlink(missing_ok=True)
        for name, read in (("first time", files), ("again, unchanged", 0)):
            seconds, said = ours.index(folder)
            if f"read {read} images" not in said:
                raise SystemExit(f"index, {name}: {said}")
            rates[name].append(files / seconds)
    print(f"\nindex of {files} files, files/s")
    for name, values in rates.items():
        line(name, values)


def memory(ours, rounds):
    print(f"\nmemory of the loader, batch {MEMORY_BATCH}, read_ahead {READ_AHEAD}, MiB")
    for threads in (1, 2, 4):
        runs = [ours.load(threads, MEMORY_BATCH, MEMORY_STEPS, i) for i in range(rounds)]
        line(f"peak, {threads} thread{'s' * (threads > 1)}", [peak / 2**20 for _, _, peak in runs], "8.1f")
    print(f"{'ring, by arithmetic':44s} {runs[0][1] / 2**20:8.1f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--size", default="500x375")
    parser.add_argument("--cores", default="0,1")
    arguments = parser.parse_args()
    cores = [int(core) for core in arguments.cores.split(",")]
    os.sched_setaffinity(0, set(cores))
    torch.set_num_threads(1)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        images, many = pathlib.Path(folder, "images"), pathlib.Path(folder, "many")
        width, height = map(int, arguments.size.split("x"))
        paths = synthesise(images, arguments.images, width, height)
        mean_kb = sum(path.stat().st_size for path in paths) / len(paths) / 1e3
        print(f"{len(paths)} JPEGs of about {arguments.size}, {mean_kb:.0f} KB; to {arguments.px} px; "
              f"median of {arguments.rounds} rounds (lowest, highest)")
        ours = Ours(arguments.build.resolve(), images, arguments.px)
        decoding(Torchvision(images, arguments.px), ours, len(paths), arguments.rounds, cores)
        os.sched_setaffinity(0, set(cores))
        indexing(ours, many, copies_of(paths, many, arguments.copies), arguments.rounds)
        memory(ours, arguments.rounds)


if __name__ == "__main__":
    main()
