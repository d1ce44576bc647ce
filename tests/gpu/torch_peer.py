#!/usr/bin/python3
"""Training steps of ResNet-50 in PyTorch on one GPU, for comparison with tests/bench/bench_step_device.

    tests/gpu/torch_peer.py [--px 224] [--steps 20] [--device cpu] [--width 64] CLEAN+AUX ...

Plain steps (CLEAN+0) and Fast AdvProp's (CLEAN+AUX: noise pass with the gradient of the images, attack, clean and
attacked pass, each with its batch norm), in channels_last with autocast to fp16 and a gradient scaler: eager, eager
with deterministic engines, as ours are (neither is timed beforehand), and with torch.compile where there is one. Images are random and on the GPU already; ours come from the host's memory.
Prints JSON lines: the median ms of a step, or a text. Exit status 77: no PyTorch that can, and why.
--device cpu (bf16, no scaler) and --width are for seeing that this program runs.
"""
import argparse
import json
import statistics
import sys
import time

try:
    import torch
    import torchvision
    from torch import nn
except ImportError as problem:
    print(problem, file=sys.stderr)
    sys.exit(77)

EPS, WARM_UP = 2 / 255, 8


class SplitNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.main, self.aux, self.route = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels), "main"

    def forward(self, x):
        return (self.main if self.route == "main" else self.aux)(x)


def build(width):
    net = torchvision.models.resnet50(norm_layer=SplitNorm)
    if width == 64:
        return net
    stages = [getattr(net, f"layer{i + 1}") for i in range(4)]
    net.inplanes, net.conv1, net.bn1 = width, nn.Conv2d(3, width, 7, 2, 3, bias=False), SplitNorm(width)
    for i, stage in enumerate(stages):
        setattr(net, f"layer{i + 1}", net._make_layer(type(stage[0]), width << i, len(stage), stride=2 if i else 1))
    net.fc = nn.Linear(width << 5, 1000)
    return net


class Trainer:
    def __init__(self, arguments, compiled):
        torch.manual_seed(1)
        self.device, self.steps = arguments.device, arguments.steps
        self.net = build(arguments.width).to(self.device).to(memory_format=torch.channels_last).train()
        self.norms = [module for module in self.net.modules() if isinstance(module, SplitNorm)]
        self.forward = self.net
        if compiled:
            torch._dynamo.reset()  # or the second shape would be compiled for any shape
            self.forward = torch.compile(self.net, dynamic=False)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-5)
        self.dtype = torch.float16 if self.device == "cuda" else torch.bfloat16
        scaler = torch.amp.GradScaler if hasattr(torch.amp, "GradScaler") else torch.cuda.amp.GradScaler
        self.scaler = scaler(enabled=self.device == "cuda")

    def backward(self, x, y, weight, route):
        for norm in self.norms:
            norm.route = route
        with torch.autocast(self.device, dtype=self.dtype):
            loss = weight * nn.functional.cross_entropy(self.forward(x), y, reduction="sum")
        self.scaler.scale(loss).backward()

    def step(self, x, y, clean):
        count = len(x)
        self.optimizer.zero_grad(set_to_none=True)
        if clean < count:
            plain = x[clean:]
            noisy = (plain + torch.empty_like(plain).uniform_(-EPS, EPS)).requires_grad_()
            self.backward(noisy, y[clean:], 0.5 / count, "aux")
            with torch.no_grad():
                adv = noisy + EPS * noisy.grad.sign()
                adv = torch.max(torch.min(adv, (plain + EPS).clamp(max=1)), (plain - EPS).clamp(min=-1))
        self.backward(x[:clean], y[:clean], 1 / count, "main")
        if clean < count:
            self.backward(adv, y[clean:], 0.5 / count, "aux")
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def measure(self, clean, aux, px):
        x = (torch.rand(clean + aux, 3, px, px, device=self.device) * 2 - 1).to(memory_format=torch.channels_last)
        y = torch.randint(0, 1000, (clean + aux,), device=self.device)
        times = []
        for _ in range(WARM_UP + self.steps):
            self.wait()
            began = time.perf_counter()
            self.step(x, y, clean)
            self.wait()
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times[WARM_UP:])


def tell(**line):
    print(json.dumps(line), flush=True)


def versions(device):
    if device == "cpu":
        return f"PyTorch {torch.__version__} on the CPU"
    return f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}"


def measure(arguments, how, shape):
    clean, aux = map(int, shape.split("+"))
    torch.backends.cudnn.deterministic = how == "deterministic"
    torch.backends.cudnn.benchmark = how != "deterministic"
    try:
        ms = Trainer(arguments, how == "compiled").measure(clean, aux, arguments.px)
    except Exception as problem:  # out of memory, no compiler: the other measurements go on
        tell(text=f"{how} {shape}: {type(problem).__name__}: {str(problem).strip().splitlines()[0]}")
        return
    tell(how=how, shape=shape, step_ms=ms)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("shapes", nargs="+", metavar="CLEAN+AUX")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} has no GPU", file=sys.stderr)
        return 77
    tell(text=versions(arguments.device))
    for how in ("eager", "deterministic"):
        for shape in arguments.shapes:
            measure(arguments, how, shape)
    if not hasattr(torch, "compile"):
        tell(text="no torch.compile: it came with PyTorch 2.0")
        return 0
    for shape in arguments.shapes:
        measure(arguments, "compiled", shape)
    return 0


if __name__ == "__main__":
    sys.exit(main())
