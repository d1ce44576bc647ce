"""`advprop ckpt`: models in from PyTorch and out to it, what differs, what is damaged, what there is."""
import collections
import json
import pathlib
import shutil
import struct
import subprocess

import numpy as np
import pytest
import support

torch = pytest.importorskip("torch", reason="python3-torch is not installed")
torchvision = pytest.importorskip("torchvision", reason="python3-torchvision is not installed")

SCRIPT = support.ROOT / "deploy" / "pth2safetensors"


def ckpt(*args, check=0):
    return support.run("ckpt", *args, check=check)


def ckpt_json(*args, check=0):
    return [json.loads(line) for line in ckpt(*args, "--json", check=check).stdout.splitlines()]


def to_safetensors(value, folder, *options, name="source.pth.tar"):
    """`value` saved by torch and turned by the script."""
    torch.save(value, folder / name)
    out = folder / "source.safetensors"
    subprocess.run([SCRIPT, *options, folder / name, out], check=True, capture_output=True, timeout=120)
    return out


def resnet18(classes=10):
    torch.manual_seed(5)
    model = torchvision.models.resnet18(num_classes=classes)
    for name, value in model.named_buffers():
        if "running" in name:
            value.add_(0.25)
    return model


def without_counters(state):
    return {name: value.numpy() for name, value in state.items() if "num_batches" not in name}


def with_aux(state):
    """As the authors save: every BN has an aux_bn, and DataParallel's prefix is in front."""
    out = collections.OrderedDict()
    for name, value in state.items():
        out["module." + name] = value
    for name, value in state.items():
        layer, _, last = name.rpartition(".")
        if layer.endswith(("bn1", "bn2", "downsample.1")):
            out[f"module.{layer}.aux_bn.{last}"] = value + 1
    return out


def assert_same_tensors(path, expected):
    found, _ = support.read_safetensors(path)
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape and (found[name] == value).all(), name


# ---------------------------------------------------------------- in

def test_torchvision_model_is_imported(workdir):
    state = resnet18().state_dict()
    source = to_safetensors(state, workdir, name="source.pth")
    done = ckpt("import", source, "-o", workdir / "out.safetensors")
    assert "resnet18: width 64, stem imagenet, image channels 3, classes 10" in done.stdout
    assert "20 counters" in done.stdout and "no auxiliary BN" in done.stdout
    assert_same_tensors(workdir / "out.safetensors", without_counters(state))
    assert support.read_safetensors(workdir / "out.safetensors")[1]["arch"] == "resnet18"
    ckpt("verify", workdir / "out.safetensors")


@pytest.mark.parametrize("arch, stem", [("resnet34", 7), ("resnet50", 3), ("resnet101", 7)])
def test_network_is_told_from_the_tensors(workdir, arch, stem):
    model = getattr(torchvision.models, arch)(num_classes=7)
    model.conv1 = torch.nn.Conv2d(1, 64, stem, bias=False)
    source = to_safetensors(model.state_dict(), workdir)
    done = ckpt("import", source, "-o", workdir / "out.safetensors")
    words = "imagenet" if stem == 7 else "small"
    assert f"{arch}: width 64, stem {words}, image channels 1, classes 7" in done.stdout


def test_authors_file_is_imported(workdir):
    saved = with_aux(resnet18().state_dict())
    source = to_safetensors({"epoch": 3, "best_acc": 0.5, "state_dict": saved, "optimizer": {"state": {}}},
                            workdir, "--trust")
    done = ckpt("import", source, "-o", workdir / "out.safetensors", "--arch", "resnet18")
    assert "no auxiliary BN" not in done.stdout
    expected = {name[len("module."):]: value for name, value in without_counters(saved).items()}
    assert len(expected) == 20 + 20 * 8 + 2
    assert_same_tensors(workdir / "out.safetensors", expected)


@pytest.mark.parametrize("dtype, word", [(torch.float16, "F16"), (torch.bfloat16, "BF16"),
                                         (torch.float64, "F64")])
def test_other_types_become_f32(workdir, dtype, word):
    state = {name: value.to(dtype) if value.is_floating_point() else value
             for name, value in resnet18().state_dict().items()}
    state["bn1.weight"][:3] = torch.tensor([6e-8, -65504.0, 0.0], dtype=dtype)  # F16: subnormal, largest
    source = to_safetensors(state, workdir)
    done = ckpt("import", source, "-o", workdir / "out.safetensors")
    assert f"converted to F32: 102 tensors, of {word}" in done.stdout
    assert_same_tensors(workdir / "out.safetensors",
                        without_counters({name: value.float() for name, value in state.items()}))


def spoil(state, how):
    if how == "missing":
        del state["layer2.0.bn1.weight"]
    elif how == "unknown":
        state["layer2.0.bn1.wieght"] = torch.zeros(3)
    elif how == "shape":
        state["layer2.0.conv1.weight"] = torch.zeros(128, 32, 3, 3)
    elif how == "type":
        state["fc.bias"] = torch.zeros(10, dtype=torch.int32)
    elif how == "nan":
        state["fc.bias"][3] = float("nan")
    elif how == "stem":
        state["conv1.0.weight"] = state.pop("conv1.weight")
    elif how == "twice":
        state["module.fc.bias"] = state["fc.bias"]
    return state


@pytest.mark.parametrize("how, message", [
    ("missing", "layer2.0.bn1.weight: expected [128], found none"),
    ("unknown", "layer2.0.bn1.wieght: unknown; the nearest name is layer2.0.bn1.weight"),
    ("shape", "layer2.0.conv1.weight: expected [128, 64, 3, 3], found [128, 32, 3, 3]"),
    ("type", "fc.bias: expected F32, F64, F16 or BF16, found I32"),
    ("nan", "tensor fc.bias: 1 of 10 values are not finite"),
    ("stem", "expected conv1.weight of 4 dimensions"),
    ("twice", "both fc.bias and module.fc.bias"),
])
def test_what_does_not_fit_is_named(workdir, how, message):
    source = to_safetensors(spoil(resnet18().state_dict(), how), workdir)
    done = ckpt("import", source, "-o", workdir / "out.safetensors", check=65)
    assert message in done.stderr
    assert not (workdir / "out.safetensors").exists()


def test_wrong_network_is_named(workdir):
    source = to_safetensors(resnet18().state_dict(), workdir)
    done = ckpt("import", source, "-o", workdir / "out", "--arch", "resnet34", check=65)
    assert "layer1.2.conv1.weight: expected [64, 64, 3, 3], found none" in done.stderr
    assert "more" in done.stderr and "tensors do not fit resnet34" in done.stderr
    done = ckpt("import", source, "-o", workdir / "out", "--arch", "resnet19", check=78)
    assert "resnet19" in done.stderr


def test_script_names_what_it_cannot_take(workdir):
    def refused(value, *options):
        torch.save(value, workdir / "x.pth")
        done = subprocess.run([SCRIPT, *options, workdir / "x.pth", workdir / "x.safetensors"],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 65 and not (workdir / "x.safetensors").exists()
        assert len(done.stderr.splitlines()) == 1
        return done.stderr

    assert "expected a tensor, found int" in refused({"epoch": 3})
    assert "no state dict" in refused([1, 2], "--trust")
    assert "--trust" in refused(pathlib.PurePosixPath("x"))  # an object that is no tensor


# ---------------------------------------------------------------- out

@pytest.fixture(scope="module")
def standard_run(tmp_path_factory):
    """A run of the standard ResNet-18, of a few steps."""
    folder = tmp_path_factory.mktemp("standard")
    data = support.make_data(folder / "data", train=80, test=20)
    config = support.write_config(folder / "run.yaml", data, augment="none",
                                  model={"width": 64, "stem": "imagenet"}, data={"channels": 3},
                                  train={"batch": 40, "lanes": 2, "max_steps": 2})
    support.run("train", config, "--workers", 1, "--run", folder / "run", "--quiet")
    return folder / "run"


def test_plain_export_loads_strictly_into_torchvision(standard_run, workdir):
    ckpt("export", standard_run, "-o", workdir / "out.safetensors")
    tensors, meta = support.read_safetensors(workdir / "out.safetensors")
    model = torchvision.models.resnet18(num_classes=10)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()},
                          strict=True)
    original, _ = support.read_safetensors(support.newest_checkpoint(standard_run))
    assert all((original[name] == value).all() for name, value in tensors.items())
    assert meta["arch"] == "resnet18" and meta["step"] == "2"
    ckpt("verify", workdir / "out.safetensors")


def test_full_export_is_what_import_takes(standard_run, workdir):
    ckpt("export", standard_run, "--full", "-o", workdir / "full.safetensors")
    ckpt("import", workdir / "full.safetensors", "-o", workdir / "again.safetensors")
    assert "are equal" in ckpt("diff", workdir / "full.safetensors", workdir / "again.safetensors").stdout
    (result,) = ckpt_json("diff", standard_run, workdir / "again.safetensors", check=1)
    assert {one["only_in"] for one in result["tensors"]} == {"a"}
    assert all(one["name"].startswith("momentum.") for one in result["tensors"])


def test_average_of_the_weights_goes_out_instead(standard_run, workdir):
    path = support.newest_checkpoint(standard_run)
    done = ckpt("export", path, "--ema", "-o", workdir / "out.safetensors", check=65)
    assert "ema.conv1.weight" in done.stderr and "optim.ema_decay" in done.stderr
    tensors, _ = support.read_safetensors(path)
    average = {"ema." + name: value + 1 for name, value in tensors.items() if "momentum." not in name}
    support.write_safetensors(workdir / "ema.safetensors", {**tensors, **average})
    ckpt("export", workdir / "ema.safetensors", "--ema", "-o", workdir / "out.safetensors")
    assert_same_tensors(workdir / "out.safetensors",
                        {name[len("ema."):]: value for name, value in average.items()
                         if "aux_bn" not in name})


def test_export_does_not_replace_its_source(standard_run):
    path = support.newest_checkpoint(standard_run)
    before = path.read_bytes()
    assert "would replace" in ckpt("export", path, "-o", path, check=64).stderr
    assert path.read_bytes() == before


# ---------------------------------------------------------------- looking

@pytest.fixture(scope="module")
def small_runs(tiny_data, tmp_path_factory):
    """Two small runs of two checkpoints each that differ in the learning rate."""
    folder = tmp_path_factory.mktemp("small")
    for name, lr in (("a", 0.05), ("b", 0.1)):
        config = support.write_config(folder / f"{name}.yaml", tiny_data, optim={"lr": lr},
                                      train={"epochs": 2, "max_steps": 14})
        support.run("train", config, "--workers", 1, "--run", folder / name, "--quiet")
    return folder


@pytest.fixture
def own_run(small_runs, workdir):
    return pathlib.Path(shutil.copytree(small_runs / "a", workdir / "a",
                                        ignore=shutil.ignore_patterns("ctl.sock")))


def plant(path, name, index, value):
    """Changes one value of a tensor in the file, nothing else."""
    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    begin = json.loads(raw[8:8 + length])[name]["data_offsets"][0] + 8 + length + 4 * index
    raw[begin:begin + 4] = struct.pack("<f", value)
    path.write_bytes(raw)


def test_ls_of_a_run(own_run):
    lines = ckpt("ls", own_run).stdout.splitlines()
    records = support.commits(own_run)
    assert len(lines) == 1 + len(records) == 3
    assert [line[0] for line in lines[1:]] == [" ", "*"]
    assert "end" in lines[2] and "there" in lines[2] and "%" in lines[2]
    (own_run / records[-1]["path"]).unlink()
    done = ckpt("ls", own_run)
    assert [line[0] for line in done.stdout.splitlines()[1:]] == ["*", " "]
    assert "gone" in done.stdout and "passed over" in done.stderr
    listed = ckpt_json("ls", own_run)
    assert [one["step"] for one in listed] == [record["step"] for record in records]
    assert [one["next"] for one in listed] == [True, False]


def test_ls_of_a_file(small_runs):
    path = support.newest_checkpoint(small_runs / "a")
    tensors, meta = support.read_safetensors(path)
    text = ckpt("ls", path, "--tensors").stdout
    for key in ("arch", "step", "epoch", "seed", "generation", "date", "plan_digest", "weights_sha256"):
        assert f"{key:17} {meta[key]}\n" in text
    for name, value in tensors.items():
        assert f"{name:46} F32  {list(value.shape)!s:18}" in text
    (listed,) = ckpt_json("ls", path)
    assert listed["metadata"] == meta and listed["tensor_count"] == len(tensors)
    trained = [value.size for name, value in tensors.items()
               if "momentum." not in name and "running" not in name]
    assert listed["parameters"] == sum(trained)


def test_diff_names_a_planted_change_with_its_size(small_runs, workdir):
    original = support.newest_checkpoint(small_runs / "a")
    changed = pathlib.Path(shutil.copy(original, workdir / "changed.safetensors"))
    value = support.read_safetensors(original)[0]["layer1.0.conv1.weight"]
    plant(changed, "layer1.0.conv1.weight", 7, value.flat[7] + np.float32(0.25))
    (result,) = ckpt_json("diff", original, changed, check=1)
    (one,) = result["tensors"]
    assert one["name"] == "layer1.0.conv1.weight" and one["different"] == 1 and one["values"] == value.size
    assert one["largest"] == pytest.approx(0.25, rel=1e-5)
    assert one["relative"] == pytest.approx(0.25 / np.linalg.norm(value), rel=1e-5)
    assert result["settings"] == [] and not result["equal"]
    assert "layer1.0.conv1.weight" in ckpt("diff", original, changed, check=1).stdout
    ckpt("diff", original, changed, "--tolerance", "0.3")
    plant(changed, "layer1.0.conv1.weight", 7, float("nan"))
    assert "infinite" in ckpt("diff", original, changed, "--tolerance", "1e9", check=1).stdout


def test_diff_of_runs_names_a_changed_setting(small_runs):
    (result,) = ckpt_json("diff", small_runs / "a", small_runs / "b", check=1)
    assert result["settings"] == [{"key": "optim.lr", "a": "0.05", "b": "0.1"}]
    assert "config_digest" in [one["key"] for one in result["metadata"]]
    text = ckpt("diff", small_runs / "a", small_runs / "b", check=1).stdout
    assert "optim.lr                 A 0.05, B 0.1" in text
    assert "are equal" in ckpt("diff", small_runs / "a", small_runs / "a").stdout


def test_diff_names_tensors_of_one_side_and_other_shapes(workdir):
    support.write_safetensors(workdir / "a", {"x": np.zeros((2, 3)), "y": np.zeros(4), "z": np.ones(1)})
    support.write_safetensors(workdir / "b", {"x": np.zeros((3, 2)), "w": np.zeros(4), "z": np.ones(1)})
    lines = [" ".join(line.split()) for line in ckpt("diff", workdir / "a", workdir / "b", check=1)
             .stdout.splitlines()]
    assert lines[3:] == ["x A F32 [2, 3], B F32 [3, 2]", "y only in A", "w only in B"]


# ---------------------------------------------------------------- damage

def test_verify_says_ok(small_runs):
    lines = ckpt("verify", small_runs / "a").stdout.splitlines()
    assert len(lines) == 2 and all(line.endswith(": ok") for line in lines)
    ckpt("verify", support.newest_checkpoint(small_runs / "a"))


def test_verify_finds_a_flipped_bit_and_a_nan(own_run):
    path = support.newest_checkpoint(own_run)
    raw = bytearray(path.read_bytes())
    plant(path, "fc.bias", 2, float("inf"))
    assert "tensor fc.bias: 1 of 10 values are not finite" in ckpt("verify", path, check=65).stdout
    raw[-9] ^= 1  # of the momentum of fc.bias: only the commit record knows
    path.write_bytes(raw)
    ckpt("verify", path)
    done = ckpt("verify", own_run, check=65)
    assert "has SHA-256" in done.stdout and done.stdout.count(": ok") == 1
    tensors, _ = support.read_safetensors(path)
    plant(path, "bn1.running_var", 0, tensors["bn1.running_var"][0] * 2)
    done = ckpt("verify", path, check=65)
    assert "the weights have SHA-256" in done.stdout and "metadata say" in done.stdout
    assert "is damaged" in done.stderr


def test_verify_of_a_run_names_every_reason(own_run):
    first, last = (own_run / record["path"] for record in support.commits(own_run))
    first.write_bytes(first.read_bytes()[:-1])
    last.unlink()
    log = own_run / "checkpoints" / "commits.jsonl"
    log.write_text(log.read_text() + "{torn\n")
    found = {pathlib.Path(one["path"]).name: one["problems"] for one in ckpt_json("verify", own_run, check=65)}
    assert "expected" in found[first.name][0] and "No such file" in found[last.name][0]
    assert "line 3: torn" in found[own_run.name][0]


def test_removed_older_checkpoint_is_no_damage(own_run):
    (own_run / support.commits(own_run)[0]["path"]).unlink()
    assert len(ckpt_json("verify", own_run)) == 1


@pytest.mark.parametrize("command", [["ls"], ["verify"], ["diff"], ["export", "-o", "out"],
                                     ["import", "-o", "out"]])
@pytest.mark.parametrize("how", ["cut", "empty", "foreign", "no tensors", "folder"])
def test_bad_files_end_in_one_clear_error(small_runs, workdir, command, how):
    path = workdir / "bad.safetensors"
    raw = support.newest_checkpoint(small_runs / "a").read_bytes()
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes({"cut": raw[:len(raw) // 2], "empty": b"", "foreign": b"PK\3\4" + bytes(60),
                          "no tensors": b"\x02" + bytes(7) + b"[]"}[how])
    words = [workdir / word if word == "out" else word for word in command]
    done = ckpt(*words, path, *([path] if command == ["diff"] else []), check=65)
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and path.name in lines[0] + done.stdout
    assert not (workdir / "out").exists()


def test_missing_file_is_69_and_names_it(workdir):
    assert "nothing.safetensors" in ckpt("ls", workdir / "nothing.safetensors", check=69).stderr


def test_names_of_foreign_files_do_not_reach_the_terminal_as_they_are(workdir):
    support.write_safetensors(workdir / "x", {"a\x1b[2Jb": np.zeros(1)})
    assert "a?[2Jb" in ckpt("ls", workdir / "x", "--tensors").stdout
    source = to_safetensors({**resnet18().state_dict(), "a\x1b[2Jb": torch.zeros(1)}, workdir)
    assert "a?[2Jb: unknown" in ckpt("import", source, "-o", workdir / "y", check=65).stderr
