"""The training step of Fast AdvProp, written from the paper's method and our documentation (docs/method.md,
docs/data.md, docs/run-yaml.md), not from our C. Plain and slow: a pass at a time, a lane at a time, in double
precision if asked. The methods of Step are small so that a test can override one of them with an error.
"""
import numpy as np
import torch
from torch.nn import functional

import network
import philox

DEFAULTS = {
    "seed": 0, "augment": "crop_flip", "init_from": "",
    "model.arch": "resnet50", "model.width": 64, "model.stem": "imagenet", "data.channels": 0,
    "train.mode": "fast_advprop", "train.lanes": 4,
    "train.weight_clean": 1, "train.weight_noise": 0.5, "train.weight_adv": 0.5, "train.label_smoothing": 0,
    "attack.eps": 1, "attack.step": 1, "attack.steps": 1, "attack.noise_prob": 0.4207, "attack.shuffle": True,
    "bn.sync": "stats", "bn.momentum": 0.1, "bn.eps": 1e-5,
    "optim.lr": 0.1, "optim.momentum": 0.9, "optim.weight_decay": 1e-4, "optim.nesterov": False,
    "optim.lr_factor_shared": 1, "optim.lr_factor_main": 1, "optim.lr_factor_aux": 1,
}
PIXEL = 2 / 255  # 1/255 of the pixel range, in images normalised to [-1, 1]


def flat(config):
    """Options of a run.yaml by their dotted names, over the defaults."""
    out = dict(DEFAULTS)
    for key, value in config.items():
        out.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value})
    return out


def parse_plan(text):
    """[step][lane] = {branch: [(epoch, sample)]} of the output of `advprop data plan`, steps in order."""
    steps = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            step, lane, branch, images = line.split("\t")
            steps.setdefault(int(step), {}).setdefault(int(lane), {})[branch] = [
                tuple(map(int, image.split(":"))) for image in images.split()]
    return [[steps[step][lane] for lane in sorted(steps[step])] for step in sorted(steps)]


class Step:
    """Weights, momentum and statistics, and what a step does to them.

    config: the run.yaml as a dict; tensors: the start, {name: array}; images uint8 [n, h, w]; labels [n]."""

    def __init__(self, config, tensors, images, labels, dtype=torch.float64):
        self.c = flat(config)
        assert self.c["augment"] == "none" and self.c["train.mode"] in ("vanilla", "fast_advprop")
        self.dtype = dtype
        self.images = images[:, None].repeat(max(1, self.c["data.channels"]), axis=1)
        self.labels = labels
        self.classes = int(labels.max()) + 1
        self.vanilla = self.c["train.mode"] == "vanilla"
        self.net = network.build(self.c["model.arch"], self.c["model.width"], self.c["model.stem"] == "small",
                                 self.images.shape[1], self.classes, not self.vanilla, self.c["bn.eps"])
        state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
        self.net.load_state_dict(state, strict=True)
        self.net.to(dtype)
        self.parameters = dict(self.net.named_parameters())
        self.momentum = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.image_gradients = []  # of every noise pass, for the test's look at close choices

    # ---- what belongs to what

    def set_of(self, name):
        """The parameter set that a parameter belongs to."""
        if ".aux_bn." in name:
            return "aux"
        owner = self.net.get_submodule(name.rsplit(".", 1)[0])
        return "main" if isinstance(owner, network.SplitNorm) and not self.vanilla else "shared"

    def route_of(self, branch):
        return "main" if branch == "clean" else "aux"

    def counts(self):
        """Weighted image counts that the summed gradients are divided by."""
        clean = self.images_in("clean") * self.c["train.weight_clean"]
        noise = self.images_in("aux") * self.c["train.weight_noise"] * self.c["attack.steps"]
        adv = self.images_in("aux") * self.c["train.weight_adv"]
        return {"shared": clean + noise + adv, "main": clean, "aux": noise + adv}

    def images_in(self, branch):
        return sum(len(lane.get(branch, [])) for lane in self.lanes)

    # ---- input

    def load(self, ids):
        pixels = self.images[[sample for _, sample in ids]]
        return (torch.from_numpy(pixels).to(self.dtype) / 255 - 0.5) / 0.5

    def labels_of(self, ids):
        return torch.from_numpy(self.labels[[sample for _, sample in ids]].astype(np.int64))

    def noise(self, ids, number):
        shape = (len(ids), *self.images.shape[1:])
        if not philox.noise_is_used(self.c["seed"], number, self.c["attack.noise_prob"]):
            return torch.zeros(shape, dtype=self.dtype)
        pixels = int(np.prod(shape[1:]))
        rows = [philox.pixel_noise(self.c["seed"], epoch, sample, pixels) for epoch, sample in ids]
        return torch.from_numpy(np.stack(rows)).to(self.dtype).reshape(shape) * self.eps()

    # ---- passes

    def losses(self, logits, labels):
        """Cross-entropy of each image."""
        s = self.c["train.label_smoothing"]
        target = functional.one_hot(labels, self.classes).to(self.dtype)
        target = target * (1 - s) + (1 - target) * s / (self.classes - 1)
        return -(target * functional.log_softmax(logits, 1)).sum(1)

    def run_pass(self, branch, x, labels):
        """Forward and backward of one batch; gradients add up in the parameters. Returns the summed loss."""
        for norm in self.norms.values():
            norm.route = self.route_of(branch)
        each = self.losses(self.net(x), labels)
        (each.sum() * self.c["train.weight_" + branch]).backward()
        self.sums[branch] += each.sum().item()
        self.number_of[branch] += len(labels)

    def over_lanes(self, branch, batches):
        """Runs [(x, labels)] of the lanes, each with statistics of its own, and moves running statistics."""
        for x, labels in batches:
            self.run_pass(branch, x, labels)
        self.move_statistics(branch)

    def clean_pass(self):
        ids = [lane["clean"] for lane in self.lanes]
        if self.c["bn.sync"] == "full":  # one batch norm over all lanes
            ids = [sum(ids, [])]
        self.over_lanes("clean", [(self.load(i), self.labels_of(i)) for i in ids])

    def noise_pass(self, at, labels):
        """Returns the gradient of each lane's images."""
        at = [x.detach().requires_grad_() for x in at]
        self.over_lanes("noise", list(zip(at, labels)))
        self.image_gradients += [x.grad for x in at]
        return [x.grad for x in at]

    # ---- attack

    def eps(self):
        return self.c["attack.eps"] * PIXEL

    def attack_step(self, x, at, gradient):
        step = max(self.c["attack.step"], self.c["attack.eps"] / self.c["attack.steps"]) * PIXEL
        moved = at + step * gradient.sign()
        return self.clamp(moved, x)

    def clamp(self, moved, x):
        low, high = (x - self.eps()).clamp(min=-1), (x + self.eps()).clamp(max=1)
        return torch.max(torch.min(moved, high), low)

    def attack(self, number):
        """The noise passes and their attack: images and labels of every lane."""
        ids = [lane["aux"] for lane in self.lanes]
        x, labels = [self.load(i) for i in ids], [self.labels_of(i) for i in ids]
        at = [image + self.noise(i, number) for image, i in zip(x, ids)]
        for _ in range(self.c["attack.steps"]):
            gradients = self.noise_pass(at, labels)
            at = [self.attack_step(*lane) for lane in zip(x, at, gradients)]
        return at, labels

    def shuffle(self, number, at, labels):
        """Slots are numbered lane by lane; the sizes of lanes stay."""
        rows, row_labels = torch.cat(at), torch.cat(labels)
        sources = range(len(rows))
        if self.c["attack.shuffle"]:
            sources = philox.shuffle_sources(self.c["seed"], number, len(rows))
        sizes = [len(lane) for lane in labels]
        sources = list(sources)
        return rows[sources].split(sizes), row_labels[sources].split(sizes)

    # ---- statistics

    def unbiased(self, var, n):
        return var * n / (n - 1)

    def pooled(self, seen):
        """Mean and unbiased variance over all lanes (bn.sync none: of lane 0)."""
        if self.c["bn.sync"] == "none":
            seen = seen[:1]
        n = sum(count for count, _, _ in seen)
        mean = sum(count * m for count, m, _ in seen) / n
        var = sum(count * (v + (m - mean) ** 2) for count, m, v in seen) / n
        return mean, self.unbiased(var, n)

    def move_statistics(self, branch):
        momentum = self.c["bn.momentum"]
        for norm in self.norms.values():
            mean, var = self.pooled(norm.seen)
            norm.seen.clear()
            where = norm.branch(self.route_of(branch))
            where.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
            where.running_var.mul_(1 - momentum).add_(var, alpha=momentum)

    # ---- the step

    def sgd(self):
        counts = self.counts()
        mu = self.c["optim.momentum"]
        with torch.no_grad():
            for name, w in self.parameters.items():
                which = self.set_of(name)
                g = w.grad / counts[which] + self.c["optim.weight_decay"] * w
                m = self.momentum[name].mul_(mu).add_(g)
                lr = self.c["optim.lr"] * self.c["optim.lr_factor_" + which]
                w -= lr * (g + mu * m if self.c["optim.nesterov"] else m)

    def run(self, number, lanes):
        """Step `number` (from 0) on lanes = [{branch: [(epoch, sample)]}]. Returns mean losses by branch."""
        self.lanes, self.norms = lanes, network.norms(self.net)
        self.sums = dict.fromkeys(("clean", "noise", "adv"), 0.0)
        self.number_of = dict.fromkeys(self.sums, 0)
        self.net.zero_grad()
        if not self.vanilla:
            at, labels = self.shuffle(number, *self.attack(number))
        self.clean_pass()
        if not self.vanilla:
            self.over_lanes("adv", list(zip(at, labels)))
        self.sgd()
        return {branch: self.sums[branch] / max(1, self.number_of[branch]) for branch in self.sums}

    def state(self):
        """{name: float64 array} of weights, statistics and momentum, named as in a checkpoint."""
        tensors = {**self.net.state_dict(), **{"momentum." + k: v for k, v in self.momentum.items()}}
        return {name: value.detach().double().numpy() for name, value in tensors.items()}
