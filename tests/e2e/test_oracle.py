"""The training step against an independent one in PyTorch (tests/oracle), from the same start on the same images.

The oracle computes in double precision. Starts are picked so that no ReLU, max pool or sign of an image gradient
is so close that rounding decides it (compare.closest_choice): a single such choice, taken the other way, changes
a gradient by a percent, in PyTorch as here. The bounds hold without any allowance for them.
"""
import sys

import pytest
import support

pytest.importorskip("torch", reason="python3-torch is not installed")
pytest.importorskip("torchvision", reason="python3-torchvision is not installed")
sys.path.insert(0, str(support.ROOT / "tests" / "oracle"))

import compare  # noqa: E402
import oracle  # noqa: E402
import philox  # noqa: E402


@pytest.mark.parametrize("case", compare.CASES, ids=lambda case: case.name)
def test_step_is_the_oracles(case, tmp_path):
    inputs = compare.inputs_of(case)
    product = compare.run_product(case, inputs, tmp_path / "case")
    wrong = compare.disagreements(compare.differences(inputs, product, compare.run_oracle(inputs)), case.bounds)
    assert not wrong, f"{wrong}; closest choice {compare.closest_choice(inputs):.2f} (below 1: rounding may decide it)"


# ---- an oracle with an error must not agree


class BiasedRunningVariance(oracle.Step):
    def unbiased(self, var, n):
        return var


class VarianceWithoutSpreadOfMeans(oracle.Step):
    def pooled(self, seen):
        mean, _ = super().pooled(seen)
        return mean, sum(self.unbiased(var, n) for n, _, var in seen) / len(seen)


class StatisticsOfLaneZero(oracle.Step):
    def pooled(self, seen):
        return super().pooled(seen[:1])


class NoiseImagesNotCounted(oracle.Step):
    def counts(self):
        return {**super().counts(), "shared": super().counts()["shared"] - 4}  # 8 images of weight 0.5


class MainScaledAsShared(oracle.Step):
    def counts(self):
        return dict.fromkeys(super().counts(), super().counts()["shared"])


class SwappedNorms(oracle.Step):
    def route_of(self, branch):
        return "aux" if branch == "clean" else "main"


class AdvThroughMain(oracle.Step):
    def route_of(self, branch):
        return "aux" if branch == "noise" else "main"


class AttackDownhill(oracle.Step):
    def attack_step(self, x, at, gradient):
        return super().attack_step(x, at, -gradient)


class NoClamp(oracle.Step):
    def clamp(self, moved, x):
        return moved


class NoiseOfTheSlot(oracle.Step):
    def noise(self, ids):
        return super().noise([(0, slot) for slot in range(len(ids))])


class WrongLabelsAfterShuffle(oracle.Step):
    def shuffle(self, at, labels):
        return super().shuffle(at, labels)[0], labels


class OneNoisePassCounted(oracle.Step):
    def counts(self):
        return {**super().counts(), "aux": super().counts()["aux"] - 4}  # 8 images of weight 0.5


class NoiseCountedThoughNotReused(oracle.Step):
    def counts(self):
        return {**super().counts(), "aux": super().counts()["aux"] + 8}  # 2 passes


class AttackTrainsWeights(oracle.Step):
    def noise_pass(self, at, labels, k):
        self.c["attack.reuse_gradients"] = True
        gradients = super().noise_pass(at, labels, k)
        self.c["attack.reuse_gradients"] = False
        return gradients


class TargetNotDrawn(oracle.Step):
    def attack_labels_of(self, ids):
        return self.labels_of(ids)


class TargetTrained(oracle.Step):
    def adv_pass(self, at, labels):
        super().adv_pass(at, [self.attack_labels_of(lane["aux"]) for lane in self.lanes])


class EvalMovesStatistics(oracle.Step):
    def over_lanes(self, branch, batches):
        super().over_lanes(branch, batches)
        if branch == "noise":
            self.move_statistics(branch)


class MixingNotUndone(oracle.Step):
    def mixed(self, lane, part, x, targets):
        mixed, targets = super().mixed(lane, part, x, targets)
        return x + (mixed - x).detach(), targets


class ShareOfTheOwn(oracle.Step):
    def share(self, lane, part):
        return 1 - super().share(lane, part)


class SameMixInEveryLane(oracle.Step):
    def mixed(self, lane, *args):
        return super().mixed(0, *args)


class SameMixInEveryPass(oracle.Step):
    def mixed(self, lane, part, *args):
        return super().mixed(lane, 0, *args)


class BoxOffByOne(oracle.Step):
    def box(self, words, share):
        rows, columns = super().box(words, share)
        return slice(rows.start + 1, rows.stop + 1), columns


class AverageOfTheStepBefore(oracle.Step):
    def sgd(self):
        super().move_average()
        super().sgd()

    def move_average(self):
        pass


PLAIN = "fast_advprop 4:1"
# (what is wrong, the case that must disagree, and in what)
MUTANTS = [(BiasedRunningVariance, PLAIN, "statistics"), (VarianceWithoutSpreadOfMeans, PLAIN, "statistics"),
           (StatisticsOfLaneZero, PLAIN, "statistics"), (NoiseImagesNotCounted, PLAIN, "shared"),
           (MainScaledAsShared, PLAIN, "main"), (SwappedNorms, PLAIN, "loss"), (AdvThroughMain, PLAIN, "loss"),
           (AttackDownhill, PLAIN, "loss"), (NoClamp, PLAIN, "loss"), (NoiseOfTheSlot, PLAIN, "loss"),
           (WrongLabelsAfterShuffle, PLAIN, "loss"),
           (OneNoisePassCounted, "K = 2", "aux"), (NoiseCountedThoughNotReused, "K = 2, reuse off", "aux"),
           (AttackTrainsWeights, "K = 2, reuse off", "aux"),
           (TargetNotDrawn, "targeted, reuse off", "loss"), (AttackDownhill, "targeted, reuse off", "loss"),
           (TargetTrained, "targeted, reuse off", "loss"), (EvalMovesStatistics, "BN of the attack eval", "statistics"),
           (MixingNotUndone, "mixup, noise", "loss"), (MixingNotUndone, "cutmix, noise", "loss"),
           (ShareOfTheOwn, "mixup", "loss"), (ShareOfTheOwn, "cutmix", "loss"),
           (SameMixInEveryLane, "mixup", "loss"), (SameMixInEveryPass, "mixup, noise", "loss"),
           (BoxOffByOne, "cutmix", "loss"), (AverageOfTheStepBefore, "average", "ema")]
SETTINGS = [({"attack": {"shuffle": False}}, "loss"), ({"attack": {"noise_prob": 0}}, "loss"),
            ({"optim": {"weight_decay": 0}}, "shared"), ({"optim": {"nesterov": True}}, "weights"),
            ({"bn": {"sync": "full"}}, "loss")]


@pytest.fixture(scope="module")
def disagree(tmp_path_factory):
    """disagree(case, ...): kinds in which an oracle so run disagrees with the product, which runs once a case."""
    runs = {}

    def kinds(name, *args, changes=None):
        if name not in runs:
            case = compare.case_named(name)
            inputs = compare.inputs_of(case)
            runs[name] = inputs, compare.run_product(case, inputs, tmp_path_factory.mktemp("run") / "case")
        inputs, product = runs[name]
        config = support.merged(inputs.config, changes or {})
        worst = compare.differences(inputs, product, compare.run_oracle(inputs, *args, config=config))
        return {text.split(":")[0] for text in compare.disagreements(worst)}

    return kinds


@pytest.mark.parametrize("mutant, case, kind", MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_oracle_with_an_error_disagrees(disagree, mutant, case, kind):
    assert kind in disagree(case, mutant)


@pytest.mark.parametrize("changes, kind", SETTINGS, ids=str)
def test_oracle_with_another_setting_disagrees(disagree, changes, kind):
    assert kind in disagree(PLAIN, changes=changes)


def test_philox_gives_the_published_blocks():
    # Known answers of Philox 4x32-10 in Random123's kat_vectors.
    ones = 0xFFFFFFFF
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    for key, counter, words in (
            ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
            ((ones, ones), (ones,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
            ((0xA4093822, 0x299F31D0), pi, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1))):
        assert tuple(map(int, philox.philox(key, counter))) == words
