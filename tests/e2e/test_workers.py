"""The number of workers does not change the result."""
import signal

import pytest
import support

VARIANTS = {
    "fast_advprop": {},
    "advprop, cutmix, average": {"train": {"mode": "advprop"}, "attack": {"steps": 2},
                                 "mix": {"kind": "cutmix", "noise": True, "adv": True},
                                 "optim": {"ema_decay": 0.9}},
}


def train(config, run_dir, workers, *overrides, check=0):
    return support.run("train", config, "--workers", workers, "--run", run_dir, "--quiet", *overrides,
                       check=check)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_two_and_four_workers_end_bitwise_equal_after_fifty_steps(tiny_data, workdir, variant):
    limits = {"train": {"epochs": 4, "max_steps": 50}}
    config = support.write_config(workdir / "run.yaml", tiny_data,
                                  **support.merged(VARIANTS[variant], limits))
    states = []
    for workers in (1, 2, 4):
        train(config, workdir / f"w{workers}", workers)
        states.append(support.state_of(workdir / f"w{workers}"))
    support.assert_same_state(states[1], states[0])
    support.assert_same_state(states[2], states[0])


@pytest.mark.parametrize("stem", ("small", "imagenet"))
def test_recomputing_does_not_change_the_result(tiny_data, workdir, stem):
    config = support.write_config(workdir / "run.yaml", tiny_data,
                                  train={"max_steps": 5}, model={"arch": "resnet50", "width": 4, "stem": stem})
    for name in ("off", "on"):
        train(config, workdir / name, 1, f"train.recompute={name}")
    support.assert_same_state(support.state_of(workdir / "on"), support.state_of(workdir / "off"))


def test_workers_that_change_at_restarts_do_not_change_the_result(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data,
                                  train={"epochs": 4, "max_steps": 50}, log={"per_step": True})
    train(config, workdir / "straight", 2)
    for workers, until in ((4, 12), (1, 25), (2, None)):
        if until is None:
            train(config, workdir / "changing", workers)
            break
        process = support.start("train", config, "--workers", workers, "--run", workdir / "changing",
                                "--quiet")
        support.wait_for_step(workdir / "changing", until, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=support.TIMEOUT_S)
        assert process.returncode == 75
    support.assert_same_state(support.state_of(workdir / "changing"),
                              support.state_of(workdir / "straight"))


def first_losses(config, run_dir, workers):
    train(config, run_dir, workers)
    return [(r["loss_clean"], r["loss_noise"], r["loss_adv"]) for r in
            support.records(run_dir, "step")]


def assert_close(a, b):
    """Sums in another order: equal weights give equal losses, then rounding grows from step to step."""
    assert len(a) == len(b) == 3
    for bound, x, y in zip((1e-6, 1e-4, 1e-2), a, b):
        assert max(abs(p - q) for p, q in zip(x, y)) < bound


def test_worker_counts_that_are_no_power_of_two_agree_closely(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data,
                                  train={"batch": 120, "lanes": 6, "max_steps": 3},
                                  optim={"lr": 0.01}, log={"per_step": True})
    assert_close(first_losses(config, workdir / "w3", 3), first_losses(config, workdir / "w2", 2))


def test_synchronised_bn_over_two_workers_is_that_of_one(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, bn={"sync": "full"},
                                  train={"max_steps": 3}, optim={"lr": 0.01},
                                  log={"per_step": True})
    assert_close(first_losses(config, workdir / "w2", 2), first_losses(config, workdir / "w1", 1))
