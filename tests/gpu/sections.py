"""What tests/gpu/run checks and measures: each section yields the lines of the report, and raises if it failed.
Needs numpy.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Largest difference of a step's losses to the CPU's in fp32, relative, over small steps.
TOLERANCE = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 2e-2, "bf16": 1e-1}

# Training: `images` of `image_px`, `batch` of them a step. Speed: clean + auxiliary images and steps, of ResNet-50.
FULL = types.SimpleNamespace(images=1000, image_px=28, batch=100, width=16, resumed_steps=600, px=224,
                             shapes=[(64, 16, 30), (256, 64, 20), (64, 0, 30), (256, 0, 20)], network=[], peer=[],
                             precisions=list(TOLERANCE))
QUICK = types.SimpleNamespace(images=100, image_px=12, batch=20, width=4, resumed_steps=20, px=16,
                              shapes=[(4, 2, 1), (6, 0, 1)], network=["model.width=8", "model.stem=small"],
                              peer=["--device", "cpu", "--width", "8", "--steps", "2"], precisions=["bf16"])


class Failed(Exception):
    pass


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done


def text_of(*command):
    return run(*command).stdout


class Host:
    """The build, the sizes, and a small data set."""

    def __init__(self, build, quick, folder):
        os.environ["APD_BUILD"] = str(build)
        sys.path.insert(0, str(ROOT / "tests" / "e2e"))
        import numpy
        import support

        self.build, self.size, self.support = build, QUICK if quick else FULL, support
        self.advprop = build / "cli" / "advprop"
        self.data, self.speeds = folder / "data", folder / "speeds.json"
        self.data.mkdir()
        self.folder = self.until = None  # of the section; when it is ended (time.monotonic())
        chance = numpy.random.default_rng(1)
        for name, count in (("train", self.size.images), ("t10k", self.size.batch)):
            labels = chance.integers(0, 10, count)
            noise = chance.integers(0, 128, (count, self.size.image_px, self.size.image_px))
            images = noise + labels[:, None, None] * 12
            (self.data / f"{name}-images-idx3-ubyte").write_bytes(support.idx_bytes(images))
            (self.data / f"{name}-labels-idx1-ubyte").write_bytes(support.idx_bytes(labels))

    def config(self, name):
        """Small attacks: a pixel whose gradient is zero but for rounding goes one way or the other."""
        changes = {"model": {"width": self.size.width}, "train": {"batch": self.size.batch, "lanes": 2, "epochs": 2},
                   "attack": {"eps": 0.1, "step": 0.1}, "optim": {"lr": 1e-5}, "log": {"per_step": "on"},
                   "augment": "none", "eval": {"batch": self.size.batch}}
        return self.support.write_config(self.folder / f"{name}.yaml", self.data, **changes)

    def train(self, name, *settings, workers=1):
        """The losses of every step."""
        run = self.folder / name
        text_of(self.advprop, "train", self.config(name), *settings, "--workers", workers, "--run", run, "--quiet")
        return self.losses(run)

    def losses(self, run):
        steps = {record["step"]: record for record in self.support.records(run, "step")}
        return [[steps[number][key] for key in ("loss_clean", "loss_noise", "loss_adv")] for number in sorted(steps)]


def difference(ours, theirs):
    if len(ours) != len(theirs) or not ours:
        raise Failed(f"{len(ours)} steps beside {len(theirs)}")
    return max(abs(a - b) / abs(b) for x, y in zip(ours, theirs) for a, b in zip(x, y))


def doctor(host):
    yield text_of(host.advprop, "doctor", "--selftest")


def kernels(host):
    bad = []
    for name, *arguments in (*(("test_cuda", precision) for precision in host.size.precisions), ("test_arena",)):
        done = subprocess.run([host.build / "tests" / "kernel" / name, *arguments], capture_output=True, text=True)
        what = (*arguments, "memory")[0]
        yield f"{what}: {'pass' if done.returncode == 0 else f'exit {done.returncode}'}"
        if done.returncode != 0:
            bad.append(f"{what}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    if bad:
        raise Failed("\n".join(bad))


def against_cpu(host):
    bad = []
    theirs = host.train("cpu", "device=cpu")
    for precision, most in TOLERANCE.items():
        d = difference(host.train(precision, "device=cuda", f"cuda.precision={precision}"), theirs)
        yield f"{precision}: losses of {len(theirs)} steps differ by {d:.1e} at most; allowed {most:g}"
        if not d <= most:
            bad.append(precision)
    if bad:
        raise Failed(f"losses are not the CPU's in {', '.join(bad)}")


def resume(host):
    """A run that was drained, and one whose processes were killed, beside one that was left alone."""
    steps = host.size.resumed_steps
    epochs = steps // (host.size.images // host.size.batch)
    settings = ["device=cuda", f"train.epochs={epochs}", "checkpoint.every_s=0.5"]
    whole, parts = host.folder / "whole", host.folder / "parts"
    host.train("whole", *settings)
    command = [host.advprop, "train", host.config("parts"), *settings, "--workers", "1", "--run", parts, "--quiet"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    host.support.wait_for_step(parts, 4, process)
    for pid in host.support.pids_of(parts)["advprop-worker"]:
        host.support.kill(pid)
    seen = len(host.losses(parts))
    time.sleep(0.1)
    while process.poll() is None and len(host.losses(parts)) < seen + 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    text = process.communicate()[0]
    if process.returncode == 0:
        raise Failed(f"{steps} steps were over before the run was drained; killed only after step {seen}")
    if process.returncode != 75:
        raise Failed(f"drained: exit {process.returncode}\n{text}")
    text_of(*command)
    starts = (parts / "generation").read_text().strip()
    host.support.assert_same_state(host.support.state_of(whole), host.support.state_of(parts))
    yield f"{steps} steps, killed once and drained once ({starts} starts): weights bitwise those of a run left alone"


def two_gpus(host):
    gpus = len(json.loads(text_of(host.advprop, "doctor", "--json"))["gpus"])
    if gpus < 2:
        yield "left out: there is one GPU"
        return
    one = host.train("one", "device=cuda", "cuda.precision=fp32")
    two = host.train("two", "device=cuda", "cuda.precision=fp32", workers=2)
    d = difference(two, one)
    yield f"losses of {len(one)} steps on two GPUs differ from one GPU's by {d:.1e} at most; allowed {TOLERANCE['fp32']:g}"
    if not d <= TOLERANCE["fp32"]:
        raise Failed("losses of two workers are not one's")


def bench(host, precision, clean, aux, steps):
    """The numbers, and what the log says of cuDNN's engines and of memory."""
    done = run(host.build / "tests" / "bench" / "bench_step_device", clean, aux, host.size.px, steps, f"run={host.folder}",
               "device=cuda", f"cuda.precision={precision}", "model.arch=resnet50", *host.size.network)
    return json.loads(done.stdout), [line.split(" msg=", 1)[1] for line in done.stderr.splitlines() if " msg=" in line]


def speed(host):
    bad, speeds = [], {}
    yield f"{'':22}{'ms a step':>12}{'images/s':>12}"
    for precision in ("fp16", "bf16", "tf32"):
        for clean, aux, steps in host.size.shapes:
            name = f"{precision} {clean}+{aux} {host.size.px} px"
            try:
                got, told = bench(host, precision, clean, aux, steps)
                yield f"{name:22}{got['step_ms']:12.2f}{got['images_per_s']:12.1f}"
                yield from (f"    {line}" for line in told)
                if precision == "fp16":
                    speeds[f"{clean}+{aux}"] = got["step_ms"]
            except Failed as failed:
                yield f"{name}: failed"
                bad.append(str(failed))
    host.speeds.write_text(json.dumps(speeds))  # for torch_peer
    yield "ResNet-50; clean + auxiliary images, from pixels in the host's memory to updated weights; no decoding"
    if bad:
        raise Failed("\n".join(bad))
    yield "engines of cuDNN:"
    yield (host.folder / "engines.json").read_text()


def same_bits(host):
    """ResNet-50 twice, of which the second takes the engines that the first has kept."""
    bad = []
    for precision in ("fp16", "bf16", "fp32"):
        clean, aux, steps = host.size.shapes[0]
        losses = [bench(host, precision, clean, aux, min(steps, 5))[0]["loss"] for _ in range(2)]
        yield f"{precision} {clean}+{aux} {host.size.px} px: losses of two runs {losses[0]:.17g} and {losses[1]:.17g}"
        if losses[0] != losses[1]:
            bad.append(precision)
    if bad:
        raise Failed(f"two runs differ in {', '.join(bad)}")


def device_json(host):
    yield text_of(host.build / "tests" / "gpu" / "device_json")


def peer_lines(host):
    """What torch_peer.py prints under the first Python that has a PyTorch for it; why not, where none has."""
    shapes = [f"{clean}+{aux}" for clean, aux, _ in host.size.shapes]
    reasons = []
    for python in dict.fromkeys(filter(None, (sys.executable, shutil.which("python3"), shutil.which("/usr/bin/python3")))):
        command = [python, ROOT / "tests" / "gpu" / "torch_peer.py", "--px", host.size.px, *host.size.peer, *shapes]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, text=True)
            end = threading.Timer(max(0, host.until - time.monotonic() - 5), process.kill)
            end.start()
            yield from map(json.loads, process.stdout)
            end.cancel()
            if process.wait() == 0:
                return
            errors.seek(0)
            why = errors.read()[-3000:].strip()
        if process.returncode == -signal.SIGKILL:
            yield {"text": "ended here: no time is left"}
            return
        if process.returncode != 77:
            raise Failed(f"{python}: exit {process.returncode}\n{why}")
        reasons.append(f"{python}: {why}")
    yield {"text": "left out: " + "; ".join(reasons)}


def torch_peer(host):
    """Beside what `speed` measured in fp16. Images of PyTorch's are on the GPU already."""
    ours = json.loads(host.speeds.read_text()) if host.speeds.exists() else {}
    yield f"{'ms a step, fp16':26}{'PyTorch':>12}{'advprop':>12}{'PyTorch : advprop':>20}"
    for line in peer_lines(host):
        if "text" in line:
            yield line["text"]
            continue
        name, theirs, mine = f"{line['how']} {line['shape']} {host.size.px} px", line["step_ms"], ours.get(line["shape"])
        yield f"{name:26}{theirs:12.2f}" + (f"{mine:12.2f}{theirs / mine:20.2f}" if mine else f"{'-':>12}")


# Seconds for each. PyTorch, which compiles for minutes, is last and gets what is left.
SECTIONS = [("doctor", doctor, 60), ("operations against the reference", kernels, 150),
            ("training beside the CPU", against_cpu, 150), ("resume", resume, 120), ("same bits", same_bits, 60),
            ("two GPUs", two_gpus, 90), ("speed", speed, 180), ("device properties", device_json, 30), ("PyTorch", torch_peer, 600)]
