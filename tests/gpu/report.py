#!/usr/bin/python3
"""The sections of tests/gpu/run and their report. Each runs whatever became of the others."""
import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Largest difference of a step's losses to the CPU's in fp32, relative, over 20 small steps.
TOLERANCE = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 2e-2, "bf16": 1e-1}


class Failed(Exception):
    pass


def text_of(*command, check=True, timeout=900, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout, **options)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


class Host:
    """The build, the sizes, and a small data set."""

    def __init__(self, build, quick, folder):
        os.environ["APD_BUILD"] = str(build)
        sys.path.insert(0, str(ROOT / "tests" / "e2e"))
        import numpy
        import support

        self.build, self.quick, self.folder, self.support = build, quick, folder, support
        self.facts = json.loads(text_of(build / "cli" / "advprop", "doctor", "--json"))
        self.gpus = len(self.facts["gpus"])
        self.data = folder / "data"
        self.data.mkdir()
        chance = numpy.random.default_rng(1)
        for name, count in (("train", 1000), ("t10k", 100)):
            labels = chance.integers(0, 10, count)
            noise = chance.integers(0, 128, (count, 28, 28))
            images = noise + labels[:, None, None] * 12
            (self.data / f"{name}-images-idx3-ubyte").write_bytes(support.idx_bytes(images))
            (self.data / f"{name}-labels-idx1-ubyte").write_bytes(support.idx_bytes(labels))

    def config(self, name, **changes):
        path = self.folder / f"{name}.yaml"
        base = {"model": {"width": 4 if self.quick else 16}, "train": {"batch": 100, "lanes": 2, "epochs": 2},
                "optim": {"lr": 1e-5}, "log": {"per_step": "on"}, "augment": "none"}
        return self.support.write_config(path, self.data, **self.support.merged(base, changes))

    def train(self, name, *settings, workers=1):
        """The losses of every step."""
        run = self.folder / name
        text_of(self.build / "cli" / "advprop", "train", self.config(name), *settings, "--workers", workers, "--run", run,
                "--quiet")
        return self.losses(run)

    def losses(self, run):
        steps = {record["step"]: record for record in self.support.records(run, "step")}
        return [[steps[number][key] for key in ("loss_clean", "loss_noise", "loss_adv")] for number in sorted(steps)]


def difference(ours, theirs):
    if len(ours) != len(theirs) or not ours:
        raise Failed(f"{len(ours)} steps beside {len(theirs)}")
    return max(abs(a - b) / abs(b) for x, y in zip(ours, theirs) for a, b in zip(x, y))


def doctor(host):
    return text_of(host.build / "cli" / "advprop", "doctor", "--selftest")


def kernels(host):
    lines, bad = [], []
    for precision in ("fp32",) if host.quick else ("fp32", "tf32", "fp16", "bf16"):
        done = subprocess.run([host.build / "tests" / "kernel" / "test_cuda", precision], capture_output=True, text=True,
                              timeout=900)
        lines.append(f"{precision}: {'pass' if done.returncode == 0 else f'exit {done.returncode}'}")
        if done.returncode != 0:
            bad.append(f"{precision}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    if bad:
        raise Failed("\n".join(lines + bad))
    return "\n".join(lines)


def against_cpu(host):
    lines, bad = [], False
    theirs = host.train("cpu", "device=cpu")
    for precision in ("fp32", "fp16") if host.quick else TOLERANCE:
        d = difference(host.train(precision, "device=cuda", f"cuda.precision={precision}"), theirs)
        bad |= not d <= TOLERANCE[precision]
        lines.append(f"{precision}: losses of {len(theirs)} steps differ by {d:.1e} at most; allowed {TOLERANCE[precision]:g}")
    if bad:
        raise Failed("\n".join(lines))
    return "\n".join(lines)


def resume(host):
    """A run that was drained, and one whose processes were killed, beside one that was left alone."""
    steps = 20 if host.quick else 600
    settings = ["device=cuda", f"train.epochs={steps // 10}", "checkpoint.every_s=0.5"]
    whole, parts = host.folder / "whole", host.folder / "parts"
    host.train("whole", *settings)
    command = [host.build / "cli" / "advprop", "train", host.config("parts"), *settings, "--workers", "1", "--run", parts,
               "--quiet"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    host.support.wait_for_step(parts, 4, process)
    for pid in host.support.pids_of(parts)["advprop-worker"]:
        os.kill(pid, signal.SIGKILL)
    seen = len(host.losses(parts))
    time.sleep(0.1)
    while process.poll() is None and len(host.losses(parts)) < seen + 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=300)[0]
    if process.returncode == 0:
        raise Failed(f"{steps} steps were over before the run was drained; killed only after step {seen}")
    if process.returncode != 75:
        raise Failed(f"drained: exit {process.returncode}\n{text}")
    text_of(*command)
    generations = (parts / "generation").read_text().strip()
    host.support.assert_same_state(host.support.state_of(whole), host.support.state_of(parts))
    return f"{steps} steps, killed once and drained once ({generations} starts): weights bitwise those of a run left alone"


def two_gpus(host):
    if host.gpus < 2:
        return "left out: there is one GPU"
    one = host.train("one", "device=cuda", "cuda.precision=fp32")
    two = host.train("two", "device=cuda", "cuda.precision=fp32", workers=2)
    d = difference(two, one)
    if not d <= TOLERANCE["fp32"]:
        raise Failed(f"losses of two workers differ from one's by {d:.1e}")
    return f"losses of 20 steps on two GPUs differ from one GPU's by {d:.1e} at most"


def speed(host):
    rows = [f"{'':22}{'ms a step':>12}{'images/s':>12}"]
    shapes = [(4, 1, 16, 2)] if host.quick else [(64, 16, 224, 30), (256, 64, 224, 20), (64, 0, 224, 30), (256, 0, 224, 20)]
    network = ["model.arch=resnet18", "model.width=8", "model.stem=small"] if host.quick else ["model.arch=resnet50"]
    bad = []
    for precision in ("fp16",) if host.quick else ("fp16", "bf16", "tf32"):
        for clean, aux, px, steps in shapes:
            try:
                got = json.loads(text_of(host.build / "tests" / "bench" / "bench_step_device", clean, aux, px, steps,
                                         "device=cuda", f"cuda.precision={precision}", *network))
                rows.append(f"{precision + f' {clean}+{aux} {px} px':22}{got['step_ms']:12.2f}{got['images_per_s']:12.1f}")
            except Failed as failed:
                rows.append(f"{precision} {clean}+{aux} {px} px: failed")
                bad.append(str(failed))
    rows.append("clean + auxiliary images, from pixels in the host's memory to updated weights; no decoding")
    if bad:
        raise Failed("\n".join(rows + bad))
    return "\n".join(rows)


def torch_peer(host):
    if host.quick or importlib.util.find_spec("torch") is None:
        return "left out: " + ("quick" if host.quick else "PyTorch is not installed for /usr/bin/python3")
    return text_of(sys.executable, ROOT / "tests" / "gpu" / "torch_peer.py")


def device_json(host):
    return text_of(host.build / "tests" / "gpu" / "device_json")


SECTIONS = [("doctor", doctor), ("operations against the reference", kernels), ("training beside the CPU", against_cpu),
            ("resume", resume), ("two GPUs", two_gpus), ("speed", speed), ("PyTorch", torch_peer),
            ("device properties", device_json)]


def heading(host):
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    smi = "none"
    try:
        smi = text_of("nvidia-smi", "--query-gpu=name,driver_version,power.limit,clocks.max.sm", "--format=csv,noheader")
    except (OSError, Failed):
        pass
    return [f"advpropd on GPUs, {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
            + (", quick: speeds mean nothing" if host.quick else ""),
            f"commit {commit.stdout.strip() or 'unknown'}, {platform.platform()}, {os.cpu_count()} CPU cores",
            f"nvidia-smi: {smi.strip()}"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        host = Host(arguments.build.resolve(), arguments.quick, pathlib.Path(folder))
        parts = heading(host)
        for name, section in SECTIONS:
            began = time.monotonic()
            try:
                verdict, text = "ok", section(host)
            except Exception as problem:  # the other sections go on
                verdict, text = "FAILED", f"{type(problem).__name__}: {problem}"
                failed.append(name)
            took = time.monotonic() - began
            print(f"{name}: {verdict} ({took:.0f} s)", flush=True)
            parts.append(f"\n== {name}: {verdict} ({took:.0f} s)\n{text.rstrip()}")
    parts.append(f"\n{len(SECTIONS) - len(failed)} of {len(SECTIONS)} sections ok"
                 + (f"; failed: {', '.join(failed)}" if failed else ""))
    arguments.out.write_text("\n".join(parts) + "\n")
    print(f"{parts[-1].strip()}; report: {arguments.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
