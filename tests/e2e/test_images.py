"""Image folders and tar shards: the same run whatever the images lie in, bad files left out, every sample once."""
import collections
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import tarfile
import time

import numpy as np
import pytest
import support

PIL = pytest.importorskip("PIL.Image", reason="python3-pil is not installed")

TRAIN, TEST = 1500, 200
SMALL = {"augment": "crop_flip", "data": {"size_px": 28, "resize_px": 28, "channels": 1, "threads": 2},
         "train": {"epochs": 2, "max_steps": 25}}


def png(pixels):
    out = io.BytesIO()
    PIL.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """{split: [(label, png)]}, sorted by label as a folder is, and the same as IDX."""
    folder = tmp_path_factory.mktemp("idx")
    found = {}
    for split, stem, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        images = support.read_idx(support.FASHION / f"{stem}-images-idx3-ubyte.gz")[:count]
        labels = support.read_idx(support.FASHION / f"{stem}-labels-idx1-ubyte.gz")[:count]
        order = np.argsort(labels, kind="stable")
        images, labels = images[order], labels[order]
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(support.idx_bytes(images))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(support.idx_bytes(labels))
        found[split] = [(int(label), png(image)) for label, image in zip(labels, images)]
    return found, folder


def write_folder(root, samples):
    for split, members in samples.items():
        for number, (label, image) in enumerate(members):
            path = root / split / str(label)
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{number:06d}.png").write_bytes(image)
    return root


def write_tar(path, members, style):
    dialect = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}[style]
    with tarfile.open(path, "w", format=dialect) as tar:
        for number, (label, image) in members:
            for suffix, content in (("png", image), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"images/{number:06d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_shards(root, samples, style, shard_samples=1024):
    root.mkdir(parents=True)
    for split, members in samples.items():
        numbered = list(enumerate(members))
        for shard, at in enumerate(range(0, len(numbered), shard_samples)):
            write_tar(root / f"{split}-{shard:04d}.tar", numbered[at:at + shard_samples], style)
    return root


def train(workdir, name, folder, /, *arguments, **changes):
    config = support.write_config(workdir / f"{name}.yaml", folder, **support.merged(SMALL, changes))
    support.run("train", config, "--workers", 2, "--run", workdir / name, "--quiet", *arguments)
    _, meta = support.read_safetensors(support.newest_checkpoint(workdir / name))
    return meta["weights_sha256"]


def index(*sources):
    for source in sources:
        support.run("data", "index", source)


def test_every_format_gives_bitwise_the_same_run(samples, workdir):
    members, idx = samples
    expected = train(workdir, "idx", idx)
    folder = write_folder(workdir / "folder", members)
    index(folder / "train", folder / "test")
    assert train(workdir, "run-folder", folder, data={"format": "images"}) == expected
    shards = {"format": "images", "train": "train-*.tar", "test": "test-*.tar"}
    for style in ("ustar", "gnu", "pax"):
        root = write_shards(workdir / style, members, style)
        index(root / "train-*.tar", root / "test-*.tar")
        assert train(workdir, f"run-{style}", root, data=shards) == expected
    packed = workdir / "packed"
    support.run("data", "pack", folder / "train", packed)
    support.run("data", "pack", folder / "test", packed)
    index(packed / "train-*.tar", packed / "test-*.tar")
    assert train(workdir, "run-packed", packed, data=shards) == expected
    system = workdir / "system"
    for split in members:  # GNU tar itself, from files beside each other
        flat = workdir / "flat" / split
        flat.mkdir(parents=True)
        names = []
        for number, (label, image) in enumerate(members[split]):
            (flat / f"{number:06d}.png").write_bytes(image)
            (flat / f"{number:06d}.cls").write_text(str(label))
            names += [f"{number:06d}.png", f"{number:06d}.cls"]
        system.mkdir(exist_ok=True)
        for shard, at in enumerate(range(0, len(names), 2048)):
            subprocess.run(["tar", "cf", system / f"{split}-{shard:04d}.tar", "-C", flat, *names[at:at + 2048]],
                           check=True)
    index(system / "train-*.tar", system / "test-*.tar")
    assert train(workdir, "run-system", system, data=shards) == expected


# ---- broken files


def break_one(path, how, rng):
    raw = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(raw[:rng.randrange(1, len(raw))])
    elif how == "flipped":
        raw[rng.randrange(8, len(raw) - 12)] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("this is no image\n" * 20)
    elif how == "huge header":
        raw[16:24] = (20000).to_bytes(4, "big") * 2  # and the CRC is wrong, too
        path.write_bytes(raw)
    elif how == "bomb":
        path.write_bytes(bomb())
    elif how == "unreadable":  # a folder cannot be read as a file, by root either
        path.unlink()
        path.mkdir()
    elif how == "dangling":
        path.unlink()
        path.symlink_to("/nonexistent/image")
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)


def bomb():
    """20,000 x 20,000 zeros in a few hundred kilobytes, with a sound header."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    packer = zlib.compressobj(9)
    row = bytes(20001)
    body = b"".join(packer.compress(row) for _ in range(2000)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)) + \
        chunk(b"IDAT", body) + chunk(b"IEND", b"")


BROKEN = ("truncated", "flipped", "empty", "text", "huge header", "bomb", "unreadable", "dangling", "pipe")


def bad_samples(run_dir):
    path = run_dir / "bad_samples.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def peak_bytes(pids):
    """The largest VmHWM of these processes."""
    found = [0]
    for pid in pids:
        try:
            status = open(f"/proc/{pid}/status").read()
        except OSError:
            continue
        found += [1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
    return max(found)


def train_watched(config, run_dir, *options):
    """(report, largest resident memory of a worker so far seen) of a run."""
    process = support.start("train", config, "--workers", 2, "--run", run_dir, "--quiet", *options)
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_bytes(support.pids_of(run_dir)["advprop-worker"]))
        time.sleep(0.05)
    report = process.stdout.read()
    assert process.returncode == 0, report
    return report, peak


def test_broken_files_are_left_out_and_listed(samples, workdir):
    """300 broken ones among 3,000 good: all the good ones are trained on, and memory is that of the good ones."""
    seed = int(os.environ.get("APD_TEST_SEED", 11))
    rng = random.Random(seed)
    members, _ = samples
    many = {"train": [members["train"][i // 2 if i < 2 * TRAIN else rng.randrange(TRAIN)] for i in range(3300)],
            "test": members["test"]}
    folder = write_folder(workdir / "folder", many)
    for path in sorted((folder / "train").glob("*/*.png"))[::90]:  # a name tells nothing: these are good
        path.rename(path.with_suffix(".jpg"))
    files = sorted((folder / "train").glob("*/*.*g"))
    assert len(files) == 3300
    index(folder / "train", folder / "test")
    config = support.write_config(workdir / "run.yaml", folder, **support.merged(SMALL, {
        "data": {"format": "images", "max_bad": 0.2}, "train": {"epochs": 1, "max_steps": 0},
        "log": {"per_step": True}}))
    _, sound_peak = train_watched(config, workdir / "sound", "train.max_steps=40")
    chosen = dict(zip(rng.sample(files, 300), itertools.cycle(BROKEN)))
    for path, how in chosen.items():  # after they were indexed
        break_one(path, how, rng)
    run_dir = workdir / "run"
    report, peak = train_watched(config, run_dir)
    listed = bad_samples(run_dir)
    assert {files[line["sample"]] for line in listed} == set(chosen) and len(listed) == len(chosen)
    for line in listed:  # the file's name and a reason
        name, _, reason = line["reason"].partition(str(files[line["sample"]]))
        assert reason.strip(": "), line
    assert "epoch 1: 3,300 of 3,300 receipts match" in report
    steps = support.records(run_dir, "step")
    assert all(np.isfinite(record["loss_clean"]) for record in steps)
    # Images that counted: each clean or auxiliary one of the epoch, but for the bad; the last step begins epoch 2.
    full = [record for record in steps if record["position"] <= 3300]
    batch = steps[0]["position"]
    bad = sum(line["step"] <= full[-1]["step"] for line in listed)
    assert sum(record["images_clean"] + record["images_adv"] for record in full) == batch * len(full) - bad
    assert all(0 <= record["data_wait_share"] <= 1 for record in steps)
    status = json.loads(support.run("status", run_dir, "--json", check=None).stdout)
    assert status["bad_samples"] == len(chosen)
    assert sound_peak > 0 and peak < sound_peak + (64 << 20)


@pytest.mark.parametrize("when", ["before", "after"])
def test_too_many_bad_samples_end_the_run_with_65(samples, workdir, when):
    members, _ = samples
    folder = write_folder(workdir / "folder", members)
    paths = sorted((folder / "train").glob("*/*.png"))[::300]
    if when == "after":
        index(folder / "train", folder / "test")
    for path in paths:
        path.write_bytes(path.read_bytes()[:-30] + b"no image data here at all, only text")
    if when == "before":
        index(folder / "train", folder / "test")
    config = support.write_config(workdir / "run.yaml", folder, **support.merged(SMALL, {
        "data": {"format": "images"}, "train": {"epochs": 2, "max_steps": 0}}))
    done = support.run("train", config, "--workers", 2, "--run", workdir / "run", "--quiet", check=65)
    assert "bad_samples.jsonl" in done.stderr + done.stdout
    assert bad_samples(workdir / "run")


# ---- exactly once


def trained(plan_text, steps):
    """{epoch: Counter of samples} of the first `steps` steps of a printed plan."""
    count = collections.defaultdict(collections.Counter)
    for line in plan_text.splitlines():
        words = line.split("\t")
        if line.startswith("#") or int(words[0]) >= steps:
            continue
        for place in words[3].split():
            epoch, sample = map(int, place.split(":"))
            count[epoch][sample] += 1
    return count


def test_every_sample_once_an_epoch_over_uneven_shards_kills_and_changes(samples, workdir):
    members, _ = samples
    seed = int(os.environ.get("APD_TEST_SEED", random.randrange(1 << 31)))
    print(f"APD_TEST_SEED={seed}")
    rng = random.Random(seed)
    root = workdir / "shards"
    root.mkdir()
    for split, all_members in members.items():
        numbered, shard = list(enumerate(all_members)), 0
        while numbered:
            size = rng.randrange(1, 200)
            write_tar(root / f"{split}-{shard:04d}.tar", numbered[:size], "pax")
            numbered, shard = numbered[size:], shard + 1
    index(root / "train-*.tar", root / "test-*.tar")
    config = support.write_config(workdir / "run.yaml", root, **support.merged(SMALL, {
        "data": {"format": "images", "train": "train-*.tar", "test": "test-*.tar", "window": 64},
        "train": {"epochs": 3, "max_steps": 0, "batch": 80, "lanes": 8, "clean_parts": 4, "aux_parts": 1},
        "log": {"per_step": True}, "checkpoint": {"every_s": 0.3}}))
    run_dir = workdir / "run"
    for workers, threads, until in ((4, 1, rng.randrange(2, 18)), (1, 3, rng.randrange(20, 38)), (3, 2, None)):
        options = (f"data.threads={threads}", "--workers", workers, "--run", run_dir, "--quiet")
        if until is None:
            report = support.run("train", config, *options).stdout
            break
        process = support.start("train", config, *options)
        support.wait_for_step(run_dir, until, process)
        support.kill_everything(process, run_dir)
        process.communicate()
    for epoch in (1, 2, 3):
        assert f"epoch {epoch}: {TRAIN:,} of {TRAIN:,} receipts match" in report
    # Independently of receipts: the steps that were committed, and the samples that the plan has for them.
    steps = sorted({record["step"] for record in support.records(run_dir, "step")})
    assert steps == list(range(1, steps[-1] + 1))
    plan = support.run("data", "plan", config, "--epoch", 0, "--steps", steps[-1]).stdout
    count = trained(plan, steps[-1])
    for epoch in (0, 1, 2):
        assert count[epoch] == collections.Counter(range(TRAIN))


def test_missing_manifest_says_what_to_do(samples, workdir):
    folder = write_folder(workdir / "folder", samples[0])
    config = support.write_config(workdir / "run.yaml", folder, **support.merged(SMALL, {"data": {"format": "images"}}))
    done = support.run("train", config, "--workers", 1, "--run", workdir / "run", "--quiet", check=78)
    assert "advprop data index" in done.stderr + done.stdout
    shutil.rmtree(folder / "test")
    done = support.run("train", config, "--workers", 1, "--run", workdir / "run", "--quiet", check=78)
    assert "data.test" in done.stderr + done.stdout or "advprop data index" in done.stderr + done.stdout
