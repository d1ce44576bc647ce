"""Kill anything at any moment: the same command goes on and ends where an undisturbed run ends."""
import os
import random
import subprocess
import time

import support

KILLS = 20
EPOCHS = 40


def one_kill(rng, process, run_dir):
    """Waits a random time, then kills; returns what, or None if the run had ended before."""
    what = rng.choice(["worker", "coordinator", "everything"])
    try:
        process.wait(timeout=rng.uniform(0.3, 2.2))
        return None
    except subprocess.TimeoutExpired:
        pass
    pids = support.pids_of(run_dir)
    if what == "everything":
        support.kill_everything(process, run_dir)
    elif what == "worker" and pids["advprop-worker"]:
        support.kill(rng.choice(pids["advprop-worker"]))
    elif what == "coordinator" and pids["advpropd"]:
        support.kill(pids["advpropd"][0])
    else:
        return "nothing"  # between two starts
    return what


def run_under_fire(rng, command, run_dir, kills):
    """Trains to the end while things are killed, at most KILLS in all; counts them in `kills`."""
    process = support.start(*command, "--run", run_dir)
    while sum(kills.values()) < KILLS:
        what = one_kill(rng, process, run_dir)
        if what is None:
            break
        if what != "nothing":
            kills[what] += 1
        if what == "everything":
            process.communicate()
            process = support.start(*command, "--run", run_dir)
    output, _ = process.communicate(timeout=support.TIMEOUT_S)
    if "made no progress: giving up" in output:  # killed faster than it starts: a person would type it again
        assert process.returncode in (69, 70), output
        support.run(*command, "--run", run_dir)
    else:
        assert process.returncode == 0, output


def receipts(run_dir):
    assert all(record["match"] for record in support.records(run_dir, "receipt"))
    return {record["epoch"]: record["sum"] for record in support.records(run_dir, "receipt")}


def test_twenty_random_kills_end_bitwise_where_an_undisturbed_run_ends(tiny_data, workdir):
    seed = int(os.environ.get("APD_TEST_SEED", time.time_ns() % 1000000))
    print(f"seed {seed} (APD_TEST_SEED={seed} repeats it)")
    rng = random.Random(seed)
    config = support.write_config(workdir / "run.yaml", tiny_data, train={"epochs": EPOCHS},
                                  eval={"every_epochs": 10}, checkpoint={"every_s": 0.2})
    command = ("train", config, "--workers", 2, "--quiet", "--max-restarts", 100)
    straight = workdir / "straight"
    support.run(*command, "--run", straight)
    assert len(receipts(straight)) == EPOCHS

    kills = {"worker": 0, "coordinator": 0, "everything": 0}
    for attempt in range(5):  # a fast machine ends a run before it has seen all kills
        run_dir = workdir / f"killed-{attempt}"
        run_under_fire(rng, command, run_dir, kills)
        support.assert_same_state(support.state_of(run_dir), support.state_of(straight))
        assert receipts(run_dir) == receipts(straight)
        if sum(kills.values()) == KILLS:
            break
    print(kills)
    assert sum(kills.values()) == KILLS


def test_drained_run_goes_on_bitwise(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, train={"epochs": 6},
                                  log={"per_step": True}, mix={"kind": "mixup"},
                                  optim={"ema_decay": 0.99})
    support.run("train", config, "--workers", 2, "--run", workdir / "straight", "--quiet")
    process = support.start("train", config, "--workers", 2, "--run", workdir / "drained", "--quiet")
    support.wait_for_step(workdir / "drained", 4, process)
    support.run("drain", workdir / "drained")
    process.communicate(timeout=support.TIMEOUT_S)
    assert process.returncode == 75
    assert support.commits(workdir / "drained")[-1]["reason"] == "drain"
    report = support.run("train", config, "--workers", 2, "--run", workdir / "drained", "--quiet")
    for epoch in range(1, 7):  # also the epochs of the first start
        assert f"epoch {epoch}: 1,000 of 1,000 receipts match" in report.stdout
    support.assert_same_state(support.state_of(workdir / "drained"),
                              support.state_of(workdir / "straight"))


def test_newest_checkpoint_that_is_damaged_is_passed_over(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, train={"epochs": 2})
    command = ("train", config, "--workers", 1, "--quiet")
    support.run(*command, "--run", workdir / "straight")
    support.run(*command, "--run", workdir / "damaged")
    newest = support.newest_checkpoint(workdir / "damaged")
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 4
    newest.write_bytes(raw)
    (workdir / "damaged" / "status.json").unlink()
    support.run(*command, "--run", workdir / "damaged")
    events = (workdir / "damaged" / "events.jsonl").read_text()
    assert newest.name in events and "SHA-256" in events
    support.assert_same_state(support.state_of(workdir / "damaged"),
                              support.state_of(workdir / "straight"))
