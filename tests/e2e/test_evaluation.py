"""advprop eval: attack, restarts, classes, JSON; against PGD in PyTorch from docs/evaluation.md and docs/data.md."""
import json
import sys

import numpy as np
import pytest
import support

torch = pytest.importorskip("torch", reason="python3-torch is not installed")
pytest.importorskip("torchvision", reason="python3-torchvision is not installed")
sys.path.insert(0, str(support.ROOT / "tests" / "oracle"))

from torch.nn import functional  # noqa: E402

import philox  # noqa: E402
import torch_peer  # noqa: E402

EVAL_ATTACK = 8
IMAGES = 130  # batches of 50: the last one is not full, and two workers cut elsewhere than one
PEER_IMAGES = 64
ATTACK = {"steps": 5, "eps": 8, "step": 2}
# The same network on every CPU; under AVX2 oneDNN would round an image by its place in the batch.
CPU = {"isa": "baseline"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_data):
    """A run whose network gets about three quarters of the test set right."""
    folder = tmp_path_factory.mktemp("trained")
    config = support.write_config(folder / "run.yaml", tiny_data, train={"epochs": 6, "batch": 40, "lanes": 2},
                                  eval={"batch": 50}, data={"crop_padding_px": 1}, cpu=CPU)
    support.run("train", config, "--workers", 1, "--run", folder / "run", "--quiet")
    return folder / "run"


def evaluate(run_dir, *arguments, images=IMAGES):
    """{name: result}"""
    out = support.run("eval", run_dir, "--json", "--images", images, *arguments).stdout
    return {result["name"]: result for result in map(json.loads, out.splitlines())}


def attacked(run_dir, *arguments, images=IMAGES, **changes):
    words = [word for key, value in {**ATTACK, **changes}.items() for word in (f"--{key}", value)]
    return evaluate(run_dir, "--attack", "pgd", *words, *arguments, images=images)


def test_an_attack_lowers_accuracy_and_one_of_size_0_changes_nothing(trained):
    clean, attack, none = evaluate(trained), attacked(trained), attacked(trained, eps=0)
    for bn in ("main", "aux"):
        assert clean[bn]["top1"] > 0.6 * IMAGES
        assert attack[f"{bn}-pgd5"]["top1"] < 0.9 * clean[bn]["top1"]
        assert attack[f"{bn}-pgd5"]["loss"] > clean[bn]["loss"]
        assert {**none[f"{bn}-pgd5"], "name": bn, "attack": None} == clean[bn]


def test_json_has_every_field(trained):
    result = attacked(trained, "--per-class", restarts=2)["aux-pgd5"]
    assert result["attack"] == {**ATTACK, "restarts": 2}
    assert result["images"] == IMAGES
    assert result["top1"] <= result["top5"] <= IMAGES
    assert result["top1_accuracy"] == result["top1"] / IMAGES
    assert result["top5_accuracy"] == result["top5"] / IMAGES
    assert "classes" not in evaluate(trained)["main"]


def test_restarts_never_raise_accuracy(trained):
    results = [attacked(trained, restarts=count) for count in (1, 2, 4)]
    assert results[0] == attacked(trained)
    for bn in ("main-pgd5", "aux-pgd5"):
        for fewer, more in zip(results, results[1:]):
            assert more[bn]["top1"] <= fewer[bn]["top1"] and more[bn]["top5"] <= fewer[bn]["top5"]
            assert more[bn]["loss"] > fewer[bn]["loss"]


@pytest.mark.parametrize("arguments", [(), ("--attack", "pgd", "--steps", "2", "--eps", "8", "--restarts", "2")])
def test_classes_add_up_and_the_number_of_workers_changes_nothing(trained, arguments):
    results = [evaluate(trained, "--per-class", *arguments, "--workers", workers) for workers in (1, 2, 3)]
    assert results[1] == results[0] and results[2] == results[0]
    for result in results[0].values():
        assert [one["class"] for one in result["classes"]] == list(range(10))
        for count in ("images", "top1"):
            assert sum(one[count] for one in result["classes"]) == result[count]
        for one in result["classes"]:
            assert one["top1_accuracy"] == one["top1"] / one["images"]


def test_a_batch_larger_than_the_data_set_changes_no_count(trained, tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, eval={"batch": 300}, cpu=CPU)
    out = support.run("eval", "--checkpoint", support.newest_checkpoint(trained), "--config", config, "--json",
                      "--images", IMAGES, "--bn", "main").stdout
    large, small = json.loads(out), evaluate(trained)["main"]
    assert abs(large.pop("loss") - small.pop("loss")) < 1e-5
    assert large == small


def test_table_of_classes(trained, tiny_data):
    labels = support.read_idx(tiny_data / "t10k-labels-idx1-ubyte")[:3]
    lines = support.run("eval", trained, "--per-class", "--images", 3, "--bn", "main").stdout.splitlines()
    assert len(lines) == 12 and lines[1].split() == ["class", "images", "right", "accuracy"]
    for number, line in enumerate(lines[2:]):
        images = int((labels == number).sum())
        assert line.split()[:2] == [str(number), str(images)]
        assert (line.split()[3] == "-") == (images == 0)


def test_logits_of_several_attacks_are_refused(trained, workdir):
    done = support.run("eval", trained, "--bn", "main", "--attack", "pgd", "--restarts", 2, "--logits",
                       workdir / "logits", check=64)
    assert "--logits" in done.stderr


# ---- PyTorch beside it

def start(seed, restart, sample, pixels, eps):
    words = philox.stream(seed, EVAL_ATTACK, restart, sample, np.arange((pixels + 3) // 4))
    return (2 * philox.uniform(words.T.reshape(-1)[:pixels]) - 1) * eps


def pgd_logits(net, x, labels, attack, restart):
    """Logits under attack. x: the first images of the test set."""
    eps, step = (attack[key] * 2 / 255 for key in ("eps", "step"))
    starts = [start(support.SMALL["seed"], restart, i, x[0].numel(), eps) for i in range(len(x))]
    at = x + torch.from_numpy(np.stack(starts)).view_as(x)
    for _ in range(attack["steps"]):
        at.requires_grad_()
        loss = functional.cross_entropy(net(at), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, at)
        at = at.detach() + step * gradient.sign()
        at = torch.max(torch.min(at, (x + eps).clamp(max=1)), (x - eps).clamp(min=-1))
    with torch.no_grad():
        return net(at)


def peer(run_dir, data, bn):
    """The run's network in double precision, images, labels."""
    tensors, _ = support.read_safetensors(support.newest_checkpoint(run_dir))
    net = torch_peer.load(torch_peer.build("resnet18", 8, small_stem=True, channels=1), tensors, bn).double()
    x = torch_peer.inputs(support.read_idx(data / "t10k-images-idx3-ubyte")[:PEER_IMAGES]).double()
    labels = support.read_idx(data / "t10k-labels-idx1-ubyte")[:PEER_IMAGES].astype(np.int64)
    return net, x, torch.from_numpy(labels)


# A gradient so near to 0 that float and double see another sign moves a pixel by a step, and the logits of that
# image by some 1e-3; of 130 images two had one, all others agreed to 1e-5.
MAY_DIFFER = 4


@pytest.mark.parametrize("bn", ["main", "aux"])
def test_an_attack_ends_where_pytorchs_does(trained, tiny_data, workdir, bn):
    attacked(trained, "--bn", bn, "--logits", workdir / "logits", images=PEER_IMAGES)
    ours = torch.from_numpy(support.read_safetensors(workdir / "logits")[0]["logits"].copy())
    expected = pgd_logits(*peer(trained, tiny_data, bn), ATTACK, restart=0)
    same = (ours - expected).abs().amax(1) < 1e-4
    assert same.sum() >= PEER_IMAGES - MAY_DIFFER
    assert (ours.argmax(1) == expected.argmax(1))[same].all()


def test_restarts_and_classes_are_pytorchs(trained, tiny_data):
    attack = {"steps": 1, "eps": 32, "step": 4}  # most of it is the random start
    found = attacked(trained, "--per-class", images=PEER_IMAGES, restarts=3, **attack)["main-pgd1"]
    net, x, labels = peer(trained, tiny_data, "main")
    logits = torch.stack([pgd_logits(net, x, labels, attack, restart) for restart in range(3)])
    losses = torch.stack([functional.cross_entropy(one, labels, reduction="none") for one in logits])
    right = (logits.argmax(2) == labels).all(0)
    in_class = torch.tensor([int(right[labels == number].sum()) for number in range(10)])
    assert right.sum() < (logits[0].argmax(1) == labels).sum()  # 30 instead of 33: restarts do something
    assert abs(found["loss"] - losses.amax(0).mean()) < 1e-3
    assert (torch.tensor([one["top1"] for one in found["classes"]]) - in_class).abs().sum() <= 1
