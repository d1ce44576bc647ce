#!/usr/bin/python3
"""The three modes at the same budget on Fashion-MNIST: accuracy, robustness and time, over some seeds.

    tests/bench/modes.py BUILD_DIR --out DIR [--epochs 15] [--seeds 3] [--workers 1] [key=value ...]

Trains deploy/fashion-mnist.yaml in every mode with `train.budget: same` and seeds 1, 2, ...; --epochs is what vanilla
gets. Further key=value go to `advprop train`. Runs lie in DIR/MODE-SEED; finished ones are not run again, others go
on, so give a new DIR for other settings. Prints mean +- standard deviation over seeds. Not a test.
"""
import argparse
import json
import pathlib
import statistics
import subprocess

MODES = ("vanilla", "advprop", "fast_advprop")
ROOT = pathlib.Path(__file__).resolve().parents[2]


def status(run):
    path = run / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def train(arguments, mode, seed, run):
    if status(run).get("exit_status") == 0:
        return
    subprocess.run([arguments.build / "cli" / "advprop", "train", ROOT / "deploy" / "fashion-mnist.yaml", "--quiet",
                    "--run", run, "--workers", str(arguments.workers), f"train.mode={mode}", f"seed={seed}",
                    f"train.epochs={arguments.epochs}", "train.budget=same", "log.per_step=on", "eval.every_epochs=0",
                    *arguments.options], check=True)


def results(run):
    """{column: number} of a finished run."""
    accuracy = {one["name"]: 100 * one["top1"] / one["images"] for one in status(run)["evaluation"]}
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    # After a restart a later record of a step replaces the earlier one.
    ms = {record["step"]: record["step_ms"] for record in records if record["kind"] == "step"}
    return {"main BN, %": accuracy["main"],
            "main BN under PGD-10, %": accuracy["main-pgd10"], "aux BN, %": accuracy.get("aux"),
            "training, s": sum(ms.values()) / 1000}


def cell(values):
    if None in values:
        return ""
    spread = f" +- {statistics.stdev(values):.2f}" if len(set(values)) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("options", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    rows = {}
    for seed in range(1, arguments.seeds + 1):
        for mode in MODES:
            run = arguments.out / f"{mode}-{seed}"
            train(arguments, mode, seed, run)
            rows.setdefault(f"{mode}, {status(run)['epochs_total']}", []).append(results(run))
    columns = list(results(run))
    print("| " + " | ".join(["mode, epochs", *columns]) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for mode, runs in rows.items():
        print("| " + " | ".join([mode, *(cell([run[column] for run in runs]) for column in columns)]) + " |")


if __name__ == "__main__":
    main()
