"""deploy/slurm/advprop.sbatch with a Slurm and an advprop of our own; test_slurm.py has a real one."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "slurm" / "advprop.sbatch"

FAKE_ADVPROP = """\
#!%s
import os, signal, sys
place = os.environ["FAKE"]
with open(place + "/calls", "a") as calls:
    calls.write("advprop " + " ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "drain":
    if os.path.exists(place + "/deaf"):
        sys.exit(69)
    os.kill(int(open(place + "/pid").read()), signal.SIGUSR2)
    sys.exit(0)
ending = int(os.environ["FAKE_EXIT"])
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda *_: os._exit(ending))
with open(place + "/pid", "w") as pid:
    pid.write(str(os.getpid()))
with open(place + "/ready", "w") as fifo:
    fifo.write("ready")
if ending == 0:
    sys.exit(0)
while True:
    signal.pause()
"""

# A requeue sends TERM to what still runs of the job.
FAKE_SCONTROL = """\
#!/bin/sh
echo "scontrol $*" >>"$FAKE/calls"
kill -TERM $PPID
"""


class Job:
    def __init__(self, place):
        self.place = place
        for name, text in (("advprop", FAKE_ADVPROP % sys.executable),
                           ("scontrol", FAKE_SCONTROL)):
            (place / name).write_text(text)
            (place / name).chmod(0o755)
        os.mkfifo(place / "ready")

    def start(self, *arguments, ending=75, **environment):
        everything = {"FAKE": str(self.place), "FAKE_EXIT": str(ending), "SLURM_JOB_ID": "42",
                      "SLURM_NTASKS": "3", "SLURM_SUBMIT_DIR": str(self.place / "with space"),
                      "SLURM_JOB_NODELIST": "n[1-2]", "PATH": f"{self.place}:{os.environ['PATH']}"}
        everything.update(environment)
        return subprocess.Popen(["bash", str(SCRIPT), *arguments], env=everything, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait_for_training(self):
        with open(self.place / "ready") as fifo:
            assert fifo.read() == "ready"

    def calls(self):
        return (self.place / "calls").read_text().splitlines()


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_warning_drains_and_requeues(job):
    process = job.start("run.yaml", "seed=5")
    job.wait_for_training()
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=60)
    run = job.place / "with space" / "runs" / "slurm-42"
    assert process.returncode == 75, output
    assert job.calls() == [f"advprop train run.yaml seed=5 --workers 2 --run {run} --quiet",
                           f"advprop drain {run}", "scontrol requeue 42"]


def test_drain_reaches_a_run_that_does_not_listen_yet(job):
    (job.place / "deaf").touch()
    process = job.start("run.yaml")
    job.wait_for_training()
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "scontrol requeue 42" in job.calls()


def test_cancelled_job_is_not_requeued(job):
    process = job.start("run.yaml")
    job.wait_for_training()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert not any(call.startswith("scontrol") for call in job.calls())


@pytest.mark.parametrize("ending", [0, 78])
def test_other_ends_are_not_requeued(job, ending):
    process = job.start("run.yaml", ending=ending)
    job.wait_for_training()
    if ending:
        process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == ending, output
    assert not any(call.startswith("scontrol") for call in job.calls())


def test_run_and_workers_can_be_chosen(job):
    process = job.start("run.yaml", ending=0, RUN="/elsewhere", WORKERS="7")
    job.wait_for_training()
    assert process.wait(timeout=60) == 0
    process.communicate()
    assert job.calls() == ["advprop train run.yaml --workers 7 --run /elsewhere --quiet"]


@pytest.mark.parametrize("arguments, environment", [
    ([], {}), (["run.yaml"], {"SLURM_NTASKS": "1"}), (["run.yaml"], {"SLURM_JOB_ID": ""})])
def test_senseless_submissions_are_64(job, arguments, environment):
    process = job.start(*arguments, **environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 64 and output.strip()
