"""`init_from`: a run that starts from another one's weights."""
import pytest
import support


@pytest.fixture(scope="module")
def start(tiny_data, tmp_path_factory):
    """A checkpoint of a network for ten classes."""
    folder = tmp_path_factory.mktemp("start")
    config = support.write_config(folder / "run.yaml", tiny_data, train={"max_steps": 2})
    support.run("train", config, "--workers", 1, "--run", folder / "run", "--quiet")
    return support.newest_checkpoint(folder / "run")


def five_classes(folder):
    """Images of the first five classes."""
    support.make_data(folder, train=400, test=100)
    for split in ("train", "t10k"):
        images, labels = (support.read_idx(folder / f"{split}-{kind}") for kind in
                          ("images-idx3-ubyte", "labels-idx1-ubyte"))
        kept = labels < 5
        (folder / f"{split}-images-idx3-ubyte").write_bytes(support.idx_bytes(images[kept]))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(support.idx_bytes(labels[kept]))
    return folder


def test_init_from_keeps_all_but_the_classifier_of_other_classes(start, workdir):
    data = five_classes(workdir / "data")
    common = {"optim": {"lr": 0}, "train": {"batch": 40, "lanes": 2, "max_steps": 1}}
    for name, init in (("fine", str(start)), ("fresh", "")):
        config = support.write_config(workdir / f"{name}.yaml", data, init_from=init, **common)
        done = support.run("train", config, "--workers", 2, "--run", workdir / name)
        if init:
            assert "init_from has 10 classes, the data 5" in done.stdout
    text = "fc is initialised anew"
    for command in ("events", "status"):
        assert text in support.run(command, workdir / "fine").stdout
    assert text in (workdir / "fine" / "logs" / "rank-1.log").read_text()
    before, _ = support.read_safetensors(start)
    after, _ = support.read_safetensors(support.newest_checkpoint(workdir / "fine"))
    fresh, _ = support.read_safetensors(support.newest_checkpoint(workdir / "fresh"))
    for name, value in after.items():
        if name.startswith("fc."):
            assert value.shape[0] == 5 and (value == fresh[name]).all()
        elif "running" not in name and "momentum." not in name:
            assert (value == before[name]).all(), name


def test_init_from_of_another_shape_names_both(start, tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, model={"width": 16},
                                  init_from=str(start))
    done = support.run("train", config, "--workers", 1, "--run", workdir / "run", "--quiet", check=78)
    assert "conv1.weight: expected [16, 1, 3, 3], found [8, 1, 3, 3]" in done.stderr + done.stdout
