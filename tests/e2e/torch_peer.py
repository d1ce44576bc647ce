"""torchvision's networks, narrow and with the small stem as ours can be, filled with weights worth comparing."""
import numpy as np
import torch
import torchvision
from torch import nn


def build(arch, width=64, small_stem=False, channels=3, classes=10):
    """torchvision's network `arch`; its layers made anew if it is not the standard one."""
    net = getattr(torchvision.models, arch)(num_classes=classes)
    if (width, small_stem, channels) == (64, False, 3):
        return net
    stages = [getattr(net, f"layer{i + 1}") for i in range(4)]
    block = type(stages[0][0])
    net.inplanes = width
    net.conv1 = (nn.Conv2d(channels, width, 3, 1, 1, bias=False) if small_stem
                 else nn.Conv2d(channels, width, 7, 2, 3, bias=False))
    net.bn1 = nn.BatchNorm2d(width)
    if small_stem:
        net.maxpool = nn.Identity()
    for i, stage in enumerate(stages):
        setattr(net, f"layer{i + 1}", net._make_layer(block, width << i, len(stage), stride=2 if i else 1))
    net.fc = nn.Linear((width << 3) * block.expansion, classes)
    return net


def inputs(images, channels=1):
    """What the network sees of bytes [n, h, w]."""
    x = torch.from_numpy(np.array(images)).float() / 127.5 - 1
    return x.unsqueeze(1).repeat(1, channels, 1, 1)


def fill(net, images):
    """Random weights like trained ones: statistics are about those of `images`, a block changes its input a
    little. (With changes as large as the input, rounding grows a hundredfold in 50 blocks, PyTorch's too.)"""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    last = {[m for m in block.children() if isinstance(m, nn.BatchNorm2d)][-1]
            for block in net.modules() if hasattr(block, "downsample")}
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5).mul_(0.2 if norm in last else 1)
            norm.bias.normal_(0, 0.2)
            norm.momentum = 1
        net.train()(images)
        for norm in norms:
            norm.running_mean.add_(0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.25))
    return net.eval()


def state(net):
    """{name: array} of all that a checkpoint holds."""
    return {name: value.numpy() for name, value in net.state_dict().items()
            if not name.endswith("num_batches_tracked")}


def load(net, tensors, bn="main"):
    """Fills `net` from the tensors of a checkpoint, through one of its batch norms; in eval mode."""
    if bn == "aux":
        tensors = {**tensors, **{name.replace(".aux_bn.", "."): value for name, value in tensors.items()
                                 if ".aux_bn." in name}}
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()
                         if ".aux_bn." not in name and not name.startswith("momentum.")}, strict=True)
    return net.eval()
