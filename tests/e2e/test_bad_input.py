"""Damaged files end in one clear error that names the file, and are never loaded."""
import pathlib
import shutil

import pytest
import support


def spoil(path, how):
    raw = bytearray(path.read_bytes())
    if how == "truncated":
        raw = raw[: len(raw) // 2]
    elif how == "magic":
        raw[2] ^= 1
    elif how == "count":
        raw[7] ^= 1
    elif how == "empty":
        raw = bytearray()
    path.write_bytes(raw)


@pytest.fixture
def own_data(tiny_data, workdir):
    return pathlib.Path(shutil.copytree(tiny_data, workdir / "data"))


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                  "t10k-images-idx3-ubyte"])
@pytest.mark.parametrize("how", ["truncated", "magic", "count", "empty"])
def test_damaged_idx_is_named(own_data, workdir, name, how):
    spoil(own_data / name, how)
    config = support.write_config(workdir / "run.yaml", own_data)
    done = support.run("data", "plan", config, "--epoch", 0, "--steps", 1, check=65)
    assert name in done.stderr and "expected" in done.stderr
    assert "Segmentation" not in done.stderr


def test_damaged_idx_ends_a_run_with_65(own_data, workdir):
    spoil(own_data / "train-labels-idx1-ubyte", "truncated")
    config = support.write_config(workdir / "run.yaml", own_data)
    done = support.run("train", config, "--workers", 2, "--run", workdir / "run", "--quiet", check=65)
    assert "train-labels-idx1-ubyte" in done.stderr + done.stdout
    assert support.commits(workdir / "run") == []


@pytest.fixture(scope="module")
def finished(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    config = support.write_config(folder / "run.yaml", tiny_data, train={"max_steps": 2})
    support.run("train", config, "--workers", 1, "--run", folder / "run", "--quiet")
    return folder


@pytest.mark.parametrize("at", ["length", "header", "data", "cut"])
def test_damaged_checkpoint_is_never_evaluated(finished, workdir, at):
    run_dir = pathlib.Path(shutil.copytree(finished / "run", workdir / "run",
                                           ignore=shutil.ignore_patterns("ctl.sock")))
    path = support.newest_checkpoint(run_dir)
    raw = bytearray(path.read_bytes())
    if at == "cut":
        raw = raw[:-1]
    else:
        raw[{"length": 1, "header": 40, "data": len(raw) - 9}[at]] ^= 1
    path.write_bytes(raw)
    done = support.run("eval", run_dir, check=65)
    assert path.name in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("advprop eval: ") and last.endswith("has no sound checkpoint yet")
    assert "top-1" not in done.stdout


def test_foreign_checkpoint_of_another_shape_is_refused(finished, tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, model={"width": 16},
                                  train={"max_steps": 2},
                                  init_from=str(support.newest_checkpoint(finished / "run")))
    done = support.run("train", config, "--workers", 1, "--run", workdir / "run", "--quiet", check=78)
    assert "conv1.weight" in done.stderr + done.stdout


def test_run_that_diverges_says_so(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, optim={"lr": 1000, "momentum": 0.99}, train={"epochs": 20})
    done = support.run("train", config, "--workers", 2, "--run", workdir / "run", "--quiet", check=78)
    assert "diverged" in done.stderr + done.stdout
