#!/usr/bin/python3
"""One Fast AdvProp step: PyTorch beside ours, in one run.

    tests/bench/bench_step.py BUILD_DIR [--rounds 3] [--steps 30]

The step of deploy/fashion-mnist.yaml: ResNet-18, a quarter of the width, 28 px, 128 clean + 32 auxiliary images
in 4 lanes, noise pass, attack, clean and adv pass, SGD. PyTorch runs the same lanes as the authors' script runs
its GPUs' batches, in three passes of 2 threads, in both memory formats. Prints the median ms of a step and the
ratio to the better of PyTorch's; rounds alternate, so that a busy minute hits everybody. Not a test.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
import torchvision
from torch import nn

LANES, CLEAN, AUX, WIDTH, PX, CLASSES = 4, 32, 8, 16, 28, 10
EPS = 2 / 255


class SplitNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.main, self.aux, self.route = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels), "main"

    def forward(self, x):
        return (self.main if self.route == "main" else self.aux)(x)


def build():
    net = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2],
                                    num_classes=CLASSES, norm_layer=SplitNorm)
    net.inplanes = WIDTH
    net.conv1, net.bn1 = nn.Conv2d(1, WIDTH, 3, 1, 1, bias=False), SplitNorm(WIDTH)
    net.maxpool = nn.Identity()
    for i in range(4):
        layer = net._make_layer(torchvision.models.resnet.BasicBlock, WIDTH << i, 2, stride=2 if i else 1)
        setattr(net, f"layer{i + 1}", layer)
    net.fc = nn.Linear(WIDTH << 3, CLASSES)
    return net


class Peer:
    def __init__(self, memory_format):
        torch.manual_seed(1)
        self.format = memory_format
        self.net = build().to(memory_format=memory_format).train()
        self.norms = [module for module in self.net.modules() if isinstance(module, SplitNorm)]
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def backward(self, x, y, weight, route):
        for norm in self.norms:
            norm.route = route
        loss = weight * nn.functional.cross_entropy(self.net(x), y, reduction="sum")
        loss.backward()

    def step(self, x, y):
        count = LANES * (CLEAN + AUX)
        self.optimizer.zero_grad(set_to_none=True)
        attacked = []
        for lane in range(LANES):
            clean = x[lane, CLEAN:]
            noisy = (clean + torch.empty_like(clean).uniform_(-EPS, EPS)).requires_grad_()
            self.backward(noisy, y[lane, CLEAN:], 0.5 / count, "aux")
            with torch.no_grad():
                adv = noisy + EPS * noisy.grad.sign()
                attacked.append(torch.max(torch.min(adv, (clean + EPS).clamp(max=1)), (clean - EPS).clamp(min=-1)))
        order = torch.randperm(LANES * AUX)
        adv, adv_y = torch.cat(attacked)[order], y[:, CLEAN:].reshape(-1)[order]
        for lane in range(LANES):
            self.backward(x[lane, :CLEAN].contiguous(memory_format=self.format), y[lane, :CLEAN], 1 / count, "main")
            part = slice(lane * AUX, (lane + 1) * AUX)
            self.backward(adv[part].contiguous(memory_format=self.format), adv_y[part], 0.5 / count, "aux")
        self.optimizer.step()

    def run(self, steps):
        times = []
        for _ in range(steps + 5):
            x = torch.rand(LANES, CLEAN + AUX, 1, PX, PX) * 2 - 1
            y = torch.randint(0, CLASSES, (LANES, CLEAN + AUX))
            began = time.perf_counter()
            self.step(x, y)
            times.append(1000 * (time.perf_counter() - began))
        return times[5:]


class Ours:
    def __init__(self, build_dir, workers):
        self.command = [build_dir / "cli" / "advprop", "train",
                        pathlib.Path(__file__).parents[2] / "deploy" / "fashion-mnist.yaml",
                        "--workers", str(workers), "--quiet", "log.per_step=on", "eval.attack_steps=0"]

    def run(self, steps):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*map(str, self.command), "--run", folder + "/run", f"train.max_steps={steps + 5}"],
                           check=True, stdout=subprocess.DEVNULL)
            lines = pathlib.Path(folder, "run", "metrics.jsonl").read_text().splitlines()
        records = [record for record in map(json.loads, lines) if record["kind"] == "step"]
        return [record["step_ms"] for record in records][5:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    build_dir = arguments.build.resolve()
    runners = {
        "PyTorch, default layout, 2 threads": Peer(torch.contiguous_format),
        "PyTorch, channels_last, 2 threads": Peer(torch.channels_last),
        "advprop, 1 worker of 2 threads": Ours(build_dir, 1),
        "advprop, 2 workers of 1 thread": Ours(build_dir, 2),
    }
    times = {name: [] for name in runners}
    for _ in range(arguments.rounds):
        for name, runner in runners.items():
            times[name] += runner.run(arguments.steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min(value for name, value in medians.items() if name.startswith("PyTorch"))
    print(f"torch {torch.__version__}; ms of a step of {LANES * (CLEAN + AUX)} images, median of "
          f"{arguments.rounds} x {arguments.steps}")
    for name, value in medians.items():
        print(f"{name:36s} {value:8.1f} ms   {best / value:5.2f} x the better PyTorch")


if __name__ == "__main__":
    main()
