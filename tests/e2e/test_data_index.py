"""`advprop data index`, verify, stat, pack and cat: folders and tar shards of the same images are the same data.

The reader of manifests is written from docs/formats.md, not from our C.
"""
import fcntl
import hashlib
import io
import json
import os
import pathlib
import signal
import struct
import subprocess
import tarfile
import time

import numpy as np
import pytest
import support
from PIL import Image

CLASSES = ("Zebra", "a cat", "b")
FORMATS = ("jpg", "png", "webp", "JPEG")
DIALECTS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


# ---------------------------------------------------------------- peers

def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def read_manifest(path):
    raw = path.read_bytes()
    magic, version, kind, samples, classes, shards, names_bytes, left_out, root, digest = struct.unpack_from(
        "<8sIIQIIQQQ64s", raw)
    assert magic == b"APDINDEX" and version == 1
    assert struct.unpack_from("<I", raw, 156)[0] == crc32c(raw[:156])
    sizes = (8 * classes, 104 * shards, 24 * samples, names_bytes)
    sections, at = [], 160
    for size, crc in zip(sizes, struct.unpack_from("<4I", raw, 120)):
        sections.append(raw[at:at + size])
        assert crc == crc32c(sections[-1])
        at += size
    assert at == len(raw)

    def name(place):
        return sections[3][place:sections[3].index(b"\0", place)].decode()

    out = {"kind": kind, "left_out": left_out, "root": name(root), "digest": digest.decode()}
    out["classes"] = [name(place) for place, in struct.iter_unpack("<Q", sections[0])]
    out["shards"] = [{"first": first, "samples": count, "left_out": left, "bytes": size,
                      "path": name(place), "sha256": sha.decode()}
                     for first, count, left, size, _, place, sha in struct.iter_unpack("<QIIQQQ64s", sections[1])]
    out["samples"] = [{"position": position, "size": size, "label": label, "crc": crc, "shard": shard}
                      for position, size, label, crc, shard in struct.iter_unpack("<QIiII", sections[2])]
    if kind == 2:
        for sample in out["samples"]:
            sample["path"] = name(sample["position"])
    return out


def digest_of(manifest):
    """docs/formats.md"""
    text = b"advprop data 1\nsamples %d\nclasses %d\nshards %d\n" % (
        len(manifest["samples"]), len(manifest["classes"]), len(manifest["shards"]))
    text += b"".join(name.encode() + b"\0" for name in manifest["classes"])
    text += b"".join(struct.pack("<I", shard["samples"]) for shard in manifest["shards"])
    text += b"".join(struct.pack("<iII", s["label"], s["size"], s["crc"]) for s in manifest["samples"])
    return hashlib.sha256(text).hexdigest()


def torchvision_samples(root):
    """ImageFolder's order; hidden files do not occur here."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    for label, name in enumerate(classes):
        for folder, _, files in sorted(os.walk(root / name, followlinks=True)):
            for file in sorted(files):
                if file.lower().endswith((".jpg", ".jpeg", ".png", ".webp")):
                    yield os.path.relpath(os.path.join(folder, file), root), label


def content(manifest):
    return [(s["label"], s["size"], s["crc"]) for s in manifest["samples"]]


# ---------------------------------------------------------------- data

def image_bytes(random, name):
    out = io.BytesIO()
    shape = (int(random.integers(8, 40)), int(random.integers(8, 40)), 3)
    kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(name.split(".")[-1].lower(), name.split(".")[-1].upper())
    Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(out, kind)
    return out.getvalue()


def make_folder(root, each=9):
    random = np.random.default_rng(5)
    for name in CLASSES:
        for below in ("", "x", "x-y", "x/z"):
            (root / name / below).mkdir(parents=True, exist_ok=True)
            for i in range(each):
                file = f"{i}.{FORMATS[i % 4]}"
                (root / name / below / file).write_bytes(image_bytes(random, file))
    return root


@pytest.fixture
def folder(workdir):
    return make_folder(workdir / "set")


def index(src, *args, **kwargs):
    out = support.run("data", "index", src, *args, **kwargs)
    return read_manifest(pathlib.Path(out.stdout.splitlines()[0].split(": ")[0]))


def add(tar, name, data, **fields):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def write_shards(dst, folder, dialect, each=40):
    """The folder's samples as WebDataset shards, with labels in both spellings and things to be passed over."""
    dst.mkdir()
    (dst / "classes.txt").write_text("".join(name + "\n" for name in CLASSES))
    samples = list(torchvision_samples(folder))
    long = "some/deep/folder/" + 40 * "long-" if dialect != "ustar" else "deep/"
    for shard, first in enumerate(range(0, len(samples), each)):
        with tarfile.open(dst / f"train-{shard:04}.tar", "w", format=DIALECTS[dialect]) as tar:
            add(tar, "./", b"", type=tarfile.DIRTYPE)
            for i, (path, label) in enumerate(samples[first:first + each], first):
                key = f"{long}{i:06}"
                add(tar, f"{key}.{path.split('.')[-1]}", (folder / path).read_bytes())
                if i % 2:
                    add(tar, f"{key}.json", json.dumps({"label": label, "caption": "\u00fc"}).encode())
                else:
                    add(tar, f"{key}.cls", b"%d\n" % label)
                add(tar, f"{key}.seg.png", b"of another use")
            add(tar, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="0.jpg")
    return dst


# ---------------------------------------------------------------- the same data in every wrapping

def test_folder_is_indexed_as_torchvision_orders_it(folder):
    manifest = index(folder, "--threads", 2)
    expected = list(torchvision_samples(folder))
    assert [(s["path"], s["label"]) for s in manifest["samples"]] == expected
    assert manifest["classes"] == sorted(CLASSES)
    for sample in manifest["samples"]:
        data = (folder / sample["path"]).read_bytes()
        assert (sample["size"], sample["crc"]) == (len(data), crc32c(data))
    whole = b"".join((folder / path).read_bytes() for path, _ in expected)
    assert manifest["shards"][0]["sha256"] == hashlib.sha256(whole).hexdigest()
    assert manifest["digest"] == digest_of(manifest)
    assert manifest["root"] == "." and manifest["kind"] == 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tar_of_each_dialect_is_the_folders_data(folder, workdir, dialect):
    expected = index(folder)
    shards = write_shards(workdir / dialect, folder, dialect)
    manifest = index(f"{shards}/train-{{0000..0002}}.tar")
    assert (shards / "train.advprop-index").exists()
    assert content(manifest) == content(expected)
    assert manifest["classes"] == expected["classes"]
    assert [shard["samples"] for shard in manifest["shards"]] == [40, 40, 28]
    for sample in manifest["samples"]:
        shard = manifest["shards"][sample["shard"]]
        raw = (shards / shard["path"]).read_bytes()
        assert shard["bytes"] == len(raw) and shard["sha256"] == hashlib.sha256(raw).hexdigest()
        data = raw[sample["position"]:sample["position"] + sample["size"]]
        assert crc32c(data) == sample["crc"]
    assert content(index(shards, "--out", workdir / "elsewhere")) == content(expected)
    assert read_manifest(workdir / "elsewhere")["root"] == str(shards)
    support.run("data", "verify", workdir / "elsewhere")


def test_gnu_tar_itself_writes_the_folders_data(folder, workdir):
    expected = index(folder)
    plain, shards = workdir / "plain", workdir / "shards"
    plain.mkdir()
    shards.mkdir()
    for i, (path, label) in enumerate(torchvision_samples(folder)):
        (plain / f"{i:06}.{path.split('.')[-1]}").write_bytes((folder / path).read_bytes())
        (plain / f"{i:06}.cls").write_text(str(label))
    for kind in ("gnu", "ustar", "posix", "v7", "oldgnu"):
        subprocess.run(["tar", f"--format={kind}", "--sort=name", "-cf", shards / f"{kind}.tar", "-C", plain, "."],
                       check=True)
        assert content(index(shards / f"{kind}.tar")) == content(expected), kind


def test_packed_folder_has_the_digest_of_the_folder(folder, workdir):
    expected = index(folder)
    for dst in ("one", "two"):
        support.run("data", "pack", folder, workdir / dst)
    packed = workdir / "one" / "set-000000.tar"
    assert packed.read_bytes() == (workdir / "two" / "set-000000.tar").read_bytes()
    manifest = index(workdir / "one")
    assert manifest["digest"] == expected["digest"]
    listed = subprocess.run(["tar", "-tf", packed], capture_output=True, text=True, check=True)
    assert listed.stderr == "" and len(listed.stdout.splitlines()) == 2 * len(expected["samples"])
    with tarfile.open(packed) as tar:
        for i, (path, label) in enumerate(torchvision_samples(folder)):
            image, cls = tar.next(), tar.next()
            assert image.name == f"{i:09}.{path.split('.')[-1].lower()}" and cls.name == f"{i:09}.cls"
            assert tar.extractfile(image).read() == (folder / path).read_bytes()
            assert tar.extractfile(cls).read() == str(label).encode()
            assert (image.mtime, image.uid, image.mode) == (0, 0, 0o644)


def test_idx_is_packed_as_png(tiny_data, workdir):
    support.run("data", "pack", tiny_data, workdir / "tars", "--shard-samples", 300)
    images = support.read_idx(tiny_data / "train-images-idx3-ubyte")
    labels = support.read_idx(tiny_data / "train-labels-idx1-ubyte")
    manifest = index(f"{workdir}/tars/train-*.tar")
    assert [shard["samples"] for shard in manifest["shards"]] == [300, 300, 300, 100]
    assert [sample["label"] for sample in manifest["samples"]] == list(labels)
    for i in (0, 299, 300, 999):
        shard = manifest["shards"][manifest["samples"][i]["shard"]]["path"]
        with tarfile.open(workdir / "tars" / shard) as tar:
            pixels = np.asarray(Image.open(tar.extractfile(f"{i:09}.png")))
        assert (pixels == images[i]).all()
    assert len(index(f"{workdir}/tars/test-*.tar")["samples"]) == 200


# ---------------------------------------------------------------- again, and after a kill

def reads(done):
    """(images read, shards read, shards known) of index's report"""
    words = done.stdout.splitlines()[2].split()
    return int(words[1]), int(words[4]), int(words[-4])


def test_unchanged_files_are_not_read_again(folder, workdir):
    shards = write_shards(workdir / "shards", folder, "pax")
    assert reads(support.run("data", "index", shards)) == (108, 3, 0)
    first = (shards / ".advprop-index").read_bytes()
    assert reads(support.run("data", "index", shards)) == (0, 0, 3)
    assert (shards / ".advprop-index").read_bytes() == first
    os.utime(shards / "train-0001.tar")
    assert reads(support.run("data", "index", shards)) == (40, 1, 2)
    assert reads(support.run("data", "index", folder)) == (108, 1, 0)
    (folder / "0 first").mkdir()  # a class before the others: labels change, no file does
    assert reads(support.run("data", "index", folder)) == (0, 0, 1)
    assert {s["label"] for s in read_manifest(folder / ".advprop-index")["samples"]} == {1, 2, 3}
    assert not list(folder.glob("*.partial"))


def size_of(path):
    """0 if it is not there: it may go at any time."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_index_goes_on_after_a_kill(workdir):
    folder = workdir / "many"
    (folder / "a").mkdir(parents=True)
    for i in range(5000):
        (folder / "a" / f"{i:05}.jpg").write_bytes(b"not decoded here %d" % i * 40)
    journal = folder / ".advprop-index.partial"
    killed = 0
    for _ in range(20):
        process = support.start("data", "index", folder, "--threads", 1)
        before = size_of(journal)
        while process.poll() is None:
            if size_of(journal) > before:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.0005)
        killed += process.returncode == -signal.SIGKILL
        process.stdout.close()
        if process.returncode == 0:
            break
    assert killed > 0
    again = support.run("data", "index", folder)
    assert journal.exists() is False
    assert reads(again)[2] == 5
    manifest = read_manifest(folder / ".advprop-index")
    assert [s["path"] for s in manifest["samples"]] == [f"a/{i:05}.jpg" for i in range(5000)]
    support.run("data", "verify", folder)


def test_a_signal_ends_index_in_order(workdir):
    folder = make_folder(workdir / "set", each=50)
    process = support.start("data", "index", folder)
    process.send_signal(signal.SIGTERM)  # at any point, from before it can know of it
    process.wait(timeout=60)
    assert process.returncode in (0, 75, -signal.SIGTERM)
    process.stdout.close()
    support.run("data", "index", folder)
    support.run("data", "verify", folder)


def test_pack_goes_on_and_spares_other_shards(folder, workdir):
    dst = workdir / "tars"
    args = ("data", "pack", folder, dst, "--shard-samples", 10)
    support.run(*args)
    whole = {path.name: path.read_bytes() for path in dst.glob("*.tar")}
    assert len(whole) == 11
    (dst / "set-000003.tar").unlink()
    assert "wrote 1 shards" in support.run(*args).stdout
    assert {path.name: path.read_bytes() for path in dst.glob("*.tar")} == whole
    refused = support.run("data", "pack", folder, dst, "--shard-samples", 11, check=78)
    assert "another --shard-samples" in refused.stderr
    (dst / "other-000000.tar").write_bytes(b"mine")
    refused = support.run("data", "pack", folder, dst, "--prefix", "other", check=78)
    assert "other-000000.tar is there and was not written by this command" in refused.stderr
    assert (dst / "other-000000.tar").read_bytes() == b"mine"


def kill_while_writing(folder, *words):
    """Starts a pack until it could be killed while it wrote a shard in `folder`; the file that it left."""
    for _ in range(50):
        process = support.start("data", *words)
        while process.poll() is None and not list(folder.glob(f"*.tar.tmp.{process.pid}")):
            time.sleep(0.0002)
        process.kill()
        process.wait()
        process.stdout.close()
        left = list(folder.glob("*.tar.tmp.*"))
        if left:
            return left[0]
    raise AssertionError("it never was writing when it was killed")


def test_pack_removes_what_a_killed_pack_has_left(workdir):
    folder, dst = workdir / "set", workdir / "tars"
    (folder / "a").mkdir(parents=True)
    for i in range(3000):
        (folder / "a" / f"{i}.jpg").write_bytes(b"not decoded here" * 500)
    dst.mkdir()
    words = ("pack", folder, dst, "--threads", 1)
    stale = kill_while_writing(dst, *words)
    dead = stale.name.rsplit(".", 1)[1]
    spared = [dst / f"set-000001.tar.tmp.{os.getpid()}", dst / f"other-000001.tar.tmp.{dead}", dst / "set.tmp.x",
              dst / f"set-000002.tar.tmp.{dead}"]
    for path in spared:
        path.write_bytes(b"part")
    with open(spared[-1]) as locked:  # as by a process of another host
        fcntl.flock(locked, fcntl.LOCK_EX)
        support.run("data", *words)
    assert not stale.exists() and all(path.exists() for path in spared)
    spared[0].unlink()
    (dst / f"classes.txt.tmp.{dead}").write_bytes(b"part")
    support.run("data", *words)
    assert sorted(path.name for path in dst.iterdir()) == [
        ".set.advprop-pack", "classes.txt", f"other-000001.tar.tmp.{dead}", "set-000000.tar", "set-000001.tar",
        "set-000002.tar", "set.tmp.x"]
    assert len(index(dst, "--out", workdir / "manifest")["samples"]) == 3000


def test_a_pack_that_runs_keeps_its_part(workdir):
    folder, dst = workdir / "set", workdir / "tars"
    (folder / "a").mkdir(parents=True)
    for i in range(3000):
        (folder / "a" / f"{i}.jpg").write_bytes(b"not decoded here" * 500)
    dst.mkdir()
    first = support.start("data", "pack", folder, dst, "--threads", 1)
    while first.poll() is None and not list(dst.glob("*.tar.tmp.*")):
        time.sleep(0.0002)
    support.run("data", "pack", folder, dst, "--threads", 1)
    assert first.wait(timeout=60) == 0, first.stdout.read()
    first.stdout.close()
    assert not list(dst.glob("*.tmp.*"))


def test_index_removes_what_a_killed_index_has_left(folder, workdir):
    process = subprocess.Popen(["true"])
    process.wait()
    stale = [folder / f".advprop-index.tmp.{process.pid}", workdir / f"here.tmp.{process.pid}"]
    spared = [folder / f".advprop-index.tmp.{os.getpid()}", folder / f"x.tmp.{process.pid}"]
    for path in (*stale, *spared):
        path.write_bytes(b"part")
    index(folder)
    support.run("data", "index", folder, "--out", "here", cwd=workdir)
    assert not any(path.exists() for path in stale) and all(path.exists() for path in spared)


# ---------------------------------------------------------------- what is wrong is named

def flip(path, offset):
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def test_verify_names_a_flipped_byte(folder, workdir):
    index(folder)
    flip(folder / "a cat" / "x" / "3.JPEG", 100)
    (folder / "b" / "2.webp").unlink()
    found = support.run("data", "verify", folder, check=65)
    assert "a cat/x/3.JPEG: sample " in found.stdout and "has CRC-32C" in found.stdout
    assert "b/2.webp: No such file" in found.stdout
    assert "2 differences" in found.stderr
    support.run("data", "pack", folder, workdir / "tars")
    manifest = index(workdir / "tars")
    shard = workdir / "tars" / "set-000000.tar"
    flip(shard, manifest["samples"][7]["position"])
    found = support.run("data", "verify", workdir / "tars", check=65)
    assert "sample 7 at offset" in found.stdout and "SHA-256 is" in found.stdout
    flip(shard, manifest["samples"][7]["position"])
    support.run("data", "verify", workdir / "tars")
    flip(shard, 3)
    assert "wrong checksum of the header at offset 0" in support.run("data", "verify", workdir / "tars", check=65).stdout


def test_broken_files_are_left_out_and_named(folder):
    sound = len(index(folder)["samples"])
    (folder / "b" / "zero.jpg").write_bytes(b"")
    (folder / "b" / "dangling.png").symlink_to("nowhere")
    os.mkfifo(folder / "b" / "fifo.webp")
    (folder / "b" / "loop").symlink_to("..")
    (folder / "b" / "text.jpg").write_text("no image, which decoding will tell")
    (folder / "b" / "notes.txt").write_text("")
    (folder / "b" / ".hidden.jpg").write_text("")
    done = support.run("data", "index", folder)
    for name, reason in (("zero.jpg", "an empty file"), ("dangling.png", "a link that leads nowhere"),
                         ("fifo.webp", "no regular file"), ("loop", "a link to a folder that it lies in")):
        assert f"b/{name}: {reason}" in done.stderr
    assert "left out: 4" in done.stdout and "1 hidden, 1 of no image's name" in done.stdout
    manifest = read_manifest(folder / ".advprop-index")
    assert len(manifest["samples"]) == sound + 1 and manifest["left_out"] == 4
    stat = json.loads(support.run("data", "stat", folder, "--json").stdout)
    assert stat["unknown"] == 1 and stat["left_out"] == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_named(folder):
    (folder / "b" / "0.jpg").chmod(0)
    assert "b/0.jpg: Permission denied" in support.run("data", "index", folder, check=69).stderr


def test_broken_samples_of_a_shard_are_left_out_and_named(workdir):
    shard = workdir / "s.tar"
    with tarfile.open(shard, "w") as tar:
        for name, data in (("1.jpg", b"x"), ("1.cls", b"0"), ("2.jpg", b"x"), ("3.cls", b"0"), ("4.jpg", b"x"),
                           ("4.cls", b"one"), ("5.jpg", b"x"), ("5.png", b"x"), ("5.cls", b"1"), ("6.jpg", b""),
                           ("6.cls", b"1"), ("meta.json", b"[]"), ("7.jpg", b"x"), ("7.json", b'{"cls": 2}')):
            add(tar, name, data)
    done = support.run("data", "index", shard)
    for text in ("2: no label", "3: no image", "4: a .cls that is no whole number", "5: more than one image",
                 "6: an empty image"):
        assert f"s.tar: {text}" in done.stderr
    manifest = read_manifest(workdir / "s.advprop-index")
    assert [s["label"] for s in manifest["samples"]] == [0, 2] and manifest["left_out"] == 5
    assert manifest["classes"] == ["0", "1", "2"]


def test_damaged_shard_is_refused(folder, workdir):
    shards = write_shards(workdir / "shards", folder, "gnu")
    raw = (shards / "train-0001.tar").read_bytes()
    (shards / "train-0001.tar").write_bytes(raw[:len(raw) // 2 + 100])
    refused = support.run("data", "index", shards, check=65)
    assert "train-0001.tar" in refused.stderr and "offset" in refused.stderr
    assert not (shards / ".advprop-index").exists()
    (shards / "train-0001.tar").write_bytes(raw)
    (shards / "classes.txt").write_text("one\ntwo\n")
    assert "expected below 2" in support.run("data", "index", shards, check=65).stderr


def test_damaged_manifest_is_refused_and_made_anew(folder):
    index(folder)
    flip(folder / ".advprop-index", 300)
    assert "CRC" in support.run("data", "stat", folder, check=65).stderr
    done = support.run("data", "index", folder)
    assert reads(done) == (108, 1, 0) and "all is read anew" in done.stderr


def test_wrong_sources_are_refused(folder, workdir):
    def refused(code, *args):
        return support.run("data", *args, check=code).stderr

    (workdir / "empty").mkdir()
    assert "expected a folder for each class" in refused(78, "index", workdir / "empty")
    assert "No such file" in refused(78, "index", workdir / "t-{0..3}.tar")
    assert "no file matches" in refused(78, "index", workdir / "t-*.tar")
    assert "there is no }" in refused(64, "index", workdir / "t-{0..3.tar")
    assert "run advprop data index first" in refused(78, "stat", folder)
    (workdir / "precious").write_text("text")
    assert "is no manifest" in refused(78, "index", folder, "--out", workdir / "precious")
    assert (workdir / "precious").read_text() == "text"
    assert "an argument is missing" in refused(64, "pack", folder)
    assert "expected folder or tar" in refused(64, "index", folder, "--format", "zip")
    (folder / "x.tar").write_bytes(b"")
    assert "say --format" in refused(78, "index", folder)
    support.run("data", "index", folder, "--format=folder")
    assert "expected a number below" in refused(64, "cat", folder, "108")


# ---------------------------------------------------------------- stat and cat

def test_stat_counts_what_pillow_sees(folder):
    double = (folder / "b" / "0.jpg").read_bytes()
    (folder / "a cat" / "twin.jpg").write_bytes(double)
    (folder / "b" / "twin.jpg").write_bytes(double)
    Image.new("L", (50, 4)).save(folder / "b" / "grey.png")
    Image.new("P", (5, 60)).save(folder / "b" / "palette.png")
    manifest = index(folder)
    stat = json.loads(support.run("data", "stat", folder, "--json").stdout)
    images = [Image.open(folder / s["path"]) for s in manifest["samples"]]
    lower = (len(images) - 1) // 2

    def spread(values):
        values = sorted(values)
        return {"min": values[0], "median": values[lower], "max": values[-1]}

    assert stat["samples"] == len(images) and stat["digest"] == manifest["digest"]
    assert stat["width_px"] == spread(image.width for image in images)
    assert stat["height_px"] == spread(image.height for image in images)
    assert stat["bytes"] == spread(s["size"] for s in manifest["samples"])
    for kind in ("JPEG", "PNG", "WebP"):
        assert stat["formats"][kind] == sum(image.format == kind.upper() for image in images)
    assert (stat["colours"]["grey"], stat["colours"]["palette"]) == (1, 1)
    assert [entry["samples"] for entry in stat["classes"]] == [36, 37, 39]
    twins = [i for i, s in enumerate(manifest["samples"]) if s["crc"] == crc32c(double)]
    assert stat["duplicates"] == [twins] and len(twins) == 3
    text = support.run("data", "stat", folder).stdout
    assert "duplicates  3 images in 1 groups, 1 of them with two labels" in text


def test_cat_writes_the_stored_bytes(folder, workdir):
    manifest = index(folder)
    path = folder / manifest["samples"][50]["path"]
    done = subprocess.run([support.ADVPROP, "data", "cat", folder, "50"], capture_output=True, check=True)
    assert done.stdout == path.read_bytes()
    assert manifest["samples"][50]["path"].encode() in done.stderr and b"(a cat)" in done.stderr
    shards = write_shards(workdir / "shards", folder, "pax")
    index(shards)
    done = support.run("data", "cat", shards / ".advprop-index", 50, "--raw", "-o", workdir / "out")
    assert (workdir / "out").read_bytes() == path.read_bytes()
    assert "long-000050\n" in done.stderr
    flip(shards / "train-0001.tar", read_manifest(shards / ".advprop-index")["samples"][50]["position"])
    assert "CRC-32C is" in support.run("data", "cat", shards, 50, check=65).stderr
