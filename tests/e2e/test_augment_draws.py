"""What is drawn for an image: docs/data.md's formulas once more in Python, torchvision's operations, the same bytes."""
import math
import sys

import numpy as np
import pytest
import support

torch = pytest.importorskip("torch", reason="python3-torch is not installed")
pytest.importorskip("torchvision", reason="python3-torchvision is not installed")
sys.path.insert(0, str(support.ROOT / "tests" / "oracle"))

import augment_tool  # noqa: E402
import philox  # noqa: E402
from torchvision import transforms  # noqa: E402
from torchvision.transforms import autoaugment, functional  # noqa: E402

AUGMENT = 2
SAMPLES = 200


class Place:
    """An image of a run, and its draws."""

    def __init__(self, sample):
        self.key = (2 ** 40 + 17, 3, sample * 2 ** 33 + sample)  # seed, epoch, sample

    def block(self, number):
        seed, epoch, sample = self.key
        return [int(word) for word in philox.stream(seed, AUGMENT, epoch, sample, number)]


def uniform(word):
    return (word >> 8) * 2.0 ** -24


def between(word, low, high):
    return low + (high - low) * uniform(word)


def below(word, n):
    return word * n >> 32


def box(place, first, areas, ratios, w, h, max_w, max_h):
    for turn in range(10):
        v = place.block(first + turn)
        area = w * h * between(v[0], *areas)
        ratio = math.exp(between(v[1], math.log(ratios[0]), math.log(ratios[1])))
        box_w, box_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= box_w <= max_w and 1 <= box_h <= max_h:
            return [below(v[3], w - box_w + 1), below(v[2], h - box_h + 1), box_w, box_h]
    return None


def central(w, h):
    """As torchvision's fallback."""
    box_w = round(h * (4 / 3)) if w / h > 4 / 3 else w
    box_h = round(w / (3 / 4)) if w / h < 3 / 4 else h
    return [(w - box_w) // 2, (h - box_h) // 2, box_w, box_h]


def crop_box(place, w, h):
    return box(place, 1, (0.08, 1), (3 / 4, 4 / 3), w, h, w, h) or central(w, h)


def erase_box(place, w, h):
    return box(place, 65, (0.02, 0.33), (1 / 3.3, 1 / 0.3), w, h, w - 1, h - 1) or [0, 0, 0, 0]


def flip(place, image):
    return image[:, ::-1] if place.block(0)[2] & 1 else image


def crop_flip(place, image, pad=4):
    v = place.block(0)
    dx, dy = below(v[0], 2 * pad + 1), below(v[1], 2 * pad + 1)
    h, w = image.shape[:2]
    padded = np.pad(image, [(pad, pad), (pad, pad), (0, 0)][:image.ndim])
    return flip(place, padded[dy:dy + h, dx:dx + w])


def spaced(end, k, n, start=0.0):
    start, end = np.float32(start), np.float32(end)
    step = (end - start) / np.float32(n - 1)
    return float(start + step * np.float32(k) if k < n // 2 else end - step * np.float32(n - 1 - k))


def magnitude(name, k, n, w, h):
    """(magnitude, whether it has a sign)"""
    spans = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": 150 / 331 * w, "TranslateY": 150 / 331 * h, "Rotate": 30,
             "Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9}
    if name in spans:
        return spaced(spans[name], k, n), True
    if name == "Solarize":
        return spaced(0, k, n, start=255), False
    return (8 - round(4 * k / (n - 1)), False) if name == "Posterize" else (0, False)


def signed(name, k, n, w, h, negative):
    size, has_sign = magnitude(name, k, n, w, h)
    return -size if has_sign and negative else size


def randaugment(place, image, ops, k):
    names = list(autoaugment.RandAugment()._augmentation_space(31, (1, 1)))
    for number in range(ops):
        v = place.block(32 + number)
        name = names[below(v[0], len(names))]
        size = signed(name, k, 31, *image.size, v[1] & 1)
        image = augment_tool.peer_op(image, name, size)
    return image


def auto_augment(place, image):
    v = place.block(32)
    pair = autoaugment.AutoAugment().policies[below(v[0], 25)]
    for number, (name, probability, k) in enumerate(pair):
        if 10 * uniform(v[1 + number]) < 10 * probability:
            size = signed(name, k or 0, 10, *image.size, v[3] >> number & 1)
            image = augment_tool.peer_op(image, name, size)
    return image


def jitter(place, image, bounds=(0.4, 0.4, 0.4, 0.1)):
    v = place.block(16)
    parts = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation,
             functional.adjust_hue]
    left, shuffle = [0, 1, 2, 3], place.block(17)
    for n in (4, 3, 2, 1):
        at = below(shuffle[n - 1], n)
        part, left[at] = left[at], left[n - 1]
        low, high = (-bounds[3], bounds[3]) if part == 3 else (1 - bounds[part], 1 + bounds[part])
        image = parts[part](image, between(v[part], low, high))
    return image


def erase(place, image, probability, noise):
    if uniform(place.block(64)[0]) >= probability:
        return image
    left, top, w, h = erase_box(place, image.shape[1], image.shape[0])
    out = image.copy()
    part = out[top:top + h, left:left + w]
    part[...] = 0
    if noise and part.size:
        row = part[0].size
        for y in range(h):
            words = [place.block(256 + (y << 16) + number) for number in range((row + 15) // 16)]
            part[y] = np.array(words, "<u4").reshape(-1).view(np.uint8)[:row].reshape(part[y].shape)
    return out


def image_of(sample, h=41, w=57):
    random = np.random.default_rng(sample)
    y, x = np.mgrid[:h, :w]
    slope = (random.uniform(-3, 3, 3) * y[..., None] + random.uniform(-3, 3, 3) * x[..., None]) + 128
    image = np.clip(slope + random.normal(0, 20, (h, w, 3)), 0, 255).astype(np.uint8)
    return image[..., 0].copy() if sample % 8 == 7 else image


@pytest.fixture(scope="module")
def tool():
    tool = augment_tool.Tool()
    yield tool
    tool.close()


def on_pillow(change, place, image, *arguments):
    flipped = augment_tool.pillow(np.ascontiguousarray(flip(place, image)))
    return np.asarray(change(place, flipped, *arguments))


EXPECTED = {
    "none": lambda place, image: image,
    "crop_flip": crop_flip,
    "rrc_flip": flip,
    "rrc_flip_jitter": lambda place, image: on_pillow(jitter, place, image),
    "randaugment": lambda place, image: on_pillow(randaugment, place, image, 2, 9),
    "autoaugment": lambda place, image: on_pillow(auto_augment, place, image),
}


@pytest.mark.parametrize("recipe", EXPECTED)
def test_recipe_gives_the_documented_image(tool, recipe):
    changed = 0
    for sample in range(SAMPLES):
        place, image = Place(sample), image_of(sample)
        expected = EXPECTED[recipe](place, image)
        assert (tool.augment(image, recipe, place.key) == expected).all(), f"sample {sample}"
        changed += (expected != image).any()
    assert changed > 0.4 * SAMPLES or recipe == "none"


@pytest.mark.parametrize("k", range(0, 31, 3))
def test_randaugment_of_any_magnitude_gives_the_documented_image(tool, k):
    for sample in range(20):
        place, image = Place(sample), image_of(sample)
        expected = on_pillow(randaugment, place, image, 4, k)
        assert (tool.augment(image, "randaugment", place.key, ops=4, magnitude=k) == expected).all()


@pytest.mark.parametrize("noise", [0, 1])
def test_erasing_gives_the_documented_image(tool, noise):
    erased = 0
    for sample in range(SAMPLES):
        place, image = Place(sample), image_of(sample)
        expected = erase(place, image, 0.25, noise)
        assert (tool.augment(image, "none", place.key, erase=0.25, noise=noise) == expected).all()
        erased += (expected != image).any()
    assert 0.15 * SAMPLES < erased < 0.35 * SAMPLES


@pytest.mark.parametrize("w, h", [(500, 375), (375, 500), (28, 28), (1000, 100), (99, 1200), (3, 2), (1, 1)])
def test_boxes_are_the_documented_ones(tool, w, h):
    for sample in range(SAMPLES):
        place = Place(sample)
        found = tool.ask("box", *place.key, w, h)
        assert found == crop_box(place, w, h) + erase_box(place, w, h)


class Feed:
    """Lets torchvision's get_params draw our words: a block a try, for area, ratio, top and left."""

    def __init__(self, monkeypatch, place, first, turned):
        self.blocks, self.turned, self.calls = (place.block(first + turn) for turn in range(10)), turned, 0
        monkeypatch.setattr(torch.Tensor, "uniform_", lambda _, low, high: self.uniform(float(low), float(high)))
        monkeypatch.setattr(torch, "randint", lambda _, n, size: torch.tensor([below(self.words.pop(0), n)]))

    def uniform(self, low, high):
        is_area = self.calls % 2 == 0
        self.calls += 1
        if is_area:
            self.words = next(self.blocks)
        u = uniform(self.words.pop(0))
        # Erasing's ratio is height by width there.
        return torch.tensor([low + (high - low) * (u if is_area or not self.turned else 1 - u)], dtype=torch.float64)


@pytest.mark.parametrize("w, h", [(500, 375), (97, 131), (300, 64)])
def test_boxes_are_those_of_torchvisions_algorithm(tool, monkeypatch, w, h):
    image = torch.empty(1, h, w)
    for sample in range(SAMPLES):
        place = Place(sample)
        found = tool.ask("box", *place.key, w, h)
        with monkeypatch.context() as patch:
            Feed(patch, place, 1, turned=False)
            top, left, *size = transforms.RandomResizedCrop.get_params(image, (0.08, 1), (3 / 4, 4 / 3))
            assert found[:4] == [left, top, *size[::-1]]
            Feed(patch, place, 65, turned=True)
            top, left, *size, _ = transforms.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])
            assert found[4:] == ([0, 0, 0, 0] if size == [h, w] else [left, top, *size[::-1]])


def test_geometry_of_evaluation_is_torchvisions(tool):
    random = np.random.default_rng(5)
    for w, h in [(500, 375), (1, 7), *random.integers(1, 700, (200, 2))]:
        shorter, crop = map(int, random.integers(1, 300, 2))
        resized_h, resized_w = functional._compute_resized_output_size((h, w), [shorter])
        *size, left, top = tool.ask("eval", w, h, shorter, crop)
        assert size == [resized_w, resized_h]
        if resized_w * resized_h > 10 ** 6:
            continue
        pixels = 1 + np.arange(resized_h * resized_w, dtype=np.int32)  # each its own value
        image = augment_tool.pillow(pixels.reshape(resized_h, resized_w))
        found = image.crop((left, top, left + crop, top + crop))
        assert (np.asarray(found) == np.asarray(functional.center_crop(image, crop))).all()


def test_magnitudes_are_torchvisions():
    """Up to the last bit of a float: how torch.linspace rounds depends on the width of its vectors."""
    for table, n in ((autoaugment.RandAugment(), 31), (autoaugment.AutoAugment(), 10)):
        for name, (theirs, has_sign) in table._augmentation_space(n, (375, 500)).items():
            for k in range(n if theirs.ndim else 1):
                found, sign = magnitude(name, k, n, 500, 375)
                expected = theirs[k].item() if theirs.ndim else theirs.item()
                assert sign == has_sign and abs(found - expected) <= 1.2e-7 * abs(expected), (name, k)
