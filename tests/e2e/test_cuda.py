"""The worker that nvcc built, on stand-ins for CUDA, cuDNN and NCCL that run on a CPU: what it computes, what
it survives and what it notices. (On a GPU: tests/gpu/run.)
"""
import json
import signal

import pytest
import standin
import support

pytestmark = standin.needs_all

# Where two orders of float sums stay together: small steps, groups that are not tiny, and a small attack,
# since a pixel whose gradient is zero but for rounding goes one way or the other (so it does between the cpu
# and ref devices).
CONFIG = {
    "device": "cuda",
    "cuda": {"precision": "fp32"},
    "train": {"epochs": 4, "batch": 80, "lanes": 4, "max_steps": 4},
    "attack": {"eps": 0.1, "step": 0.1},
    "optim": {"lr": 1e-5},
    "log": {"per_step": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Few test images: the final evaluation is not what is tested here."""
    return support.make_data(tmp_path_factory.mktemp("cuda data"), train=400, test=20)


def environment(**settings):
    return standin.environment(**{"DEVICES": 4, "TIMEOUT": 60, **settings})


def train(folder, data, name, *overrides, workers=1, check=0, settings={}, **changes):
    config = support.write_config(folder / f"{name}.yaml", data,
                                  **support.merged(support.merged(CONFIG, {"eval": {"batch": 20}}), changes))
    done = support.run("train", config, "--workers", workers, "--run", folder / name, "--quiet", *overrides,
                       check=check, env=environment(**settings))
    return done if check is None or check else folder / name


def losses(run_dir):
    return [[record["loss_clean"], record["loss_noise"], record["loss_adv"]]
            for record in support.records(run_dir, "step")]


def apart(a, b):
    assert len(a) == len(b) > 0
    return max(abs(x - y) for p, q in zip(a, b) for x, y in zip(p, q))


@pytest.mark.parametrize("workers", (1, 2, 4))
def test_losses_of_twenty_steps_in_fp32_are_those_of_the_cpu(data, workdir, workers):
    steps = {"train": {"epochs": 8, "batch": 160, "lanes": 4, "max_steps": 20},
             "model": {"arch": "resnet18", "width": 4, "stem": "small"}}
    cpu = losses(train(workdir, data, "cpu", device="cpu", **steps))
    cuda = losses(train(workdir, data, "cuda", workers=workers, **steps))
    assert apart(cpu, cuda) < 1e-4


# Roundings of 11 and 8 bits in every layer.
@pytest.mark.parametrize("precision, bound", (("fp16", 0.02), ("bf16", 0.15)))
def test_losses_in_sixteen_bits_stay_near(data, workdir, precision, bound):
    fp32 = losses(train(workdir, data, "fp32"))
    short = losses(train(workdir, data, precision, cuda={"precision": precision}))
    assert 0 < apart(fp32, short) < bound


VARIANTS = {
    "advprop, cutmix, average": {"train": {"mode": "advprop"}, "attack": {"steps": 2},
                                 "mix": {"kind": "cutmix", "noise": True, "adv": True},
                                 "optim": {"ema_decay": 0.9}},
    "vanilla": {"train": {"mode": "vanilla"}},
    "resnet50, bn.sync full": {"model": {"arch": "resnet50", "width": 8},
                               "bn": {"sync": "full"}},
    "resnext50": {"model": {"arch": "resnext50_32x4d", "width": 16}, "bn": {"sync": "none"}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_those_of_the_cpu(data, workdir, variant):
    changes = support.merged(VARIANTS[variant], {"train": {"batch": 40, "lanes": 2, "max_steps": 3}})
    cpu = losses(train(workdir, data, "cpu", device="cpu", **changes))
    cuda = losses(train(workdir, data, "cuda", workers=2, **changes))
    # In deep networks of few channels a pixel that went the other way shows, and rounding grows.
    clean_and_noise = [[step[:2] for step in run[:1]] for run in (cpu, cuda)]
    assert apart(*clean_and_noise) < 1e-5
    assert apart(cpu, cuda) < 2e-2


def test_any_order_of_streams_and_plain_launches_give_the_same_bits(data, workdir):
    states = [support.state_of(train(workdir, data, f"seed{seed}", workers=2, settings={"SEED": seed}))
              for seed in range(1, 9)]
    states.append(support.state_of(train(workdir, data, "plain", "cuda.graphs=off", workers=2)))
    states.append(support.state_of(train(workdir, data, "recompute", "train.recompute=on", workers=2)))
    for state in states[1:]:
        support.assert_same_state(state, states[0])


def test_workers_that_each_see_one_gpu_of_their_own_take_it(data, workdir):
    """As srun --gpus-per-task=1 shows them."""
    all_seen = train(workdir, data, "all", workers=2)
    own_seen = train(workdir, data, "own", workers=2, settings={"DEVICES": 1, "BOUND": 1})
    support.assert_same_state(support.state_of(own_seen), support.state_of(all_seen))


def test_synchronised_bn_over_two_gpus_is_that_of_one_with_all_lanes(data, workdir):
    one = losses(train(workdir, data, "one", bn={"sync": "full"}))
    two = losses(train(workdir, data, "two", workers=2, bn={"sync": "full"}))
    assert apart(one, two) < 1e-5


def test_missing_all_reduce_is_noticed(data, workdir):
    right = losses(train(workdir, data, "right", workers=2, optim={"lr": 0.05}))
    wrong = losses(train(workdir, data, "wrong", workers=2, optim={"lr": 0.05},
                         settings={"NCCL_SKIP": "*:3"}))
    assert apart(right, wrong) > 1e-3


# Streams by number, after the default ones of the four devices: 4 computes, 5 brings images in, 6 is NCCL's. (5 waits
# for 4, too, before it writes into a slot again: the host has waited for that already, so only
# tests/kernel/test_cuda.c can notice.)
@pytest.mark.parametrize("waits", ("4:5", "6:4", "4:6"))
def test_missing_waits_are_noticed(data, workdir, waits):
    """No wait of the one stream for the other: some order of the streams gives another result or a crash."""
    right = support.state_of(train(workdir, data, "right", "cuda.graphs=off", workers=2))
    for seed in range(1, 9):
        done = train(workdir, data, f"seed{seed}", "cuda.graphs=off", workers=2, check=None,
                     settings={"IGNORE_WAITS": waits, "SEED": seed})
        if done.returncode != 0 or support.state_of(workdir / f"seed{seed}") != right:
            return
    pytest.fail(f"nothing noticed without waits {waits}")


def test_kill_and_drain_end_bitwise_where_an_undisturbed_run_ends(data, workdir):
    straight = support.state_of(train(workdir, data, "straight", workers=2, cuda={"precision": "fp16"},
                                      optim={"ema_decay": 0.9}, train={**CONFIG["train"], "max_steps": 12}))
    config = support.write_config(workdir / "killed.yaml", data,
                                  **support.merged(CONFIG, {"cuda": {"precision": "fp16"},
                                                            "optim": {"ema_decay": 0.9},
                                                            "train": {"max_steps": 12},
                                                            "eval": {"batch": 20},
                                                            "checkpoint": {"every_s": 0.01}}))
    for until, number in ((3, signal.SIGTERM), (7, signal.SIGKILL)):
        process = support.start("train", config, "--workers", 2, "--run", workdir / "killed", "--quiet",
                                env=environment())
        support.wait_for_step(workdir / "killed", until, process)
        if number == signal.SIGTERM:
            process.send_signal(number)
        else:
            support.kill_everything(process, workdir / "killed")
        process.communicate(timeout=support.TIMEOUT_S)
    support.run("train", config, "--workers", 2, "--run", workdir / "killed", "--quiet", env=environment())
    support.assert_same_state(support.state_of(workdir / "killed"), straight)


def test_overflow_in_fp16_halves_the_factor_and_leaves_the_step_out(data, workdir):
    run_dir = train(workdir, data, "fp16", cuda={"precision": "fp16", "loss_scale": 65536}, train={"max_steps": 4})
    meta = support.read_safetensors(support.newest_checkpoint(run_dir))[1]
    assert int(meta["loss_scale"]) < 65536
    log = (run_dir / "logs" / "rank-1.log").read_text()
    assert 65536 // 2 ** log.count("gradient overflowed: step left out") == int(meta["loss_scale"])
    assert all(loss < 10 for step in losses(run_dir) for loss in step)


@pytest.mark.parametrize("kind", ("error", "hang", "die"))
def test_failing_nccl_ends_the_start_with_one_cause_and_the_run_goes_on(data, workdir, kind):
    """A start that fails is followed by another, which the injection hits as well: the supervisor gives up."""
    done = train(workdir, data, kind, "cluster.silent_timeout_s=5", workers=2, check=None,
                 settings={"NCCL_FAIL": f"1:9:{kind}"})
    assert done.returncode in (69, 70, 75)
    assert "rank" in done.stderr
    assert not any(support.pids_of(workdir / kind).values())


def test_failing_recording_of_gradient_sums_ends_the_run_with_its_own_cause(data, workdir):
    """The other worker replays its recording, whose sums nobody else begins: it is told of a lost peer. Two lanes
    record two noise passes and two train passes, of which the last one has the gradient's sums.
    """
    done = train(workdir, data, "run", "cuda.bucket_mb=0.004", "cluster.silent_timeout_s=20", workers=2, check=None,
                 settings={"GRAPH_FAIL": "2:4"})
    assert done.returncode == 69, done.stderr
    assert "cudaGraphInstantiate" in done.stderr and "out of memory" in done.stderr
    logs = [(workdir / "run" / "logs" / f"rank-{rank}.log").read_text() for rank in (1, 2)]
    assert "cudaGraphInstantiate" in logs[1]
    assert not any("not done after" in log or "did not finish within" in log for log in logs)


@pytest.mark.parametrize("mode", ("vanilla", "fast_advprop"))
def test_worker_that_is_late_for_longer_than_the_deadline_is_waited_for(data, workdir, mode):
    """It lives, so others do not give up in the first sum on the device. A worker makes its three places for images
    known to CUDA before its first step, which takes one of them 6 s here.
    """
    train(workdir, data, "run", "cluster.silent_timeout_s=3", "attack.shuffle=off", workers=2,
          train={"mode": mode, "max_steps": 2}, settings={"LATE": "2:2"})
    assert (workdir / "run" / "generation").read_text().strip() == "1"


def test_gradients_leave_before_the_backward_pass_ends(data, workdir):
    """In the order in which the device did things; the small network's gradient is cut into pieces of 4 kB."""
    found = False
    for seed in range(1, 5):
        trace = workdir / f"trace{seed}-%r.jsonl"
        train(workdir, data, f"seed{seed}", "cuda.graphs=off", "cuda.bucket_mb=0.004", workers=2,
              train={"max_steps": 1}, settings={"TRACE": trace, "SEED": seed})
        for file in workdir.glob(f"trace{seed}-*.jsonl"):
            done = [json.loads(line) for line in file.read_text().splitlines()]
            names = [str(operation.get("name", operation.get("kind"))) for operation in done]
            sums = [i for i, name in enumerate(names) if "allreduce" in name.lower()]
            backward = [i for i, name in enumerate(names) if "bn_backward_data" in name]
            found |= bool(sums and backward) and any(backward[0] < i < backward[-1] for i in sums[1:])
    assert found


def test_auxiliary_images_are_normalised_while_sums_of_main_ones_travel(data, workdir):
    """In the order in which the device did things. A noise pass normalises once a layer, and the sums of the train
    pass's first layer come next: what is normalised before they are there are its auxiliary images.
    """
    layers = 17  # of ResNet-18, projections not counted
    for seed in range(1, 9):
        trace = workdir / f"trace{seed}-%r.jsonl"
        train(workdir, data, f"seed{seed}", "cuda.graphs=off", workers=2, bn={"sync": "full"},
              train={"max_steps": 1}, settings={"TRACE": trace, "SEED": seed})
        for file in workdir.glob(f"trace{seed}-*.jsonl"):
            names = [json.loads(line)["name"] for line in file.read_text().splitlines()]
            first = [i for i, name in enumerate(names) if "AllReduce" in name][1]  # after that of NCCL's start
            before = sum("bn_forward" in name for name in names[:first])
            assert before in (layers, layers + 1)
            if before > layers:
                return
    pytest.fail("nothing was normalised meanwhile")


def test_images_of_the_next_step_come_in_while_one_computes(data, workdir):
    """In the order in which the device did things: before the last kernel of a step that the host waits for."""
    for seed in range(1, 5):
        trace = workdir / f"trace{seed}.jsonl"
        train(workdir, data, f"seed{seed}", "cuda.graphs=off", train={"max_steps": 4},
              settings={"TRACE": trace, "SEED": seed})
        done = [json.loads(line) for line in trace.read_text().splitlines()]
        ends = [i for i, operation in enumerate(done) if "k_nonfinite_parts" in operation["name"]]
        stream = done[ends[0]]["stream"]
        copies = [i for i, operation in enumerate(done)
                  if operation["name"] == "host to device" and operation["stream"] != stream]
        assert len(copies) == len(ends) == 4
        if any(copy < end for copy, end in zip(copies[1:], ends)):
            return
    pytest.fail("every copy came after the step before it")


PLANS = {
    "fp16, attacked evaluation": {"cuda": {"precision": "fp16"}, "eval": {"attack_steps": 1, "attack_images": 20},
                                  "optim": {"ema_decay": 0.9}},
    "gradients not reused, cutmix": {"attack": {"reuse_gradients": False, "steps": 2},
                                     "mix": {"kind": "cutmix", "noise": True, "adv": True}},
    "bn.sync full, recompute": {"bn": {"sync": "full"}, "train": {"recompute": True}},
    "vanilla": {"train": {"mode": "vanilla"}},
}


@pytest.mark.parametrize("plan", PLANS)
def test_memory_is_taken_once_and_what_is_planned_is_used(data, workdir, plan):
    """Two epochs with an evaluation after each: nothing is allocated or planned once training begins."""
    changes = support.merged({"train": {"epochs": 2, "max_steps": 0, "batch": 40, "lanes": 2},
                              "eval": {"every_epochs": 1}}, PLANS[plan])
    run_dir = train(workdir, data, "run", settings={"TRACE": workdir / "trace.jsonl"}, **changes)
    done = [json.loads(line) for line in (workdir / "trace.jsonl").read_text().splitlines()]
    calls = [call["kind"] for call in done if call["stream"] == -1]
    assert calls == ["plan"] * (len(calls) - 1) + ["malloc"]
    plans, runs = ({(call["name"], call["bytes"]) for call in done if call["kind"] == kind}
                   for kind in ("plan", "dnn"))
    assert plans == runs
    assert len(support.records(run_dir, "evaluation")) > 1
    log = (run_dir / "logs" / "rank-1.log").read_text()
    assert "GPU memory planned" in log and "not pinned" not in log


@pytest.mark.parametrize("workers, kept_mb", ((1, 512), (2, 2560)))
def test_memory_that_does_not_suffice_ends_the_start_before_the_first_step(data, workdir, workers, kept_mb):
    """kept_mb: for CUDA's libraries, with more workers for NCCL's buffers, too."""
    changes = {"train": {"max_steps": 1}, "eval": {"attack_steps": 1}}
    train(workdir, data, "ample", workers=workers, settings={"TRACE": workdir / "trace-%r.jsonl"}, **changes)
    trace = (workdir / "trace-1.jsonl").read_text()
    enough = [json.loads(line)["bytes"] for line in trace.splitlines() if '"malloc"' in line][0] + (kept_mb << 20)
    train(workdir, data, "enough", workers=workers, settings={"MEMORY": enough}, **changes)
    assert f" kept_mb={kept_mb} " in (workdir / "enough" / "logs" / "rank-1.log").read_text()
    done = train(workdir, data, "little", workers=workers, check=69, settings={"MEMORY": enough - 1}, **changes)
    line, = done.stderr.strip().splitlines()
    for part in ("GPU memory does not suffice", "MiB are needed (activations ", "weights and gradients ",
                 "workspace ", "MiB are free", "lower train.batch or eval.batch"):
        assert part in line
    assert (workdir / "little" / "generation").read_text().strip() == "1"
    assert not support.records(workdir / "little", "step")


def test_engines_that_do_not_run_are_replaced(data, workdir):
    """cuDNN builds engine 2 for every convolution and refuses to run it: every start does without, and says so."""
    few = {"train": {"max_steps": 3}}
    theirs = losses(train(workdir, data, "theirs", **few))
    run_dir = train(workdir, data, "ours", settings={"CUDNN_UNFIT": 2}, **few)
    assert losses(run_dir) == theirs  # the stand-in's engines compute alike
    log = (run_dir / "logs" / "rank-1.log").read_text()
    assert "engines were replaced" in log and "eng2 k2=2 did not run" in log
    engines = json.loads((run_dir / "engines.json").read_text())["engines"]
    assert {engine["engine"] for engine in engines} == {4}
    # After three steps, and after the evaluation, whose batch differs.
    told = [line for line in log.splitlines() if "convolutions planned" in line]
    assert len(told) == 2 and all(f"plans={len(engines)} " in line for line in told)


def test_workers_plan_alike_and_take_one_piece_each(data, workdir):
    """Beside it there is the number with which NCCL's first sum is made."""
    train(workdir, data, "run", workers=2, settings={"TRACE": workdir / "trace-%r.jsonl"})
    for file in workdir.glob("trace-*.jsonl"):
        done = [json.loads(line) for line in file.read_text().splitlines()]
        assert [call["bytes"] > 8 for call in done if call["kind"] == "malloc"] == [True, False]
    assert len(list(workdir.glob("trace-*.jsonl"))) == 2


def test_accuracy_is_that_of_the_cpu(tmp_path_factory, workdir):
    """The quick start's network and recipe, on a part of its data that fits the time. Averaged, since a hundred
    steps leave weights that jump: over ten seeds the CPU has 0.65 to 0.76, without the average 0.45 to 0.67."""
    data = support.make_data(tmp_path_factory.mktemp("part"), train=1000, test=200)
    changes = {"train": {"epochs": 4, "max_steps": 0, "batch": 40, "lanes": 2}, "optim": {"lr": 0.03, "ema_decay": 0.95},
               "bn": {"momentum": 0.3}, "eval": {"batch": 50}}
    right = {}
    for device in ("cpu", "cuda"):
        run_dir = train(workdir, data, device, workers=2, device=device, cuda={"precision": "fp16"}, **changes)
        right[device] = [r for r in support.records(run_dir, "evaluation") if r["name"] == "main"][-1]["top1"] / 200
    assert right["cpu"] > 0.6
    assert abs(right["cpu"] - right["cuda"]) < 0.15  # three standard deviations of such a difference
