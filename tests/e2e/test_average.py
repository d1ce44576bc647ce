"""optim.ema_decay: evaluation sees the average of the weights, training does not."""
import json

import support


def evaluate(*args):
    return json.loads(support.run("eval", *args, "--bn", "main", "--json").stdout)


def test_average_is_what_is_evaluated(tiny_data, workdir):
    changes = {"train": {"max_steps": 12}, "optim": {"lr": 0.1, "ema_decay": 0.9}}
    config = support.write_config(workdir / "run.yaml", tiny_data, **changes)
    run_dir = workdir / "run"
    support.run("train", config, "--workers", 2, "--run", run_dir, "--quiet")
    (trained,) = [record for record in support.records(run_dir, "evaluation") if record["name"] == "main"]
    found = evaluate(run_dir)
    assert found["loss"] == trained["loss"] and found["top1"] == trained["top1"]

    plain = support.write_config(workdir / "plain.yaml", tiny_data,
                                 **support.merged(changes, {"optim": {"ema_decay": 0}}))
    checkpoint = support.newest_checkpoint(run_dir)
    assert evaluate("--checkpoint", checkpoint, "--config", plain)["loss"] != found["loss"]
    tensors, _ = support.read_safetensors(checkpoint)
    averages = {name[len("ema."):] for name in tensors if name.startswith("ema.")}
    assert averages == {name for name in tensors if not name.startswith(("ema.", "momentum."))}

    support.run("train", plain, "--workers", 2, "--run", workdir / "plain", "--quiet")
    without, _ = support.read_safetensors(support.newest_checkpoint(workdir / "plain"))
    assert all((tensors[name] == value).all() for name, value in without.items())
