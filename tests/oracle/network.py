"""torchvision's ResNet with a main and an auxiliary batch norm in every place of one.

The networks are assembled from torchvision's own blocks, so that names, strides and order of operations are
theirs. `route` says which batch norm the next forward pass goes through; each layer notes the statistics of its
input, because running statistics are pooled over lanes by the step.
"""
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

LAYERS = {
    "resnet18": (BasicBlock, [2, 2, 2, 2], {}),
    "resnet34": (BasicBlock, [3, 4, 6, 3], {}),
    "resnet50": (Bottleneck, [3, 4, 6, 3], {}),
    "resnet101": (Bottleneck, [3, 4, 23, 3], {}),
    "resnet152": (Bottleneck, [3, 8, 36, 3], {}),
    "resnext50_32x4d": (Bottleneck, [3, 4, 6, 3], {"groups": 32, "width_per_group": 4}),
    "wide_resnet50_2": (Bottleneck, [3, 4, 6, 3], {"width_per_group": 128}),
}


class Branch(nn.Module):
    """gamma, beta and running statistics of one batch norm."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


class SplitNorm(Branch):
    """The main branch under its plain name, the auxiliary one below `aux_bn`."""

    def __init__(self, channels, has_aux, eps):
        super().__init__(channels)
        self.eps = eps
        self.route = "main"
        self.fixed = False  # normalise by running statistics
        self.seen = []  # (count, mean, biased variance) of each pass since the last clear
        if has_aux:
            self.aux_bn = Branch(channels)

    def branch(self, route):
        return self.aux_bn if route == "aux" else self

    def forward(self, x):
        branch = self.branch(self.route)
        with torch.no_grad():
            self.seen.append((x.numel() // x.shape[1], x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)))
        statistics = (branch.running_mean, branch.running_var) if self.fixed else (None, None)
        return nn.functional.batch_norm(x, *statistics, branch.weight, branch.bias, training=not self.fixed,
                                        eps=self.eps)


class Choices(nn.Module):
    """A module that chooses (ReLU, max pool) and can note how close each choice was.

    note: a list that takes one tensor a call, the distance of every input from being treated otherwise."""

    def __init__(self, inner, distance):
        super().__init__()
        self.inner, self.distance, self.note = inner, distance, None

    def forward(self, x):
        if self.note is not None:
            with torch.no_grad():
                self.note.append(self.distance(x))
        return self.inner(x)


def relu_distance(x):
    return x.abs()


def pool_distance(x):
    """Largest of each 3x3 window minus the second largest; windows of zeros pass no gradient on."""
    windows = nn.functional.unfold(nn.functional.pad(x, (1, 1, 1, 1)), 3, stride=2)
    top = windows.view(x.shape[0], x.shape[1], 9, -1).topk(2, dim=2).values
    return torch.where(top[:, :, 0] > 0, top[:, :, 0] - top[:, :, 1], torch.full_like(top[:, :, 0], 1e3))


def build(arch, width, small_stem, channels, classes, has_aux, eps):
    block, layers, widths = LAYERS[arch]
    net = torchvision.models.ResNet(block, layers, num_classes=classes,
                                    norm_layer=lambda n: SplitNorm(n, has_aux, eps), **widths)
    net.inplanes = width
    net.conv1 = (nn.Conv2d(channels, width, 3, 1, 1, bias=False) if small_stem
                 else nn.Conv2d(channels, width, 7, 2, 3, bias=False))
    net.bn1 = SplitNorm(width, has_aux, eps)
    for i, count in enumerate(layers):
        setattr(net, f"layer{i + 1}", net._make_layer(block, width << i, count, stride=1 if i == 0 else 2))
    net.fc = nn.Linear((width << 3) * block.expansion, classes)
    net.maxpool = nn.Identity() if small_stem else Choices(nn.MaxPool2d(3, 2, 1), pool_distance)
    for module in list(net.modules()):
        if hasattr(module, "relu"):
            module.relu = Choices(nn.ReLU(), relu_distance)
    return net


def norms(net):
    """{name: SplitNorm}"""
    return {name: module for name, module in net.named_modules() if isinstance(module, SplitNorm)}


def choices(net):
    return [module for module in net.modules() if isinstance(module, Choices)]
