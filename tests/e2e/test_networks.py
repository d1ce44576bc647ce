"""The nine networks against torchvision's: parameters, logits, and training of the narrow ones."""
import pytest
import support

torch = pytest.importorskip("torch", reason="python3-torch is not installed")
pytest.importorskip("torchvision", reason="python3-torchvision is not installed")

import torch_peer  # noqa: E402

IMAGES = 4

# Parameters with 1000 classes.
NETWORKS = {
    "resnet18": 11689512, "resnet34": 21797672, "resnet50": 25557032, "resnet101": 44549160,
    "resnet152": 60192808, "resnext50_32x4d": 25028904, "resnext101_32x8d": 88791336,
    "wide_resnet50_2": 68883240, "wide_resnet101_2": 126886696,
}


def first_images(data, count):
    return torch_peer.inputs(support.read_idx(data / "t10k-images-idx3-ubyte")[:count], channels=3)


def our_logits(config, checkpoint, *arguments):
    out = config.parent / "logits.safetensors"
    support.run("eval", "--checkpoint", checkpoint, "--config", config, "--images", IMAGES, "--logits", out,
                *arguments)
    return support.read_safetensors(out)[0]["logits"]


@pytest.mark.parametrize("arch", NETWORKS)
def test_logits_are_torchvisions_from_the_same_weights(tiny_data, workdir, arch):
    torch.manual_seed(1)
    images = first_images(tiny_data, 16)
    net = torch_peer.fill(torch_peer.build(arch), images)
    parameters = sum(p.numel() for p in net.parameters()) + 990 * (net.fc.in_features + 1)
    assert parameters == NETWORKS[arch]
    config = support.write_config(workdir / "run.yaml", tiny_data, data={"channels": 3},
                                  model={"arch": arch, "width": 64, "stem": "imagenet"},
                                  train={"mode": "vanilla"}, eval={"batch": IMAGES})
    support.write_safetensors(workdir / "net.safetensors", torch_peer.state(net))
    found = our_logits(config, workdir / "net.safetensors", "--bn", "main")
    (workdir / "net.safetensors").unlink()
    with torch.no_grad():
        expected = net(images[:IMAGES]).numpy()
    assert 1 < abs(expected).max() < 20
    assert abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("arch, width", [("resnext50_32x4d", 16), ("resnext101_32x8d", 8), ("wide_resnet50_2", 8)])
def test_narrow_networks_train_alike_on_one_and_two_workers(tiny_data, workdir, arch, width):
    config = support.write_config(workdir / "run.yaml", tiny_data, data={"channels": 3},
                                  model={"arch": arch, "width": width, "stem": "small"},
                                  train={"batch": 20, "lanes": 2, "max_steps": 3}, eval={"batch": IMAGES})
    for workers in (1, 2):
        support.run("train", config, "--workers", workers, "--run", workdir / f"w{workers}", "--quiet")
    support.assert_same_state(support.state_of(workdir / "w2"), support.state_of(workdir / "w1"))
    assert "without an optimised kernel" not in (workdir / "w1" / "logs" / "rank-1.log").read_text()
    checkpoint = support.newest_checkpoint(workdir / "w1")
    tensors, _ = support.read_safetensors(checkpoint)
    images = first_images(tiny_data, IMAGES)
    for bn in ("main", "aux"):
        net = torch_peer.load(torch_peer.build(arch, width, small_stem=True), tensors, bn)
        with torch.no_grad():
            expected = net(images).numpy()
        assert abs(our_logits(config, checkpoint, "--bn", bn) - expected).max() < 1e-4 * max(1, abs(expected).max())


def test_a_width_that_groups_cannot_share_is_78(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, model={"arch": "resnext50_32x4d", "width": 24})
    done = support.run("train", config, "--workers", 1, "--run", workdir / "run", "--quiet", check=78)
    assert "groups of 24 * 4 / 64 = 1.5 channels: expected a multiple of 16" in done.stderr
