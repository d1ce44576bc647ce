"""What `advprop train` does when mpirun ends, with an mpirun of our own that plays a script."""

import json
import os
import pathlib
import re
import shutil
import signal
import stat
import sys

import pytest

# One line of the script a start: a JSON list [status or null, exit status or "wait" or -signal].
FAKE_MPIRUN = """\
#!%s
import json, os, signal, sys
place = os.environ["FAKE"]
run = sys.argv[sys.argv.index("--run") + 1]
script = open(place + "/script").read().splitlines()
played = open(place + "/played", "a+")
played.seek(0)
number = len(played.read().splitlines())
played.write(json.dumps(sys.argv) + "\\n")
played.close()
status, end = json.loads(script[number])
if status is not None:
    status["generation"] = number + 1
    with open(run + "/status.json", "w") as file:
        json.dump(status, file)
if end == "wait":
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))
    with open(place + "/ready", "w") as fifo:
        fifo.write(str(os.getpid()))
    while True:
        signal.pause()
if end < 0:
    os.kill(os.getpid(), -end)
sys.exit(end)
"""


def failed(step, cause="rank 2 on h: connection lost"):
    return {"state": "failed", "step": step, "steps_total": 20, "first_cause": cause}


DONE = {"state": "done", "step": 20, "steps_total": 20, "model": "resnet18", "mode": "fast_advprop",
        "evaluation": [{"epoch": 2, "name": "main", "images": 100, "top1": 91, "loss": 0.3}],
        "checkpoint": {"step": 20, "path": "checkpoints/last", "sha256": "feed"}}


@pytest.fixture
def play(tmp_path, tiny_yaml):
    """play(run, starts, *arguments, **options): `run` is advprop or start; mpirun plays `starts`."""
    place = tmp_path / "fake"
    place.mkdir()
    mpirun = place / "mpirun"
    mpirun.write_text(FAKE_MPIRUN % sys.executable)
    mpirun.chmod(mpirun.stat().st_mode | stat.S_IXUSR)
    os.mkfifo(place / "ready")

    def run(how, starts, *arguments, **options):
        (place / "script").write_text("".join(json.dumps(one) + "\n" for one in starts))
        environment = dict(os.environ, FAKE=str(place), PATH=f"{place}:{os.environ['PATH']}")
        return how("train", tiny_yaml, "--workers", "2", "--run", tmp_path / "run", *arguments,
                   env=environment, **options)

    run.place = place
    run.starts = lambda: len((place / "played").read_text().splitlines())
    return run


def test_lost_worker_starts_again_and_reports(play, advprop, tmp_path):
    result = play(advprop, [[failed(3), 137], [DONE, 0]])
    assert "rank 2 on h: connection lost; starting again (1 of 20)" in result.stderr
    assert "clean accuracy, main BN    91.00 %" in result.stdout
    assert f"{tmp_path}/run/checkpoints/last" in result.stdout and "feed" in result.stdout
    assert play.starts() == 2


def test_killed_coordinator_starts_again(play, advprop):
    result = play(advprop, [[None, -9], [None, 137], [DONE, 0]])
    assert "mpirun was killed by signal 9; starting again (1 of 20)" in result.stderr
    assert "a rank was killed by signal 9; starting again (2 of 20)" in result.stderr


def test_complete_run_is_reported_without_a_start(play, advprop):
    play(advprop, [[DONE, 0]])
    assert "91.00 %" in play(advprop, []).stdout
    assert play.starts() == 1


def test_configuration_error_is_final(play, advprop):
    result = play(advprop, [[failed(0, "rank 1: no such device"), 78]], code=78)
    assert "rank 1: no such device" in result.stderr
    assert play.starts() == 1


def test_first_start_refused_is_not_repeated_though_a_peer_ended_before(play, advprop):
    """mpirun has the status of the rank that ended first: here of one that lost the coordinator."""
    status = {**failed(0, "rank 2 on h, starting: no GPU"), "exit_status": 69}
    result = play(advprop, [[status, 75], [DONE, 0]], code=69)
    assert "rank 2 on h, starting: no GPU" in result.stderr and "starting again" not in result.stderr
    assert play.starts() == 1


def test_three_starts_without_progress_give_up(play, advprop):
    result = play(advprop, [[failed(3), 139]] * 4, code=70)
    assert "3 starts in a row made no progress" in result.stderr
    assert play.starts() == 4


def test_restarts_are_limited(play, advprop):
    play(advprop, [[failed(n), 137] for n in (1, 2, 3)], "--max-restarts", "2", code=75)
    assert play.starts() == 3


def test_drained_by_somebody_else_is_75(play, advprop):
    status = {"state": "done", "step": 5, "steps_total": 20, "checkpoint": {"step": 5}}
    result = play(advprop, [[status, 75]], code=75)
    assert "goes on from checkpoint step 5" in result.stderr
    assert play.starts() == 1


def test_second_term_stops_at_once(play, start):
    process = play(start, [[None, "wait"]])
    with open(play.place / "ready") as fifo:
        mpirun = int(fifo.read())
    status = pathlib.Path(f"/proc/{mpirun}/status").read_text()
    blocked = int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16)
    assert blocked == 1 << signal.SIGTERM - 1  # a batch system sends it to all, and ranks are saving
    process.send_signal(signal.SIGTERM)
    line = process.stderr.readline()
    assert "Terminated" in line and "saves" in line
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert "Terminated again" in errors
    assert process.returncode == 75 and play.starts() == 1


def test_other_configuration_in_the_same_run_directory_is_refused(play, advprop):
    play(advprop, [[DONE, 0]])
    message = play(advprop, [], "optim.lr=0.5", code=78).stderr
    assert "optim.lr 0.02 and cannot go on with 0.5" in message


def test_run_directory_is_private(play, advprop, tmp_path):
    play(advprop, [[DONE, 0]])
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_shared_memory_folder_goes_with_the_run(play, start):
    process = play(start, [[None, "wait"]])
    folder = f"/dev/shm/advprop.{os.geteuid()}.{process.pid}"
    with open(play.place / "ready") as fifo:
        fifo.read()
    assert os.path.isdir(folder)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert not os.path.exists(folder)


def test_shared_memory_of_a_killed_run_is_removed_by_the_next(play, start, advprop):
    process = play(start, [[None, "wait"], [DONE, 0]])
    folder = f"/dev/shm/advprop.{os.geteuid()}.{process.pid}"
    with open(play.place / "ready") as fifo:
        fifo.read()
    process.kill()
    process.communicate(timeout=60)
    assert os.path.isdir(folder)
    play(advprop, [[None, "wait"], [DONE, 0]])
    assert not os.path.exists(folder)


def test_mpirun_that_outlives_its_ranks_is_killed_and_the_run_is_reported(advprop, tiny_yaml, tmp_path):
    """As Open MPI's does when it hangs in its own end: neither INT nor TERM reach it."""
    place = tmp_path / "fake"
    place.mkdir()
    mpirun = place / "mpirun"
    mpirun.write_text(f"#!{sys.executable}\nimport signal, subprocess, sys\n"
                      "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])\n"
                      f"subprocess.call([{shutil.which('mpirun')!r}, *sys.argv[1:]])\n"
                      "while True:\n    signal.pause()\n")
    mpirun.chmod(0o755)
    result = advprop("train", tiny_yaml, "cluster.silent_timeout_s=1", "--workers", "1", "--run", tmp_path / "run",
                     env=dict(os.environ, PATH=f"{place}:{os.environ['PATH']}"))
    assert "mpirun goes on without its coordinator: it is killed" in result.stderr
    assert "clean accuracy, main BN" in result.stdout
