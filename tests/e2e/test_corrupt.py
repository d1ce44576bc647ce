"""`advprop data corrupt`, and each corruption beside another implementation (tests/oracle/corruptions.py)."""
import signal
import sys
import time

import corrupt_tool
import numpy as np
import pytest
import support
from PIL import Image

sys.path.insert(0, str(support.ROOT / "tests" / "oracle"))
import corruptions  # noqa: E402

SHAPES = [(28, 28, 1), (32, 32, 3), (224, 224, 3), (37, 50, 3), (100, 75, 1)]
SEED, SAMPLE = 2 ** 40 + 5, 2 ** 33 + 7


@pytest.fixture(scope="module")
def tool():
    tool = corrupt_tool.Tool()
    yield tool
    tool.close()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("name", corruptions.NAMES)
def test_pixels_are_those_of_the_formulas(tool, name, shape):
    image = corrupt_tool.photograph(*shape)
    for severity in range(1, 6):
        ours = tool.run(image, name, severity, SEED, SAMPLE)[1].astype(int)
        theirs = corruptions.corrupt(image, name, severity, SEED, SAMPLE).astype(int)
        difference = np.abs(ours - theirs)
        # Equal on the machine where this was written; rounding of another libm may reach the last bit.
        assert difference.mean() <= 0.001 and difference.max() <= 1, f"severity {severity}"


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def corrupt(data, folder, *args, **kwargs):
    return support.run("data", "corrupt", data, folder, *args, **kwargs)


def test_layout_and_pixels(tool, tiny_data, workdir):
    corrupt(tiny_data, workdir / "c", "-c", "snow,contrast", "-s", "1,4-5", "--seed", 9, "--limit", 20)
    images = support.read_idx(tiny_data / "t10k-images-idx3-ubyte")
    labels = support.read_idx(tiny_data / "t10k-labels-idx1-ubyte")
    expected = {f"{name}/{severity}/{labels[i]}/{i:05}.png": tool.run(images[i], name, severity, 9, i)[1]
                for name in ("snow", "contrast") for severity in (1, 4, 5) for i in range(20)}
    found = files_of(workdir / "c")
    assert found.keys() == expected.keys()
    for path, pixels in expected.items():
        image = Image.open(workdir / "c" / path)
        assert image.mode == "L" and np.array_equal(np.array(image), pixels), path


def test_fifteen_by_default_all_on_demand(tiny_data, workdir):
    corrupt(tiny_data, workdir / "c", "--limit", 1, "--split", "train")
    folders = sorted(path.name for path in (workdir / "c").iterdir() if path.is_dir())
    assert folders == sorted(corruptions.NAMES[:15])
    assert len(files_of(workdir / "c")) == 75
    out = corrupt(tiny_data, workdir / "c", "--limit", 1, "--split", "train", "-c", "all").stdout
    assert "wrote 20 images" in out and "75 were there" in out


def test_threads_do_not_matter(tiny_data, workdir):
    for threads in (1, 3):
        corrupt(tiny_data, workdir / str(threads), "-c", "all", "-s", 3, "--limit", 30, "--threads", threads)
    assert files_of(workdir / "1") == files_of(workdir / "3")


def test_what_is_there_is_kept_and_what_is_missing_made(tiny_data, workdir):
    command = ("-c", "fog", "--limit", 10)
    corrupt(tiny_data, workdir / "c", *command)
    before = files_of(workdir / "c")
    first, second = (workdir / "c" / path for path in list(before)[:2])
    first.unlink()
    second.write_bytes(b"mine")
    assert "wrote 1 images" in corrupt(tiny_data, workdir / "c", *command).stdout
    assert first.read_bytes() == before[str(first.relative_to(workdir / "c"))]
    assert second.read_bytes() == b"mine"


def test_a_signal_ends_it_and_the_same_command_goes_on(tiny_data, workdir, start):
    process = start("data", "corrupt", tiny_data, workdir / "c", "--split", "train", "-c", "all", "--threads", 1)
    while not files_of(workdir / "c") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=support.TIMEOUT_S) == 75
    assert not list((workdir / "c").rglob("*.tmp*"))
    corrupt(tiny_data, workdir / "c", "--split", "train", "-c", "all", "--limit", 5)
    assert len([path for path in files_of(workdir / "c") if path.endswith("/00004.png")]) == 95


@pytest.mark.parametrize("words", [("--seed", 1), ("--split", "train")])
def test_another_origin_is_refused(tiny_data, workdir, words):
    corrupt(tiny_data, workdir / "c", "-c", "fog", "--limit", 1)
    assert "take another folder" in corrupt(tiny_data, workdir / "c", "-c", "fog", *words, check=78).stderr


@pytest.mark.parametrize("words, said", [
    (("-c", "foggy"), 'no "foggy" among gaussian_noise'), (("-c", ""), "--corruption"),
    (("-s", "0"), "--severity"), (("-s", "2-6"), "--severity"), (("-s", "3-1"), "--severity"),
    (("-s", "1,,2"), "--severity"), (("-s", "11"), "--severity"), (("-s", ""), "--severity"),
    (("--seed", "-1"), "--seed"), (("--split", "all"), "--split"), (("--limit", "0"), "--limit"),
])
def test_wrong_words_are_named(tiny_data, workdir, words, said):
    assert said in corrupt(tiny_data, workdir / "c", *words, check=64).stderr
    assert not (workdir / "c").exists()


def test_a_folder_without_images_is_named(workdir):
    assert "t10k-images" in corrupt(workdir, workdir / "c", check=78).stderr
