"""The training step in all its modes, written from the paper's method and our documentation (docs/method.md,
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
    "train.clean_parts": 4, "train.aux_parts": 1, "train.max_steps": 0,
    "train.weight_clean": 1, "train.weight_noise": 0.5, "train.weight_adv": "auto", "train.label_smoothing": 0,
    "attack.eps": 1, "attack.step": 1, "attack.steps": "auto", "attack.goal": "auto", "attack.bn_mode": "auto",
    "attack.reuse_gradients": "auto", "attack.shuffle": "auto", "attack.noise_prob": 0.4207,
    "mix.kind": "none", "mix.alpha": 1, "mix.noise": False, "mix.adv": False,
    "bn.sync": "stats", "bn.momentum": 0.1, "bn.eps": 1e-5,
    "optim.lr": 0.1, "optim.momentum": 0.9, "optim.weight_decay": 1e-4, "optim.nesterov": False,
    "optim.lr_factor_shared": 1, "optim.lr_factor_main": 1, "optim.lr_factor_aux": 1,
    "optim.ema_decay": 0,
}
# What "auto" means in mode advprop and in the others.
AUTO = {
    "train.weight_adv": (1, 0.5), "attack.steps": (5, 1), "attack.goal": ("targeted", "untargeted"),
    "attack.bn_mode": ("eval", "train"), "attack.reuse_gradients": (False, True), "attack.shuffle": (False, True),
}
PIXEL = 2 / 255  # 1/255 of the pixel range, in images normalised to [-1, 1]


def flat(config):
    """Options of a run.yaml by their dotted names, over the defaults."""
    out = dict(DEFAULTS)
    for key, value in config.items():
        out.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value})
    for key, (advprop, other) in AUTO.items():
        if out[key] == "auto":
            out[key] = advprop if out["train.mode"] == "advprop" else other
    return out


class Step:
    """Weights, momentum and statistics, and what a step does to them.

    config: the run.yaml as a dict; tensors: the start, {name: array}; images uint8 [n, h, w]; labels [n]."""

    def __init__(self, config, tensors, images, labels, dtype=torch.float64):
        self.c = flat(config)
        assert self.c["augment"] == "none"
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
        self.average = {name: w.detach().clone() for name, w in self.net.state_dict().items()}
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
        if not self.c["attack.reuse_gradients"]:
            noise = 0
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

    def attack_labels_of(self, ids):
        labels = self.labels_of(ids)
        if self.c["attack.goal"] == "untargeted":
            return labels
        shifts = [philox.target_shift(self.c["seed"], epoch, sample, self.classes) for epoch, sample in ids]
        return (labels + torch.tensor(shifts)) % self.classes

    def noise(self, ids):
        shape = (len(ids), *self.images.shape[1:])
        if not philox.noise_is_used(self.c["seed"], self.number, self.c["attack.noise_prob"]):
            return torch.zeros(shape, dtype=self.dtype)
        pixels = int(np.prod(shape[1:]))
        rows = [philox.pixel_noise(self.c["seed"], epoch, sample, pixels) for epoch, sample in ids]
        return torch.from_numpy(np.stack(rows)).to(self.dtype).reshape(shape) * self.eps()

    # ---- mixing

    def targets(self, labels):
        """What each class is to be, one row an image."""
        s = self.c["train.label_smoothing"]
        target = functional.one_hot(labels, self.classes).to(self.dtype)
        return target * (1 - s) + (1 - target) * s / (self.classes - 1)

    def partners(self, words, n):
        return philox.mix_partners(words, n)

    def share(self, lane, part):
        """The partner's."""
        return philox.mix_share(self.c["seed"], lane, self.number, part, self.c["mix.alpha"])

    def box(self, words, share):
        return philox.mix_box(words, share, *self.images.shape[2:])

    def mixed(self, lane, part, x, targets):
        """part: 0 clean, 1 adv, 2 + k noise pass k"""
        words = philox.mix_block(self.c["seed"], lane, self.number, part, 0)
        partners, share = self.partners(words, len(x)), self.share(lane, part)
        if self.c["mix.kind"] == "cutmix":
            inside = torch.zeros(x.shape[2:], dtype=self.dtype)
            inside[self.box(words, share)] = 1
            share = inside.mean()  # of the area
            x = torch.where(inside == 1, x[partners], x)
        else:
            x = (1 - share) * x + share * x[partners]
        return x, (1 - share) * targets + share * targets[partners]

    def batches(self, part, images, labels, mix=True):
        """[(images, targets)] of the lanes."""
        pairs = [(x, self.targets(y)) for x, y in zip(images, labels)]
        if not mix or self.c["mix.kind"] == "none":
            return pairs
        return [self.mixed(lane, part, *pair) for lane, pair in enumerate(pairs)]

    # ---- passes

    def run_pass(self, branch, x, targets):
        """Forward and backward of one batch; gradients add up in the parameters."""
        reused = branch != "noise" or self.c["attack.reuse_gradients"]
        weight = self.c["train.weight_" + branch] if reused else 1
        self.net.requires_grad_(reused)
        losses = -(targets * functional.log_softmax(self.net(x), 1)).sum(1)
        (losses.sum() * weight).backward()
        self.net.requires_grad_(True)
        self.sums[branch] += losses.sum().item()
        self.number_of[branch] += len(x)

    def over_lanes(self, branch, batches):
        """Runs the batches of the lanes, each with statistics of its own, and moves running statistics."""
        fixed = branch == "noise" and self.c["attack.bn_mode"] == "eval"
        for norm in self.norms.values():
            norm.route, norm.fixed, norm.seen = self.route_of(branch), fixed, []
        for x, targets in batches:
            self.run_pass(branch, x, targets)
        if not fixed:
            self.move_statistics(branch)

    def clean_pass(self):
        ids = [lane["clean"] for lane in self.lanes]
        batches = self.batches(0, map(self.load, ids), map(self.labels_of, ids))
        if self.c["bn.sync"] == "full":  # one batch norm over all lanes
            batches = [tuple(map(torch.cat, zip(*batches)))]
        self.over_lanes("clean", batches)

    def noise_pass(self, at, labels, k):
        """Returns the gradient of each lane's images."""
        at = [x.detach().requires_grad_() for x in at]
        self.over_lanes("noise", self.batches(2 + k, at, labels, self.c["mix.noise"]))
        self.image_gradients += [x.grad for x in at]
        return [x.grad for x in at]

    def adv_pass(self, at, labels):
        self.over_lanes("adv", self.batches(1, at, labels, self.c["mix.adv"]))

    # ---- attack

    def eps(self):
        return self.c["attack.eps"] * PIXEL

    def attack_step(self, x, at, gradient):
        step = max(self.c["attack.step"], self.c["attack.eps"] / self.c["attack.steps"]) * PIXEL
        if self.c["attack.goal"] == "targeted":  # down the loss
            step = -step
        moved = at + step * gradient.sign()
        return self.clamp(moved, x)

    def clamp(self, moved, x):
        low, high = (x - self.eps()).clamp(min=-1), (x + self.eps()).clamp(max=1)
        return torch.max(torch.min(moved, high), low)

    def attack(self):
        """The noise passes and their attack: the attacked images of every lane."""
        ids = [lane["aux"] for lane in self.lanes]
        x, labels = [self.load(i) for i in ids], [self.attack_labels_of(i) for i in ids]
        at = [image + self.noise(i) for image, i in zip(x, ids)]
        for k in range(self.c["attack.steps"]):
            gradients = self.noise_pass(at, labels, k)
            at = [self.attack_step(*lane) for lane in zip(x, at, gradients)]
        return at

    def shuffle(self, at, labels):
        """Slots are numbered lane by lane; the sizes of lanes stay."""
        if not self.c["attack.shuffle"]:
            return at, labels
        rows, row_labels = torch.cat(at), torch.cat(labels)
        sources = philox.shuffle_sources(self.c["seed"], self.number, len(rows))
        sizes = [len(lane) for lane in labels]
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

    def move_average(self):
        d = self.c["optim.ema_decay"]
        for name, w in self.net.state_dict().items():
            self.average[name].mul_(d).add_(w, alpha=1 - d)

    def run(self, number, lanes):
        """Step `number` (from 0) on lanes = [{branch: [(epoch, sample)]}]. Returns mean losses by branch."""
        self.number, self.lanes, self.norms = number, lanes, network.norms(self.net)
        self.sums = dict.fromkeys(("clean", "noise", "adv"), 0.0)
        self.number_of = dict.fromkeys(self.sums, 0)
        self.net.zero_grad()
        if not self.vanilla:
            at, labels = self.shuffle(self.attack(), [self.labels_of(lane["aux"]) for lane in lanes])
        self.clean_pass()
        if not self.vanilla:
            self.adv_pass(at, labels)
        self.sgd()
        self.move_average()
        return {branch: self.sums[branch] / max(1, self.number_of[branch]) for branch in self.sums}

    def state(self):
        """{name: float64 array} of weights, statistics, momentum and average, named as in a checkpoint."""
        tensors = {**self.net.state_dict(), **{"momentum." + k: v for k, v in self.momentum.items()}}
        if self.c["optim.ema_decay"] > 0:
            tensors.update({"ema." + k: v for k, v in self.average.items()})
        return {name: value.detach().double().numpy() for name, value in tensors.items()}
