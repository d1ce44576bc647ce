"""A step of `advprop train` beside the step of the oracle, for a list of configurations.

    APD_BUILD=build /usr/bin/python3 tests/oracle/compare.py

prints the worst differences of every case as the table of docs/method.md; tests/e2e/test_oracle.py holds them
to their bounds.
"""
import collections
import pathlib
import sys
import tempfile

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import network  # noqa: E402
import oracle  # noqa: E402
import support  # noqa: E402

# Agreement asked for. Of losses and statistics relative, of a tensor's momentum relative to its norm; a weight's
# change is the momentum's, on top of rounding the weight itself to float.
LOSS, MOMENTUM, STATISTICS = 1e-5, 1e-4, 1e-5
FLOAT_ROUNDING = 2.0 ** -24

BASE = {
    "seed": 11,
    "augment": "none",
    "model": {"arch": "resnet18", "width": 8, "stem": "small"},
    "train": {"mode": "fast_advprop", "epochs": 4, "batch": 40, "lanes": 2, "max_steps": 1},
    "attack": {"noise_prob": 1},
    "optim": {"lr": 0.05, "weight_decay": 0.01},
    "log": {"per_step": True},
    "eval": {"batch": 40, "attack_steps": 0, "every_epochs": 0},
    "cpu": {"threads": 1},
}
Case = collections.namedtuple("Case", "name changes side workers start", defaults=({}, 20, 1, 1))
ONE = {"train": {"batch": 20, "lanes": 1}}
FOUR = {"train": {"batch": 80, "lanes": 4}}
CASES = [
    Case("vanilla", {"train": {"mode": "vanilla"}}, start=17),
    Case("vanilla, 2 steps", {"train": {"mode": "vanilla", "max_steps": 2}}, side=14, start=26),
    Case("fast_advprop 4:1", start=51),
    Case("the same, 2 workers", start=51, workers=2),
    Case("the same, device ref", {"device": "ref"}, start=51),
    Case("ratio 1:1", {"train": {"clean_parts": 1, "aux_parts": 1}}, start=22),
    Case("K = 2", {"attack": {"steps": 2, "eps": 3}}, start=12),
    Case("start from clean", {"attack": {"noise_prob": 0}}, start=18),
    Case("shuffle off", {"attack": {"shuffle": False}}, start=34),
    Case("1 lane", ONE, start=5),
    Case("4 lanes", FOUR, side=14, start=10),
    Case("bn.sync none, 4 lanes", {**FOUR, "bn": {"sync": "none"}}, side=14, start=10),
    Case("bn.sync none, 4 lanes, 2 workers", {**FOUR, "bn": {"sync": "none"}}, side=14, start=10, workers=2),
    Case("bn.sync full, 1 lane", {**ONE, "bn": {"sync": "full"}}, start=5),
    Case("bn.sync full, 2 lanes", {"bn": {"sync": "full"}}, start=19),
    Case("bn.sync full, 4 lanes, 2 workers", {**FOUR, "bn": {"sync": "full"}}, side=14, start=6, workers=2),
    Case("smoothing, nesterov, wd", {"train": {"label_smoothing": 0.1},
                                     "optim": {"nesterov": True, "weight_decay": 0.05}}, start=51),
    Case("weights 1/1/1", {"train": {"weight_noise": 1, "weight_adv": 1}}, start=51),
    Case("weights 0.5/0.8/2", {"train": {"weight_clean": 0.5, "weight_noise": 0.8, "weight_adv": 2}}, start=51),
    Case("lr factors 1/2/0.5", {"optim": {"lr_factor_main": 2, "lr_factor_aux": 0.5}}, start=51),
    Case("resnet50, 1 lane", {"model": {"arch": "resnet50", "width": 4}, **ONE}, side=14, start=31),
    Case("imagenet stem, 3 channels, 1 lane", {"model": {"stem": "imagenet"}, "data": {"channels": 3}, **ONE},
         side=44),
]


def make_data(folder, side, train=320, test=40):
    """Random bytes: no two neighbours alike, so there are no ties in max pooling."""
    folder.mkdir(parents=True)
    random = np.random.RandomState(side)
    for name, count in (("train", train), ("t10k", test)):
        images = random.randint(40, 216, (count, side, side))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(support.idx_bytes(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(support.idx_bytes(np.arange(count) % 10))
    return folder


def make_start(config, channels, seed):
    """Weights with every batch norm its own: gammas around 1, betas around 0.3, statistics that are nobody's."""
    random = np.random.RandomState(seed)
    model = config["model"]
    has_aux = config["train"]["mode"] != "vanilla"
    net = network.build(model["arch"], model["width"], model["stem"] == "small", channels, 10, has_aux, 1e-5)
    start = {}
    for name, value in net.state_dict().items():
        shape = tuple(value.shape)
        if name.endswith("running_mean"):
            tensor = random.normal(0, 0.3, shape)
        elif name.endswith("running_var"):
            tensor = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 4:
            tensor = random.normal(0, np.sqrt(2 / (shape[0] * shape[2] * shape[3])), shape)
        elif name.startswith("fc."):
            tensor = random.uniform(-0.2, 0.2, shape)
        elif name.endswith("weight"):
            tensor = random.uniform(0.5, 1.2, shape)
        else:
            tensor = random.normal(0.3, 0.3, shape)
        start[name] = tensor.astype(np.float32)
    return start


Run = collections.namedtuple("Run", "config start images labels plan losses after")


def run_product(case, folder):
    """One `advprop train` of the case: what it started from, the plan, and what it left."""
    folder.mkdir(parents=True)
    data = make_data(folder / "data", case.side)
    config = support.merged(BASE, case.changes)
    start = make_start(config, max(1, config.get("data", {}).get("channels", 1)), case.start)
    support.write_safetensors(folder / "start.safetensors", start)
    config["init_from"] = str(folder / "start.safetensors")
    path = support.write_config(folder / "run.yaml", data, **config)
    steps = config["train"]["max_steps"]
    plan = support.run("data", "plan", path, "--epoch", 0, "--steps", steps).stdout
    support.run("train", path, "--workers", case.workers, "--run", folder / "run", "--quiet")
    losses = [{branch: record["loss_" + branch] for branch in ("clean", "noise", "adv")}
              for record in support.records(folder / "run", "step")]
    after, _ = support.read_safetensors(support.newest_checkpoint(folder / "run"))
    return Run(config, start, support.read_idx(data / "train-images-idx3-ubyte"),
               support.read_idx(data / "train-labels-idx1-ubyte"), oracle.parse_plan(plan), losses, after)


def run_oracle(run, step_class=oracle.Step, dtype=torch.float64, config=None, note=False):
    """(losses of each step, the Step after them)"""
    step = step_class(config or run.config, run.start, run.images, run.labels, dtype)
    for choice in network.choices(step.net):
        choice.note = [] if note else None
    return [step.run(number, lanes) for number, lanes in enumerate(run.plan)], step


def closest_choice(run):
    """ReLU, max pool and the attack's sign choose. How near the closest choice of the steps is to going the other
    way, in units of what float instead of double changes at that place at most: above 1, no rounding decides."""
    double = run_oracle(run, note=True)[1]
    single = run_oracle(run, dtype=torch.float32, note=True)[1]
    pairs = [pair for a, b in zip(network.choices(double.net), network.choices(single.net))
             for pair in zip(a.note, b.note)]
    for a, b in zip(double.image_gradients, single.image_gradients):
        pairs += zip(a.abs().unbind(), torch.where(a.sign() == b.sign(), b.abs(), -b.abs()).unbind())
    return min((a.min() / (a - b.double()).abs().max()).item() for a, b in pairs)


def relative(found, expected):
    return np.linalg.norm((found - expected).ravel()) / max(np.linalg.norm(expected.ravel()), 1e-30)


def differences(run, losses, step):
    """{kind: (worst difference, where)} between what the product left and what the oracle computed."""
    expected = step.state()
    assert set(run.after) == set(expected), set(run.after) ^ set(expected)
    assert len(run.losses) == len(losses)
    worst = dict.fromkeys(("loss", "momentum", "weights", "statistics"), (0.0, ""))

    def put(kind, value, where):
        worst[kind] = max(worst[kind], (float(value) if np.isfinite(value) else np.inf, where))

    for found, wanted in zip(run.losses, losses):
        for branch, value in wanted.items():
            put("loss", abs(found[branch] - value) / max(abs(value), 1e-30), branch)
    for name, value in expected.items():
        found = run.after[name].astype(np.float64)
        if name.startswith("momentum."):
            put("momentum", relative(found, value), name)
        elif "running_" in name:
            put("statistics", relative(found, value), name)
        else:
            rounding = FLOAT_ROUNDING * len(losses) * np.linalg.norm(value)
            moved = np.linalg.norm(value - run.start[name])
            put("weights", max(0, np.linalg.norm(found - value) - rounding) / moved, name)
    return worst


BOUNDS = {"loss": LOSS, "momentum": MOMENTUM, "weights": MOMENTUM, "statistics": STATISTICS}


def disagreements(worst):
    return [f"{kind}: {value:.2e} > {BOUNDS[kind]:.0e} at {where}" for kind, (value, where) in worst.items()
            if value > BOUNDS[kind]]


def main():
    torch.set_num_threads(1)
    print("| case | losses | momentum | weights | statistics | closest choice |\n|---|---|---|---|---|---|")
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(CASES):
            run = run_product(case, pathlib.Path(folder) / str(number))
            worst = differences(run, *run_oracle(run))
            bad += [f"{case.name}: {text}" for text in disagreements(worst)]
            numbers = " | ".join(f"{value:.1e}" for value, _ in worst.values())
            print(f"| {case.name} | {numbers} | {closest_choice(run):.1f} |", flush=True)
    print("| bound | " + " | ".join(f"{BOUNDS[kind]:.0e}" for kind in worst) + " | |")
    print("\n".join(bad), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
