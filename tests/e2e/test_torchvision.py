"""PyTorch reads our checkpoint: torchvision's resnet18, strictly, and the same logits."""
import pytest
import support

torch = pytest.importorskip("torch", reason="python3-torch is not installed")
torchvision = pytest.importorskip("torchvision", reason="python3-torchvision is not installed")

import torch_peer  # noqa: E402

IMAGES = 16


def test_standard_resnet18_loads_strictly_and_gives_our_logits(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, augment="none",
                                  model={"width": 64, "stem": "imagenet"},
                                  data={"channels": 3}, optim={"lr": 0.02},
                                  train={"batch": 40, "lanes": 2, "max_steps": 8})
    run_dir = workdir / "run"
    support.run("train", config, "--workers", 1, "--run", run_dir, "--quiet")
    tensors, _ = support.read_safetensors(support.newest_checkpoint(run_dir))
    model = torch_peer.load(torchvision.models.resnet18(num_classes=10), tensors)
    images = support.read_idx(tiny_data / "t10k-images-idx3-ubyte")[:IMAGES]
    with torch.no_grad():
        expected = model(torch_peer.inputs(images, channels=3)).numpy()
    for workers in (1, 2):
        support.run("eval", run_dir, "--bn", "main", "--images", IMAGES, "--workers", workers,
                    "--logits", workdir / "logits.safetensors")
        found, _ = support.read_safetensors(workdir / "logits.safetensors")
        assert found["logits"].shape == (IMAGES, 10)
        assert abs(expected).max() > 0.1  # not an untrained network's zeros
        assert abs(found["logits"] - expected).max() < 5e-4  # 3e-5 to 6e-5, by instruction set


def test_torchvision_weights_are_taken_as_a_start(tiny_data, workdir):
    torch.manual_seed(5)
    model = torchvision.models.resnet18(num_classes=10)
    state = torch_peer.state(model)
    support.write_safetensors(workdir / "start.safetensors", state)
    config = support.write_config(workdir / "run.yaml", tiny_data, augment="none",
                                  model={"width": 64, "stem": "imagenet"},
                                  data={"channels": 3}, optim={"lr": 0},
                                  train={"batch": 40, "lanes": 1, "max_steps": 1},
                                  init_from=str(workdir / "start.safetensors"))
    support.run("train", config, "--workers", 1, "--run", workdir / "run", "--quiet")
    tensors, _ = support.read_safetensors(support.newest_checkpoint(workdir / "run"))
    for name, value in state.items():
        if "running" not in name:  # lr 0: only statistics have moved
            assert (tensors[name] == value).all(), name
    assert (tensors["bn1.aux_bn.weight"] == tensors["bn1.weight"]).all()
