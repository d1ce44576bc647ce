"""`advprop data corrupt`, and each corruption beside another implementation (tests/oracle/corruptions.py)."""
import fcntl
import io
import os
import signal
import subprocess
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
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*[pj][np]g"))}


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
    said = corrupt(workdir, workdir / "c", check=78).stderr
    assert "t10k-images" in said and "expected a folder for each class" in said and "data.path" not in said


# ---------------------------------------------------------------- image files

def sorted_by_class(tiny_data, workdir, count):
    """The first test images as IDX and as a folder of PNG files, in the same order."""
    images = support.read_idx(tiny_data / "t10k-images-idx3-ubyte")[:count]
    labels = support.read_idx(tiny_data / "t10k-labels-idx1-ubyte")[:count]
    order = np.argsort(labels, kind="stable")
    for name, array in (("images-idx3", images[order]), ("labels-idx1", labels[order])):
        (workdir / "idx").mkdir(exist_ok=True)
        (workdir / "idx" / f"t10k-{name}-ubyte").write_bytes(support.idx_bytes(array))
    for number, i in enumerate(order):
        path = workdir / "folder" / str(labels[i]) / f"of {number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(path)
    return workdir / "idx", workdir / "folder"


def test_idx_folder_tars_and_manifest_give_the_same_files(tiny_data, workdir):
    idx, folder = sorted_by_class(tiny_data, workdir, 60)
    view = ("--size", 28, "--resize", 28, "--channels", 1)
    words = ("-c", "gaussian_noise,elastic_transform,pixelate", "-s", "2,5")
    corrupt(idx, workdir / "expected", *words)
    expected = files_of(workdir / "expected")
    assert len(expected) == 360
    corrupt(folder, workdir / "of folder", *view, *words)
    assert files_of(workdir / "of folder") == expected
    assert not (folder / ".advprop-index").exists()
    support.run("data", "pack", folder, workdir / "tars", "--shard-samples", 25)
    corrupt(f"{workdir}/tars/folder-{{000000..000002}}.tar", workdir / "of tars", *view, *words)
    assert files_of(workdir / "of tars") == expected
    support.run("data", "index", workdir / "tars", "--out", workdir / "manifest")
    corrupt(workdir / "manifest", workdir / "of manifest", *view, *words)
    assert files_of(workdir / "of manifest") == expected


def photographs(root):
    """[(class, pixels as Pillow sees them)] in the order of samples"""
    found = []
    for name, file, shape in (("a cat", "1.jpg", (300, 400, 3)), ("a cat", "2.png", (500, 260, 3)),
                              ("dog", "x/3.webp", (256, 256, 3)), ("dog", "x/4.JPEG", (120, 90, 1))):
        path = root / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(corrupt_tool.photograph(*shape)).save(path)
        found.append((name, Image.open(path).convert("RGB")))
    return found


def test_photographs_are_cut_as_for_imagenet_c_and_corrupted(tool, workdir):
    originals = photographs(workdir / "set")
    for words, (resize, size) in (((), (256, 224)), (("--size", 96), (109, 96)),
                                  (("--size", 64, "--resize", 70), (70, 64))):
        folder = workdir / f"c{size}"
        corrupt(workdir / "set", folder, "-c", "gaussian_noise,fog", "-s", 3, "--seed", 4, *words)
        views = [(label, corrupt_tool.evaluation_view(image, resize, size)) for label, image in originals]
        expected = {f"{name}/3/{label}/{i:05}.png": tool.run(view, name, 3, 4, i)[1]
                    for name in ("gaussian_noise", "fog") for i, (label, view) in enumerate(views)}
        assert files_of(folder).keys() == expected.keys()
        for path, pixels in expected.items():
            assert np.array_equal(np.asarray(Image.open(folder / path)), pixels), path


def test_jpeg_files_are_those_that_pillow_saves(workdir):
    photographs(workdir / "set")
    corrupt(workdir / "set", workdir / "png", "-c", "snow", "-s", 1)
    corrupt(workdir / "set", workdir / "jpg", "-c", "snow", "-s", 1, "--jpeg", 85)
    lossless = files_of(workdir / "png")
    assert {path.replace(".png", ".jpg") for path in lossless} == files_of(workdir / "jpg").keys()
    for path, raw in lossless.items():
        out = io.BytesIO()
        Image.open(io.BytesIO(raw)).save(out, "JPEG", quality=85)
        ours = Image.open(workdir / "jpg" / path.replace(".png", ".jpg"))
        assert np.array_equal(np.asarray(ours), np.asarray(Image.open(out)))


def test_images_that_cannot_be_used_are_named_and_left_out(workdir):
    folder = workdir / "set"
    photographs(folder)
    support.run("data", "index", folder)
    (folder / "a cat" / "1.jpg").write_text("no image, and not what was indexed")
    (folder / "dog" / "x" / "3.webp").unlink()
    done = corrupt(folder, workdir / "c", "-c", "fog", "-s", 1)
    assert "sample 0 is left out: " in done.stderr and "a cat/1.jpg" in done.stderr
    assert "sample 2 is left out: " in done.stderr and "dog/x/3.webp: No such file" in done.stderr
    assert "wrote 2 images" in done.stdout and "left out: 2 samples" in done.stdout
    assert list(files_of(workdir / "c")) == ["fog/1/a cat/00001.png", "fog/1/dog/00003.png"]
    for path in ("a cat/2.png", "dog/x/4.JPEG"):
        (folder / path).write_text("no image")
    (folder / ".advprop-index").unlink()
    (folder / "dog" / "x" / "5.png").write_bytes(b"")
    done = corrupt(folder, workdir / "d", "-c", "fog", "-s", 1, check=65)
    assert "none of 3 images can be used" in done.stderr and "5.png: an empty file" in done.stderr


def test_what_does_not_fit_the_source_is_refused(tiny_data, workdir):
    folder = workdir / "set"
    photographs(folder)
    for words, said in ((("--split", "test"), "no --split"), (("--size", 64, "--resize", 63), "at least --size, 64"),
                        (("--channels", 2), "1 or 3"), (("--jpeg", 0), "--jpeg"), (("--size", 5000), "at most 4096")):
        assert said in corrupt(folder, workdir / "c", *words, check=64).stderr
    for words in (("--size", 28), ("--resize", 28), ("--channels", 1)):
        assert "IDX data set" in corrupt(tiny_data, workdir / "c", *words, check=64).stderr
    assert not (workdir / "c").exists()
    corrupt(folder, workdir / "c", "-c", "fog", "-s", 1, "--size", 32)
    for words in ((), ("--size", 32, "--resize", 40), ("--size", 32, "--channels", 1), ("--size", 32, "--jpeg", 85)):
        assert "take another folder" in corrupt(folder, workdir / "c", "-c", "fog", *words, check=78).stderr
    support.run("data", "pack", folder, workdir / "tars")
    for names, said in (("a/b\nc\n", '"a/b"'), (".a\nc\n", '".a"'), ("a\na\n", 'two classes are called "a"')):
        (workdir / "tars" / "classes.txt").write_text(names)
        assert said in corrupt(workdir / "tars", workdir / "d", check=78).stderr
    assert not (workdir / "d").exists()


# ---------------------------------------------------------------- what a killed process has left

def pid_of_the_dead():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_parts_of_killed_processes_are_removed(tiny_data, workdir):
    words = ("-c", "fog", "-s", 1, "--limit", 20)
    corrupt(tiny_data, workdir / "c", *words)
    folder, dead = workdir / "c" / "fog" / "1" / "7", pid_of_the_dead()
    stale = folder / f"00003.png.tmp.{dead}"
    kept = [folder / f"00004.png.tmp.{os.getpid()}", folder / f"mine.tmp.{dead}", folder / f"locked.png.tmp.{dead}",
            folder / f"00005.png.tmp.{dead}"]
    for path in (stale, *kept):
        path.write_bytes(b"part")
    with open(kept[-1]) as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        corrupt(tiny_data, workdir / "c", *words)
    assert not stale.exists() and all(path.exists() for path in kept)
    stale.write_bytes(b"part")
    with open(workdir / "c" / ".advprop-corrupt") as stamp:  # as another host does that works there
        fcntl.flock(stamp, fcntl.LOCK_SH)
        corrupt(tiny_data, workdir / "c", *words)
    assert stale.exists()
