#!/usr/bin/python3
"""Training steps of ResNet-50 in PyTorch on one GPU, for comparison with tests/bench/bench_step_device.

Plain steps (CLEAN+0) and Fast AdvProp's (CLEAN+AUX: noise pass with the gradient of the images, attack, clean and
attacked pass, each with its batch norm), in channels_last with autocast to fp16 and a gradient scaler, eager and with
torch.compile where there is one. Images are random and on the GPU already; ours come from the host's memory.
Prints the median ms of a step and images/s.
"""
import statistics
import sys
import time

import torch
import torchvision
from torch import nn

EPS, PX, STEPS, WARM_UP = 2 / 255, 224, 20, 8


class SplitNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.main, self.aux, self.route = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels), "main"

    def forward(self, x):
        return (self.main if self.route == "main" else self.aux)(x)


class Trainer:
    def __init__(self, compiled):
        torch.manual_seed(1)
        self.net = torchvision.models.resnet50(norm_layer=SplitNorm).cuda().to(memory_format=torch.channels_last).train()
        self.norms = [module for module in self.net.modules() if isinstance(module, SplitNorm)]
        self.forward = torch.compile(self.net) if compiled else self.net
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-5)
        self.scaler = torch.cuda.amp.GradScaler()

    def backward(self, x, y, weight, route):
        for norm in self.norms:
            norm.route = route
        with torch.autocast("cuda", dtype=torch.float16):
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

    def measure(self, clean, aux):
        x = (torch.rand(clean + aux, 3, PX, PX, device="cuda") * 2 - 1).to(memory_format=torch.channels_last)
        y = torch.randint(0, 1000, (clean + aux,), device="cuda")
        times = []
        for _ in range(WARM_UP + STEPS):
            torch.cuda.synchronize()
            began = time.perf_counter()
            self.step(x, y, clean)
            torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times[WARM_UP:])


def main():
    if not torch.cuda.is_available():
        print("this PyTorch has no GPU")
        return 0
    torch.backends.cudnn.benchmark = True
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}")
    for compiled in (False, True) if hasattr(torch, "compile") else (False,):
        for clean, aux in ((64, 16), (256, 64), (64, 0), (256, 0)):
            ms = Trainer(compiled).measure(clean, aux)
            print(f"{'compiled' if compiled else 'eager'} fp16 {clean}+{aux} {PX} px: {ms:.2f} ms a step, "
                  f"{1000 * (clean + aux) / ms:.1f} images/s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
