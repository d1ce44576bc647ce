"""`advprop data cat --config`: the image that a run trains on or evaluates, from docs/data.md in Python and Pillow."""
import io
import subprocess

import numpy as np
import pytest
import support

draws = pytest.importorskip("test_augment_draws", reason="python3-torchvision is not installed")

import corrupt_tool  # noqa: E402
from PIL import Image  # noqa: E402

SEED, SIZE = 2 ** 40 + 5, 48
SHAPES = [(60, 80, 3), (200, 90, 3), (48, 48, 3), (31, 120, 1), (150, 151, 3), (97, 64, 3)]


def cat(config, number, *words):
    done = subprocess.run([support.ADVPROP, "data", "cat", "--config", config, *map(str, (number, *words))],
                          capture_output=True, check=True)
    return np.asarray(Image.open(io.BytesIO(done.stdout))), done.stderr.decode()


class Place(draws.Place):
    def __init__(self, epoch, sample):
        self.key = (SEED, epoch, sample)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with train/ and val/ and the images of both, as Pillow sees them."""
    root, found = tmp_path_factory.mktemp("photographs"), []
    for number, shape in enumerate(SHAPES):
        pixels = np.roll(corrupt_tool.photograph(*shape), 7 * number, axis=1)
        name = f"{'ab'[number // 3]}/{number}.{('png', 'jpg', 'webp')[number % 3]}"
        for split in ("train", "val"):
            (root / split / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / split / name)
        found.append(Image.open(root / "train" / name).convert("RGB"))
    for split in ("train", "val"):
        support.run("data", "index", root / split)
    return root, found


def write_config(path, root, **changes):
    return support.write_config(path, root, **support.merged({
        "seed": SEED, "data": {"format": "images", "size_px": SIZE, "crop_padding_px": 4},
        "train": {"batch": 4, "lanes": 1, "clean_parts": 1}}, changes))


def resized(recipe, place, image):
    if recipe.startswith(("rrc", "rand", "auto")):
        left, top, w, h = draws.crop_box(place, *image.size)
        image = image.crop((left, top, left + w, top + h))
    return np.asarray(image.resize((SIZE, SIZE), Image.BILINEAR))


@pytest.mark.parametrize("recipe", draws.EXPECTED)
def test_image_is_the_one_of_epoch_and_sample(photographs, workdir, recipe):
    root, images = photographs
    config = write_config(workdir / "run.yaml", root, augment=recipe)
    seen = set()
    for epoch in (0, 7):
        for number, image in enumerate(images):
            place = Place(epoch, number)
            expected = draws.EXPECTED[recipe](place, resized(recipe, place, image))
            found, said = cat(config, number, "--epoch", epoch)
            assert np.array_equal(found, expected), (epoch, number)
            assert f"{number}." in said and f"as trained on in epoch {epoch}, {SIZE} x {SIZE} pixels" in said
            seen.add(found.tobytes())
    assert len(seen) == (len(images) if recipe == "none" else 2 * len(images))


def test_options_and_overrides_are_the_runs(photographs, workdir):
    root, images = photographs
    config = write_config(workdir / "run.yaml", root, augment="none", data={"channels": 1},
                          erase={"probability": 1, "noise": True})
    for number, image in enumerate(images):
        place = Place(2, number)
        erased = draws.erase(place, resized("none", place, image), 1, True)
        expected = np.asarray(Image.fromarray(erased).convert("L"))
        assert np.array_equal(cat(config, number, "--epoch", 2)[0], expected)
        whole = resized("none", place, image)
        assert np.array_equal(cat(config, number, "erase.probability=0", "data.channels=3")[0], whole)


def test_eval_is_resize_and_centre_crop(photographs, workdir):
    root, images = photographs
    for resize in (0, 60):
        config = write_config(workdir / "run.yaml", root, augment="randaugment", data={"resize_px": resize})
        for number, image in enumerate(images):
            expected = corrupt_tool.evaluation_view(image, resize or SIZE * 256 // 224, SIZE)
            found, said = cat(config, number, "--eval")
            assert np.array_equal(found, expected) and "as evaluated" in said


def test_idx_images_are_cropped_and_mirrored(tiny_data, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data, seed=SEED, data={"crop_padding_px": 3})
    train = support.read_idx(tiny_data / "train-images-idx3-ubyte")
    test = support.read_idx(tiny_data / "t10k-images-idx3-ubyte")
    for number in (0, 1, 7, 998, 999):
        place = Place(5, number)
        found, _ = cat(config, number, "--epoch", 5)
        assert np.array_equal(found, draws.crop_flip(place, train[number], 3))
        wide, _ = cat(config, number, "--epoch", 5, "data.channels=3")
        assert wide.shape == (28, 28, 3) and (wide == found[..., None]).all()
        assert np.array_equal(cat(config, number % 200, "--eval")[0], test[number % 200])
    support.run("data", "cat", "--config", config, 7, "--epoch", 5, "-o", workdir / "7.png")
    assert np.array_equal(np.asarray(Image.open(workdir / "7.png")), draws.crop_flip(Place(5, 7), train[7], 3))


def test_what_makes_no_sense_is_refused(tiny_data, photographs, workdir):
    config = support.write_config(workdir / "run.yaml", tiny_data)

    def refused(code, *words):
        return support.run("data", "cat", *words, "-o", workdir / "out", check=code).stderr

    assert "go with --config" in refused(64, tiny_data, 0, "--epoch", 1)
    assert "go with --config" in refused(64, tiny_data, 0, "--eval")
    assert "same in every epoch" in refused(64, "--config", config, 0, "--eval", "--epoch", 1)
    assert "--raw does not go" in refused(64, "--config", config, 0, "--raw")
    assert "an argument is missing" in refused(64, "--config", config)
    assert "too many" in refused(64, tiny_data, 0, 1)
    assert "expected a number below 1000" in refused(64, "--config", config, 1000)
    assert "expected a number below 200" in refused(64, "--config", config, 200, "--eval")
    assert "data.channels=1" in refused(78, "--config", config, 0, "data.channels=4")
    root, _ = photographs
    config = write_config(workdir / "photographs.yaml", root, augment="none")
    raw = (root / "train" / "a" / "1.jpg").read_bytes()
    (root / "train" / "a" / "1.jpg").write_bytes(raw[::-1])
    assert "a/1.jpg" in refused(65, "--config", config, 1)
    (root / "train" / "a" / "1.jpg").write_bytes(raw)
    assert not (workdir / "out").exists()
