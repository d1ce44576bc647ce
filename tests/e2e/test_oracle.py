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
    run = compare.run_product(case, tmp_path / "case")
    wrong = compare.disagreements(compare.differences(run, *compare.run_oracle(run)))
    assert not wrong, f"{wrong}; closest choice {compare.closest_choice(run):.2f} (below 1: rounding may decide it)"


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
    def noise(self, ids, number):
        return super().noise([(0, slot) for slot in range(len(ids))], number)


class WrongLabelsAfterShuffle(oracle.Step):
    def shuffle(self, number, at, labels):
        return super().shuffle(number, at, labels)[0], labels


# (what is wrong, the part that must disagree)
MUTANTS = [(BiasedRunningVariance, "statistics"), (VarianceWithoutSpreadOfMeans, "statistics"),
           (StatisticsOfLaneZero, "statistics"), (NoiseImagesNotCounted, "momentum"),
           (MainScaledAsShared, "momentum"), (SwappedNorms, "loss"), (AdvThroughMain, "loss"),
           (AttackDownhill, "loss"), (NoClamp, "loss"), (NoiseOfTheSlot, "loss"),
           (WrongLabelsAfterShuffle, "loss")]
SETTINGS = [({"attack": {"shuffle": False}}, "loss"), ({"attack": {"noise_prob": 0}}, "loss"),
            ({"optim": {"weight_decay": 0}}, "momentum"), ({"optim": {"nesterov": True}}, "weights"),
            ({"bn": {"sync": "full"}}, "loss")]


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    case = next(case for case in compare.CASES if case.name == "fast_advprop 4:1")
    return compare.run_product(case, tmp_path_factory.mktemp("plain run") / "case")


def kinds_that_disagree(run, *args, **kwargs):
    worst = compare.differences(run, *compare.run_oracle(run, *args, **kwargs))
    return {text.split(":")[0] for text in compare.disagreements(worst)}


@pytest.mark.parametrize("mutant, kind", MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_oracle_with_an_error_disagrees(plain_run, mutant, kind):
    assert kind in kinds_that_disagree(plain_run, mutant)


@pytest.mark.parametrize("changes, kind", SETTINGS, ids=str)
def test_oracle_with_another_setting_disagrees(plain_run, changes, kind):
    config = support.merged(plain_run.config, changes)
    assert kind in kinds_that_disagree(plain_run, config=config)


def test_philox_gives_the_published_blocks():
    # Known answers of Philox 4x32-10 in Random123's kat_vectors.
    ones = 0xFFFFFFFF
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    for key, counter, words in (
            ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
            ((ones, ones), (ones,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
            ((0xA4093822, 0x299F31D0), pi, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1))):
        assert tuple(map(int, philox.philox(key, counter))) == words
