"""Images a second of every corruption on one core, without reading and writing files. Not a test.

Usage: bench_corrupt.py BUILD [--rounds N]. The mean over the five severities of the median of N images, 28 x 28 grey
and 224 x 224 RGB.
"""
import argparse
import os
import pathlib
import statistics
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parents[1] / folder) for folder in ("e2e", "oracle")]


def milliseconds(tool, image, name, rounds):
    medians = [statistics.median(tool.run(image, name, severity, 0, sample)[0] for sample in range(rounds))
               for severity in range(1, 6)]
    return statistics.mean(medians)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    os.environ["APD_BUILD"] = str(arguments.build.resolve())
    import corrupt_tool
    import corruptions

    tool = corrupt_tool.Tool()
    images = [corrupt_tool.photograph(28, 28, 1), corrupt_tool.photograph(224, 224, 3)]
    sums = [0, 0]
    print(f"{'images/s':20s} {'28 px':>8s} {'224 px':>8s}")
    for i, name in enumerate(corruptions.NAMES):
        took = [milliseconds(tool, image, name, arguments.rounds) for image in images]
        print(f"{name:20s} {1000 / took[0]:8.0f} {1000 / took[1]:8.0f}")
        sums = [total + ms for total, ms in zip(sums, took)] if i < 15 else sums
    print(f"{'the first 15':20s} {15000 / sums[0]:8.0f} {15000 / sums[1]:8.0f}")
    tool.close()


if __name__ == "__main__":
    main()
