"""tests/gpu/run, the command for whoever has a GPU: all of it at small sizes on the stand-ins, and what becomes of
sections that fail or hang."""
import pathlib
import re
import subprocess
import sys
import textwrap

import standin
import support

RUN = support.ROOT / "tests" / "gpu" / "run"
SECTIONS = ("doctor", "operations against the reference", "training beside the CPU", "resume", "same bits",
            "two GPUs", "speed", "device properties", "PyTorch")


def gpu_run(out, **settings):
    return subprocess.run([RUN, "--quick", "--as-is", "--minutes", "120", "--build", support.BUILD, "--out", out],
                          capture_output=True, text=True, env=standin.environment(**settings))


def verdicts(report):
    return dict(re.findall(r"^== (.*?): (.*) \(\d+ s\)$", report, re.M))


@standin.needs_all
def test_report_of_two_gpus_holds_every_section(tmp_path):
    done = gpu_run(tmp_path / "report.txt", DEVICES=2, TIMEOUT=60)
    report = (tmp_path / "report.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + report
    assert verdicts(report) == dict.fromkeys(SECTIONS, "ok")
    assert re.search(r"^nvidia-smi: .*driver_version", report, re.M) and "cuDNN  " in report and "GPU 1  " in report
    for line in (r"bf16: pass", r"tf32: losses of 10 steps differ by .*", r"20 steps, killed once and drained once .*",
                 r"losses of 10 steps on two GPUs differ .*", r"tf32 6\+0 16 px +[\d.]+ +[\d.]+",
                 r'    "convolutions planned" plans=\d+ tensor_core=\d+ fallback=0 compiled_late=0',
                 r"fp16 4\+2 16 px: losses of two runs ([\d.e+-]+) and \1",
                 r'\{"op":"forward","type":"f16".*"engine":2,.*'):
        assert re.search(f"^{line}$", report, re.M), line
    for how in ("eager", "deterministic"):
        assert re.search(rf"^{how} 4\+2 16 px( +[\d.]+){{3}}$", report, re.M) or "left out: " in report
    assert report.endswith("\n9 of 9 sections ok\n")


@standin.needs_all
def test_failing_gpu_fails_what_uses_it_and_nothing_is_left_out(tmp_path):
    done = gpu_run(tmp_path / "report.txt", FAULT=200, TIMEOUT=60)
    report = (tmp_path / "report.txt").read_text()
    assert done.returncode == 1
    assert tuple(verdicts(report)) == SECTIONS
    assert {name for name, verdict in verdicts(report).items() if verdict == "ok"} >= {"device properties", "PyTorch"}
    assert {name for name, verdict in verdicts(report).items() if verdict == "FAILED"} >= {"doctor", "speed"}
    assert "-- training beside the CPU" not in report and re.search(r"^-- fp32/logs/rank-1.log$", report, re.M)
    assert "failed: doctor, " in report.splitlines()[-1]


@standin.needs_all
def test_no_gpu_is_77_and_says_why(tmp_path):
    done = gpu_run(tmp_path / "report.txt", DRIVER="missing")
    assert done.returncode == 77 and "no NVIDIA driver is installed" in done.stderr


DRIVER = """
import pathlib, subprocess, sys, types
sys.path.insert(0, {folder!r})
import report
folder = pathlib.Path(sys.argv[1])

def hangs(host):
    yield "before"
    subprocess.run(["setsid", "--wait", "sleep", "987654"])

def fails(host):
    yield "so far"
    raise ValueError("what is wrong")

def good(host):
    yield "fine"

report.adopt_orphans()
chosen = [("hangs", hangs, 1), ("fails", fails, 60), ("good", good, 60)]
print(report.run_all(types.SimpleNamespace(), chosen, folder, float(sys.argv[2]), ["head"], folder / "out"))
"""


def run_planted(tmp_path, seconds):
    driver = textwrap.dedent(DRIVER).format(folder=str(support.ROOT / "tests" / "gpu"))
    done = subprocess.run([sys.executable, "-c", driver, tmp_path, str(seconds)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1], (tmp_path / "out").read_text()


def test_hanging_section_is_ended_with_all_its_processes_and_the_others_run(tmp_path):
    failed, report = run_planted(tmp_path, 60)
    assert failed == "['hangs', 'fails']"
    assert verdicts(report) == {"hangs": "FAILED: ended after 1 s", "fails": "FAILED", "good": "ok"}
    assert "\nbefore\n" in report and "\nso far\nValueError: what is wrong\n" in report and "\nfine\n" in report
    sleeping = [path for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if b"987654" in read(path)]
    assert not sleeping


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_section_that_finds_no_time_left_has_failed(tmp_path):
    failed, report = run_planted(tmp_path, 0.1)
    assert failed == "['hangs', 'fails', 'good']"
    assert set(verdicts(report).values()) == {"FAILED: no time is left"}
