"""Errors of one line planted in the training step, one at a time: each must be caught by a test.

A scratch copy of the sources is built once; then for each mutant one line is changed, what depends on it is built
again, and the test that is to catch it is run: a program of the build, or a case of tests/oracle/compare.py.
"""
import collections
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "oracle")]

pytest.importorskip("torch", reason="python3-torch is not installed")
pytest.importorskip("torchvision", reason="python3-torchvision is not installed")

import compare  # noqa: E402
import support  # noqa: E402

# What is wrong; the file; its line or a part of it, which must be there once, and what replaces it; who catches it.
Mutant = collections.namedtuple("Mutant", "name path old new test")
RULES = "tests/kernel/test_rules"
MUTANTS = [
    Mutant("one noise pass counted of K", "worker/step.c",
           "double noise = images_of(step, APD_NOISE) * step->config.train.weight_noise;",
           "double noise = images_of(step, APD_ADV) * step->config.train.weight_noise;", "K = 2"),
    Mutant("noise counted though not reused", "worker/step.c",
           "if (!step->config.attack.reuse_gradients)", "if (0)", "K = 2, reuse off"),
    Mutant("batch norms swapped", "worker/step_create.c",
           "*seg++ = (struct apd_segment){i * per_lane, step->clean, APD_BN_MAIN};",
           "*seg++ = (struct apd_segment){i * per_lane, step->clean, APD_BN_AUX};", "fast_advprop 4:1"),
    Mutant("attack downhill", "kernels/cpu/lanes.c",
           "v += d_x[i] > 0 ? step : d_x[i] < 0 ? -step : 0.0f;",
           "v -= d_x[i] > 0 ? step : d_x[i] < 0 ? -step : 0.0f;", RULES),
    Mutant("attack may leave the ball", "kernels/cpu/lanes.c",
           "float low = x[i] - eps, high = x[i] + eps, v = at[i];",
           "float low = -1, high = 1, v = at[i];", RULES),
    Mutant("attack may leave the image", "kernels/cpu/lanes.c",
           "high = high < 1.0f ? high : 1.0f;", "", RULES),
    Mutant("no shuffle", "worker/step.c",
           "(int)step->config.attack.shuffle);",
           "0);", "fast_advprop 4:1"),
    Mutant("labels stay where they were in the shuffle", "worker/shuffle.c",
           "shuffle->send_labels[shuffle->send_row[i]] = labels[i];",
           "shuffle->send_labels[i] = labels[i];", "fast_advprop 4:1"),
    Mutant("biased running variance", "kernels/cpu/bn.c",
           "(float)((1 - momentum) * variance[k] + momentum * v * count / (count - 1));",
           "(float)((1 - momentum) * variance[k] + momentum * v);", RULES),
    Mutant("statistics of lane 0 for all", "worker/step.c",
           "int lanes = step->config.bn.sync == APD_BN_SYNC_NONE ? 1 : step->lanes;",
           "int lanes = 1;", "fast_advprop 4:1"),
    Mutant("no noise", "worker/step_input.c",
           "int noisy = (double)apd_uniform(choice.v[0]) < step->config.attack.noise_prob;",
           "int noisy = 0;", "fast_advprop 4:1"),
    Mutant("eps in half its unit", "worker/step_create.c",
           "step->eps = setup->config->attack.eps * 2 / 255;",
           "step->eps = setup->config->attack.eps / 255;", "fast_advprop 4:1"),
    Mutant("steps too short to reach eps", "worker/step_create.c",
           "if (step->attack_step < step->eps / (double)setup->config->attack.steps)",
           "if (0)", "K = 2"),
    Mutant("gradients not cleared", "worker/gradients.c",
           "(size_t)gradients->slices * params->count * be->elem_bytes, err);",
           "0, err);", "vanilla, 2 steps"),
    Mutant("main's learning rate for aux", "worker/step.c",
           "step->config.optim.lr_factor_aux};",
           "step->config.optim.lr_factor_main};", "lr factors 1/2/0.5"),
    Mutant("weights decay before the gradient is scaled", "kernels/cpu/lanes.c",
           "float v = mu * m[i] + (scale * d_w[i] + wd * w[i]);",
           "float v = mu * m[i] + scale * (d_w[i] + wd * w[i]);", RULES),
    Mutant("smoothing over all classes", "kernels/cpu/loss.c",
           "double rest = t->smoothing / (classes - 1), peak = 1 - t->smoothing - rest;",
           "double rest = t->smoothing / classes, peak = 1 - t->smoothing - rest;", "smoothing, nesterov, wd"),
    Mutant("clean statistics for aux", "worker/tally.c",
           "APD_TRY(update_from(tally, APD_BN_AUX, k + 1, aux_images, momentum, err));",
           "APD_TRY(update_from(tally, APD_BN_AUX, k, aux_images, momentum, err));", "fast_advprop 4:1"),
    Mutant("gradients of the attack not dropped", "worker/step.c",
           "if (step->config.attack.reuse_gradients)", "if (1)", "K = 2, reuse off"),
    Mutant("targeted attack uphill", "worker/step_create.c",
           "step->attack_step = -step->attack_step;", ";", "targeted, reuse off"),
    Mutant("target not drawn", "worker/step_input.c",
           "label = (int32_t)(((uint32_t)label + apd_below(v.v[0], classes)) % classes);", "(void)v;",
           "targeted, reuse off"),
    Mutant("BN of the attack always by the batch", "worker/step.c",
           ".batch_stats = step->config.attack.bn_mode == APD_BN_MODE_TRAIN,",
           ".batch_stats = 1,", "BN of the attack eval"),
    # Of 4 images, as in "cutmix, noise", the permutation happens to be its own inverse.
    Mutant("mixing not undone in the image gradient", "worker/step_input.c",
           "mix.partner = step->inverse;", "", "advprop, cutmix, noise"),
    Mutant("attacked images not mixed", "worker/step_input.c",
           "int mixed = (int)step->config.mix.adv;", "int mixed = 0;",
           "cutmix, noise, adv, bn.sync full, 2 lanes"),
    Mutant("pooled sums of a projection are those of its block's end", "worker/model/net_norm.c",
           "return net->pooled_sums + (size_t)k * 2 * view->c;",
           "(void)k, (void)view; return net->pooled_sums;", "bn.sync full, 2 lanes"),
    Mutant("partner's share is the own", "worker/step_input.c",
           "at.keep[i] = (float)(1 - mix.share);", "at.keep[i] = (float)mix.share;", "cutmix"),
    Mutant("box by one row too high", "worker/mix.c",
           "*out_from = center > half ? center - half : 0;",
           "*out_from = center > half + 1 ? center - half - 1 : 0;", "cutmix"),
    Mutant("decay for the new value", "kernels/cpu/flat.c",
           "average[k] = (float)(decay * average[k] + (1 - decay) * value[k]);",
           "average[k] = (float)((1 - decay) * average[k] + decay * value[k]);", "average"),
    Mutant("statistics not averaged", "worker/model/params.c",
           "return be->ops->average(be, params->stats_count, decay, params->stats, params->ema_stats, err);",
           "return APD_OK;", "average"),
]
TESTS = list(dict.fromkeys(mutant.test for mutant in MUTANTS))
PROGRAMS = ["cli/advprop", "daemon/advpropd", "worker/advprop-worker", RULES]


class Scratch:
    """A copy of the sources with a build of its own."""

    def __init__(self, folder):
        self.folder, self.source, self.build = folder, folder / "source", folder / "build"
        shutil.copytree(ROOT, self.source, ignore=shutil.ignore_patterns(".git", "build*", "runs", "__pycache__"))
        self.command("meson", "setup", "-Dtests=true", self.build, self.source)
        self.command("ninja", "-C", self.build, *PROGRAMS)
        self.expected = {}  # of the oracle, by case

    def command(self, *words):
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{words}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"

    def plant(self, mutant):
        """Returns what undoes it."""
        path = self.source / mutant.path
        text = path.read_text()
        assert text.count(mutant.old) == 1, f"{mutant.path} has the line {text.count(mutant.old)} times: {mutant.old}"
        path.write_text(text.replace(mutant.old, mutant.new))
        return lambda: path.write_text(text)

    def check(self, test):
        """Raises an AssertionError if the test fails."""
        if test in PROGRAMS:
            self.command(self.build / test)
            return
        case = compare.case_named(test)
        if test not in self.expected:
            inputs = compare.inputs_of(case)
            self.expected[test] = inputs, compare.run_oracle(inputs)
        inputs, expected = self.expected[test]
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            product = compare.run_product(case, inputs, pathlib.Path(folder) / "case")
        wrong = compare.disagreements(compare.differences(inputs, product, expected))
        assert not wrong, wrong


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    made = Scratch(tmp_path_factory.mktemp("mutation"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(support, "ADVPROP", str(made.build / "cli" / "advprop"))
        yield made


@pytest.mark.parametrize("test", TESTS)
def test_without_an_error_it_passes(scratch, test):
    scratch.check(test)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_error_is_caught(scratch, mutant):
    undo = scratch.plant(mutant)
    try:
        scratch.command("ninja", "-C", scratch.build, *PROGRAMS)
        with pytest.raises(AssertionError):
            scratch.check(mutant.test)
    finally:
        undo()
