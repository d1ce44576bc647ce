"""A step of `advprop train` beside the step of the oracle, for a list of configurations.

    APD_BUILD=build /usr/bin/python3 tests/oracle/compare.py [--only TEXT]

prints the worst differences of every case (whose name contains TEXT) as the table of docs/method.md;
tests/e2e/test_oracle.py holds them to their bounds.

    /usr/bin/python3 tests/oracle/compare.py --search TEXT [--tries 100]

prints starts whose closest choice is above 1, each better than the last, to pick Case.start from. It needs no build.
"""
import argparse
import collections
import functools
import pathlib
import sys
import tempfile

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import network  # noqa: E402
import oracle  # noqa: E402
import plan  # noqa: E402
import support  # noqa: E402

# Agreement asked for, relative to the norm of the tensor, of a loss to itself. Of a change of weights relative to
# the norm of the change, on top of rounding the weight itself to float.
BOUNDS = {"loss": 1e-5, "shared": 1e-4, "main": 1e-4, "aux": 1e-4, "weights": 1e-4, "statistics": 1e-5, "ema": 1e-4}
TEN_STEPS = {"loss": 1e-3}
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
Case = collections.namedtuple("Case", "name changes side workers start bounds", defaults=({}, 20, 1, 1, BOUNDS))
ONE = {"train": {"batch": 20, "lanes": 1}}
FOUR = {"train": {"batch": 80, "lanes": 4}}
SMALL_LR = {"optim": {"lr": 0.0005}}


def case(name, *changes, **fields):
    """A Case of several changes of BASE, later ones over earlier ones."""
    return Case(name, functools.reduce(support.merged, changes, {}), **fields)


def train(**options):
    return {"train": options}


def attack(**options):
    return {"attack": options}


def mix(kind, **options):
    return {"mix": {"kind": kind, **options}}


ADVPROP = train(mode="advprop", batch=24)
CASES = [
    case("vanilla", {"train": {"mode": "vanilla"}}, start=17),
    case("vanilla, 2 steps", {"train": {"mode": "vanilla", "max_steps": 2}}, side=14, start=26),
    case("fast_advprop 4:1", start=51),
    case("the same, 2 workers", start=51, workers=2),
    case("the same, device ref", {"device": "ref"}, start=51),
    case("ratio 1:1", {"train": {"clean_parts": 1, "aux_parts": 1}}, start=22),
    case("K = 2", {"attack": {"steps": 2, "eps": 3}}, start=12),
    case("start from clean", {"attack": {"noise_prob": 0}}, start=18),
    case("shuffle off", {"attack": {"shuffle": False}}, start=34),
    case("1 lane", ONE, start=5),
    case("4 lanes", FOUR, side=14, start=10),
    case("bn.sync none, 4 lanes", {**FOUR, "bn": {"sync": "none"}}, side=14, start=10),
    case("bn.sync none, 4 lanes, 2 workers", {**FOUR, "bn": {"sync": "none"}}, side=14, start=10, workers=2),
    case("bn.sync full, 1 lane", {**ONE, "bn": {"sync": "full"}}, start=5),
    case("bn.sync full, 2 lanes", {"bn": {"sync": "full"}}, start=19),
    case("bn.sync full, 4 lanes, 2 workers", {**FOUR, "bn": {"sync": "full"}}, side=14, start=6, workers=2),
    case("smoothing, nesterov, wd", {"train": {"label_smoothing": 0.1},
                                     "optim": {"nesterov": True, "weight_decay": 0.05}}, start=51),
    case("weights 1/1/1", {"train": {"weight_noise": 1, "weight_adv": 1}}, start=51),
    case("weights 0.5/0.8/2", {"train": {"weight_clean": 0.5, "weight_noise": 0.8, "weight_adv": 2}}, start=51),
    case("lr factors 1/2/0.5", {"optim": {"lr_factor_main": 2, "lr_factor_aux": 0.5}}, start=51),
    case("weight decay 0", {"optim": {"weight_decay": 0}}, start=51),
    case("K = 5", attack(steps=5, eps=3), side=14, start=1),
    case("K = 2, reuse off", attack(steps=2, reuse_gradients=False), start=34),
    case("reuse off, weight_noise 0", attack(reuse_gradients=False), train(weight_noise=0), start=51),
    case("targeted, reuse off", attack(goal="targeted", reuse_gradients=False), start=35),
    case("BN of the attack eval", attack(bn_mode="eval"), start=35),
    case("BN of the attack eval, K = 2, 4 lanes, 2 workers", FOUR, attack(steps=2, bn_mode="eval"), side=14,
         workers=2, start=31),
    case("targeted, eval, reuse off, K = 5",
         attack(steps=5, eps=3, goal="targeted", bn_mode="eval", reuse_gradients=False), side=14, start=12),
    case("advprop", ADVPROP, side=14, start=73),
    case("advprop, 2 workers", ADVPROP, side=14, workers=2, start=73),
    case("advprop, K = 1, 4 lanes, bn.sync none", ADVPROP, train(batch=40, lanes=4), attack(steps=1),
         {"bn": {"sync": "none"}}, side=14, start=12),
    case("advprop, bn.sync full, smoothing, noise 0", ADVPROP, train(label_smoothing=0.1), attack(noise_prob=0),
         {"bn": {"sync": "full"}}, side=14, start=39),
    case("advprop, attack of fast_advprop, K = 2", ADVPROP, train(weight_adv=0.5),
         attack(steps=2, goal="untargeted", bn_mode="train", reuse_gradients=True, shuffle=True), side=14, start=15),
    case("vanilla, mixup", train(mode="vanilla"), mix("mixup"), start=6),
    case("vanilla, cutmix, smoothing", train(mode="vanilla", label_smoothing=0.1), mix("cutmix"), start=41),
    case("mixup", mix("mixup", alpha=0.4), start=16),
    case("cutmix", mix("cutmix"), start=6),
    case("mixup, noise", mix("mixup", noise=True), start=12),
    case("cutmix, noise", mix("cutmix", noise=True), start=6),
    case("mixup, noise, adv, K = 2, 4 lanes, 2 workers", FOUR, mix("mixup", noise=True, adv=True), attack(steps=2),
         side=14, workers=2, start=53),
    case("cutmix, noise, adv, bn.sync full, 2 lanes", mix("cutmix", noise=True, adv=True), {"bn": {"sync": "full"}},
         start=3),
    case("cutmix, adv, ratio 1:1", mix("cutmix", adv=True), train(clean_parts=1, aux_parts=1), start=39),
    case("advprop, mixup, noise, adv, K = 2", ADVPROP, attack(steps=2), mix("mixup", noise=True, adv=True), side=14,
         start=2),
    case("advprop, cutmix, noise", ADVPROP, attack(steps=2), mix("cutmix", noise=True), side=14, start=22),
    case("average", {"optim": {"ema_decay": 0.9}}, start=51),
    case("average, 2 steps, advprop", ADVPROP, train(max_steps=2), attack(steps=1), {"optim": {"ema_decay": 0.75}},
         side=14, start=60),
    case("resnet50, 1 lane", {"model": {"arch": "resnet50", "width": 4}, **ONE}, side=14, start=31),
    case("imagenet stem, 3 channels, 1 lane", {"model": {"stem": "imagenet"}, "data": {"channels": 3}, **ONE},
         side=44),
    case("resnet50, advprop, mixup, 1 lane", {"model": {"arch": "resnet50", "width": 4}},
         train(mode="advprop", batch=12, lanes=1), attack(steps=1), mix("mixup"), side=14, start=96),
    case("resnext50_32x4d, 1:1, 1 lane", {"model": {"arch": "resnext50_32x4d", "width": 16}},
         train(batch=10, lanes=1, clean_parts=1, aux_parts=1), side=10, start=383),
    case("wide_resnet50_2, 1 lane", {"model": {"arch": "wide_resnet50_2", "width": 4}}, train(batch=15, lanes=1),
         side=14, start=38),
    case("vanilla, 10 steps", SMALL_LR, train(mode="vanilla", max_steps=10), bounds=TEN_STEPS),
    case("fast_advprop, 10 steps", SMALL_LR, train(max_steps=10), bounds=TEN_STEPS),
    case("advprop, 10 steps", SMALL_LR, ADVPROP, train(max_steps=10), side=14, bounds=TEN_STEPS),
    case("cutmix, noise, adv, 10 steps", SMALL_LR, train(max_steps=10), mix("cutmix", noise=True, adv=True),
         bounds=TEN_STEPS),
]


def case_named(name):
    (found,) = [case for case in CASES if case.name == name]
    return found


def make_set(side, count, random):
    """Random bytes: no two neighbours alike, so there are no ties in max pooling."""
    return random.randint(40, 216, (count, side, side)).astype(np.uint8), (np.arange(count) % 10).astype(np.uint8)


def write_set(folder, name, images, labels):
    (folder / f"{name}-images-idx3-ubyte").write_bytes(support.idx_bytes(images))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(support.idx_bytes(labels))


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


def parse_plan(text):
    """Output of `advprop data plan` in the form of plan.steps."""
    steps = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            step, lane, branch, images = line.split("\t")
            steps.setdefault(int(step), {}).setdefault(int(lane), {})[branch] = [
                tuple(map(int, image.split(":"))) for image in images.split()]
    return [[steps[step][lane] for lane in sorted(steps[step])] for step in sorted(steps)]


# What both start from.
Inputs = collections.namedtuple("Inputs", "config start images labels plan")


def inputs_of(case):
    config = support.merged(BASE, case.changes)
    images, labels = make_set(case.side, 320, np.random.RandomState(case.side))
    start = make_start(config, max(1, config.get("data", {}).get("channels", 1)), case.start)
    return Inputs(config, start, images, labels, plan.steps(oracle.flat(config), len(labels)))


def run_product(case, inputs, folder):
    """One `advprop train` of the case: (losses of each step, what it left)."""
    folder.mkdir(parents=True)
    write_set(folder, "train", inputs.images, inputs.labels)
    write_set(folder, "t10k", *make_set(case.side, 40, np.random.RandomState(0)))
    support.write_safetensors(folder / "start.safetensors", inputs.start)
    path = support.write_config(folder / "run.yaml", folder, init_from=str(folder / "start.safetensors"),
                                **inputs.config)
    steps = inputs.config["train"]["max_steps"]
    assert parse_plan(support.run("data", "plan", path, "--epoch", 0, "--steps", steps).stdout) == inputs.plan
    support.run("train", path, "--workers", case.workers, "--run", folder / "run", "--quiet")
    losses = [{branch: record["loss_" + branch] for branch in ("clean", "noise", "adv")}
              for record in support.records(folder / "run", "step")]
    after, _ = support.read_safetensors(support.newest_checkpoint(folder / "run"))
    return losses, after


def run_oracle(inputs, step_class=oracle.Step, dtype=torch.float64, config=None, note=False):
    """(losses of each step, the Step after them)"""
    step = step_class(config or inputs.config, inputs.start, inputs.images, inputs.labels, dtype)
    for choice in network.choices(step.net):
        choice.note = [] if note else None
    return [step.run(number, lanes) for number, lanes in enumerate(inputs.plan)], step


def closest_choice(inputs):
    """ReLU, max pool and the attack's sign choose. How near the closest choice of the steps is to going the other
    way, in units of what float instead of double changes at that place at most: above 1, no rounding decides."""
    double = run_oracle(inputs, note=True)[1]
    single = run_oracle(inputs, dtype=torch.float32, note=True)[1]
    pairs = [pair for a, b in zip(network.choices(double.net), network.choices(single.net))
             for pair in zip(a.note, b.note)]
    for a, b in zip(double.image_gradients, single.image_gradients):
        pairs += zip(a.abs().unbind(), torch.where(a.sign() == b.sign(), b.abs(), -b.abs()).unbind())
    return min((a.min() / (a - b.double()).abs().max()).item() for a, b in pairs)


def relative(found, expected):
    return np.linalg.norm((found - expected).ravel()) / max(np.linalg.norm(expected.ravel()), 1e-30)


def differences(inputs, found, expected):
    """{kind: (worst difference, where)} between what the product left and what the oracle computed."""
    (found_losses, found), (losses, step) = found, expected
    expected = step.state()
    assert set(found) == set(expected), set(found) ^ set(expected)
    assert len(found_losses) == len(losses)
    worst = {}

    def put(kind, value, where):
        worst[kind] = max(worst.get(kind, (0.0, "")), (float(value) if np.isfinite(value) else np.inf, where))

    def put_change(kind, name, start):
        rounding = FLOAT_ROUNDING * len(losses) * np.linalg.norm(expected[name])
        moved = max(np.linalg.norm(expected[name] - start), 1e-30)
        put(kind, max(0, np.linalg.norm(found[name] - expected[name]) - rounding) / moved, name)

    for found_step, wanted in zip(found_losses, losses):
        for branch, value in wanted.items():
            put("loss", abs(found_step[branch] - value) / max(abs(value), 1e-30), branch)
    for name, value in expected.items():
        kind, _, of = name.partition(".")
        if kind == "momentum":  # after one step the gradient plus weight decay
            decay = inputs.config["optim"]["weight_decay"] * inputs.start[of] if len(losses) == 1 else 0
            put(step.set_of(of), relative(found[name] - decay, value - decay), name)
        elif kind == "ema":
            put_change("ema", name, inputs.start[of])
        elif "running_" in name:
            put("statistics", relative(found[name], value), name)
        else:
            put_change("weights", name, inputs.start[name])
    return worst


def disagreements(worst, bounds=BOUNDS):
    return [f"{kind}: {worst[kind][0]:.2e} > {bound:.0e} at {worst[kind][1]}" for kind, bound in bounds.items()
            if kind in worst and worst[kind][0] > bound]


def print_row(name, numbers):
    print("| " + " | ".join([name, *numbers]) + " |", flush=True)


def table(cases):
    print_row("case", ["losses", *list(BOUNDS)[1:], "closest choice"])
    print("|---" * (len(BOUNDS) + 2) + "|")
    bad = []
    for case in cases:
        inputs = inputs_of(case)
        with tempfile.TemporaryDirectory() as folder:
            product = run_product(case, inputs, pathlib.Path(folder) / "case")
        worst = differences(inputs, product, run_oracle(inputs))
        bad += [f"{case.name}: {text}" for text in disagreements(worst, case.bounds)]
        print_row(case.name, [f"{worst[kind][0]:.1e}" if kind in worst else "" for kind in BOUNDS]
                  + [f"{closest_choice(inputs):.1f}"])
    print_row("bound", [f"{bound:.0e}" for bound in BOUNDS.values()] + [""])
    print("\n".join(bad), file=sys.stderr)
    return 1 if bad else 0


def search(cases, tries):
    for case in cases:
        best = 1
        for start in range(1, tries + 1):
            closest = closest_choice(inputs_of(case._replace(start=start)))
            if closest > best:
                print(f"{case.name}: start={start}, closest choice {closest:.1f}", flush=True)
                best = closest
            if best > 1.5:
                break
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--search")
    parser.add_argument("--tries", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in CASES if (arguments.search or arguments.only) in case.name]
    return search(cases, arguments.tries) if arguments.search else table(cases)


if __name__ == "__main__":
    sys.exit(main())
