"""What the end-to-end tests share: the programs, a small data set, runs, and readers of what a run leaves.

The readers are written from docs/formats.md and docs/protocol.md, not from our C.
"""
import gzip
import json
import os
import pathlib
import signal
import struct
import subprocess
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("APD_BUILD", ROOT / "build-tests"))
ADVPROP = str(BUILD / "cli" / "advprop")
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
TIMEOUT_S = 300

SMALL = {
    "seed": 3,
    "device": "cpu",
    "model": {"arch": "resnet18", "width": 8, "stem": "small"},
    "data": {"format": "idx", "crop_padding_px": 2},
    "augment": "crop_flip",
    "train": {"mode": "fast_advprop", "epochs": 1, "batch": 80, "lanes": 4},
    "optim": {"lr": 0.05},
    "eval": {"batch": 100, "attack_steps": 0, "every_epochs": 0},
    "cpu": {"threads": 1},
}


def run(*args, check=0, **kwargs):
    """Runs `advprop args`; fails the test unless the exit status is `check` (None: any)."""
    done = subprocess.run([ADVPROP, *map(str, args)], capture_output=True, text=True,
                          timeout=kwargs.pop("timeout", TIMEOUT_S), **kwargs)
    if check is not None:
        assert done.returncode == check, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start(*args, **kwargs):
    return subprocess.Popen([ADVPROP, *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True, **kwargs)


def merged(base, changes):
    out = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in changes.items():
        if isinstance(value, dict):
            out[key] = {**out.get(key, {}), **value}
        else:
            out[key] = value
    return out


def write_config(path, folder, /, **changes):
    """A run.yaml (JSON is YAML) over the data set in `folder`."""
    config = merged(SMALL, changes)
    config["data"]["path"] = str(folder)
    path.write_text(json.dumps(config))
    return path


def idx_bytes(array):
    """An IDX file of unsigned bytes."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def read_idx(path):
    raw = gzip.open(path).read() if str(path).endswith(".gz") else open(path, "rb").read()
    dims = raw[3]
    shape = struct.unpack(f">{dims}I", raw[4:4 + 4 * dims])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


def make_data(folder, train, test):
    """The first images of Fashion-MNIST as a data set of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stem, count in (("train", "train", train), ("t10k", "t10k", test)):
        images = read_idx(FASHION / f"{stem}-images-idx3-ubyte.gz")[:count]
        labels = read_idx(FASHION / f"{stem}-labels-idx1-ubyte.gz")[:count]
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def read_safetensors(path):
    """({name: float32 array}, metadata)"""
    raw = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    meta = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert entry["dtype"] == "F32"
        tensors[name] = np.frombuffer(raw[8 + length + begin:8 + length + end],
                                      np.float32).reshape(entry["shape"])
    return tensors, meta


def write_safetensors(path, tensors):
    header, end = {}, 0
    for name, array in tensors.items():
        begin, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, np.float32).tobytes())


def commits(run_dir):
    path = run_dir / "checkpoints" / "commits.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def newest_checkpoint(run_dir):
    return run_dir / commits(run_dir)[-1]["path"]


def state_of(run_dir):
    """Everything that the outcome of a run consists of, as bytes by name."""
    tensors, meta = read_safetensors(newest_checkpoint(run_dir))
    state = {name: array.tobytes() for name, array in tensors.items()}
    for key in ("step", "cursor", "receipt_epoch", "receipt_samples", "receipt_sum", "weights_sha256"):
        state["meta " + key] = meta[key]
    return state


def assert_same_state(a, b):
    different = [name for name in sorted(set(a) | set(b)) if a.get(name) != b.get(name)]
    assert not different, f"{len(different)} of {len(a)} differ, first {different[:3]}"


def records(run_dir, kind):
    """Of whole lines: the last one may still be on its way."""
    text = (run_dir / "metrics.jsonl").read_text()
    lines = text[:text.rfind("\n") + 1].splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def has_step(run_dir, step):
    return (run_dir / "metrics.jsonl").exists() and any(
        record["step"] >= step for record in records(run_dir, "step"))


def wait_for_step(run_dir, step, process):
    while process.poll() is None:
        if has_step(run_dir, step):
            return
        time.sleep(0.02)
    if not has_step(run_dir, step):  # it may have come between the last look and the end
        raise AssertionError(f"the run ended before step {step}: {process.stdout.read()}")


def pids_of(run_dir):
    """{program: [pid]} of the processes that serve this run directory."""
    found = {"advpropd": [], "advprop-worker": []}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            zombie = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            continue
        name = os.path.basename(words[0].decode(errors="replace"))
        if name in found and str(run_dir).encode() in words and not zombie:
            found[name].append(int(entry.name))
    return found


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended
        pass


def kill_everything(process, run_dir):
    """`advprop train`, mpirun and all ranks, as a power cut would."""
    for pids in pids_of(run_dir).values():
        for pid in pids:
            kill(pid)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
