"""PyTorch reads our checkpoint: torchvision's resnet18, strictly, and the same logits."""
import pytest
import support

torch = pytest.importorskip("torch", reason="python3-torch is not installed")
torchvision = pytest.importorskip("torchvision", reason="python3-torchvision is not installed")

IMAGES = 16


def plain_state(path):
    """docs/formats.md: without auxiliary BN and momentum a checkpoint is a plain torchvision model."""
    tensors, _ = support.read_safetensors(path)
    return {name: torch.from_numpy(array.copy()) for name, array in tensors.items()
            if ".aux_bn." not in name and not name.startswith("momentum.")}


def input_images(data):
    images = torch.from_numpy(support.read_idx(data / "t10k-images-idx3-ubyte")[:IMAGES].copy())
    return (images.float() / 127.5 - 1).unsqueeze(1).repeat(1, 3, 1, 1)


def test_standard_resnet18_loads_strictly_and_gives_our_logits(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, augment="none",
                                  model={"width": 64, "stem": "imagenet"},
                                  data={"channels": 3}, optim={"lr": 0.02},
                                  train={"batch": 40, "lanes": 2, "max_steps": 8})
    run_dir = workdir / "run"
    support.run("train", config, "--workers", 1, "--run", run_dir, "--quiet")
    model = torchvision.models.resnet18(num_classes=10)
    model.load_state_dict(plain_state(support.newest_checkpoint(run_dir)), strict=True)
    model.eval()
    with torch.no_grad():
        expected = model(input_images(tiny_data)).numpy()
    for workers in (1, 2):
        support.run("eval", run_dir, "--bn", "main", "--images", IMAGES, "--workers", workers,
                    "--logits", workdir / "logits.safetensors")
        found, _ = support.read_safetensors(workdir / "logits.safetensors")
        assert found["logits"].shape == (IMAGES, 10)
        assert abs(expected).max() > 0.1  # not an untrained network's zeros
        assert abs(found["logits"] - expected).max() < 1e-4


def test_torchvision_weights_are_taken_as_a_start(tiny_data, workdir):
    torch.manual_seed(5)
    model = torchvision.models.resnet18(num_classes=10)
    state = {name: value for name, value in model.state_dict().items()
             if not name.endswith("num_batches_tracked")}
    support.write_safetensors(workdir / "start.safetensors",
                              {name: value.numpy() for name, value in state.items()})
    config = support.write_config(workdir / "run.yaml", tiny_data, augment="none",
                                  model={"width": 64, "stem": "imagenet"},
                                  data={"channels": 3}, optim={"lr": 0},
                                  train={"batch": 40, "lanes": 1, "max_steps": 1},
                                  init_from=str(workdir / "start.safetensors"))
    support.run("train", config, "--workers", 1, "--run", workdir / "run", "--quiet")
    tensors, _ = support.read_safetensors(support.newest_checkpoint(workdir / "run"))
    for name, value in state.items():
        if "running" not in name:  # lr 0: only statistics have moved
            assert (tensors[name] == value.numpy()).all(), name
    assert (tensors["bn1.aux_bn.weight"] == tensors["bn1.weight"]).all()
