"""`advprop train` with the real programs on a tiny data set: to the end, and over a drain."""

import json
import signal


def test_trains_to_the_end_and_reports(advprop, tiny_yaml, tmp_path):
    run = tmp_path / "run"
    result = advprop("train", tiny_yaml, "--workers", "2", "--run", run)
    for words in ("clean accuracy, main BN", "clean accuracy, aux BN", "under attack (main-pgd2)",
                  "epoch 1: 1,000 of 1,000 receipts match", "epoch 2: 1,000 of 1,000 receipts match", "sha256",
                  f"advprop status '{run}'"):
        assert words in result.stdout, result.stdout
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "done" and status["step"] == 20
    assert (run / status["checkpoint"]["path"]).is_file()


def test_last_evaluations_are_told_as_such(advprop, tiny_yaml, tmp_path):
    result = advprop("train", tiny_yaml, "train.epochs=1", "eval.attack_steps=200", "eval.attack_images=200", "--workers",
                     "2", "--run", tmp_path / "run")
    assert "\nevaluating: epoch 1/1 100% step 10/10" in result.stderr, result.stderr


def test_term_drains_and_the_same_command_goes_on(advprop, start, tiny_yaml, tmp_path):
    line = ["train", tiny_yaml, "train.epochs=200", "eval.every_epochs=0", "--workers", "2", "--run",
            tmp_path / "run"]
    process = start(*line)
    for text in process.stderr:
        if text.startswith("epoch"):
            break
    status = json.loads(advprop("status", tmp_path / "run", "--json").stdout)
    assert status["state"] == "training" and len(status["worker"]) == 2
    shards = json.loads(advprop("status", tmp_path / "run", "--json", "--shards").stdout)["shards"]
    assert [len(worker["lane"]) >= 2 for worker in shards["worker"]] == [True, True]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    stopped = json.loads((tmp_path / "run" / "status.json").read_text())
    assert stopped["checkpoint"]["step"] == stopped["step"] > 0
    process = start(*line)
    for text in process.stderr:
        if text.startswith("epoch"):
            break
    going_on = json.loads(advprop("status", tmp_path / "run", "--json").stdout)
    assert going_on["generation"] == 2 and going_on["step"] >= stopped["step"]
    advprop("stop", tmp_path / "run")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
