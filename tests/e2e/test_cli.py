"""The command line without a run: help, versions, mistakes and their exit codes."""

import json
import os
import re
import shlex

import pytest

COMMANDS = ["train", "status", "watch", "events", "checkpoint", "drain", "stop", "eval", "ckpt ls",
            "ckpt verify", "ckpt diff", "ckpt export", "ckpt import", "data plan", "data index", "data verify",
            "data stat", "data pack", "data cat", "doctor", "config check", "config show", "config explain"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_everywhere(advprop, command):
    text = advprop(*command.split(), "--help").stdout
    assert text.startswith(f"Usage: advprop {command}")


def test_help_lists_all_commands(advprop):
    text = advprop("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command.split()[0]} ", text, re.M)


def test_version(advprop):
    assert re.fullmatch(r"advprop \d+\.\d+\.\d+\n", advprop("--version").stdout)


@pytest.mark.parametrize("arguments, nearest", [
    (["tarin"], "train"),
    (["statu"], "status"),
    (["config", "chek"], "check"),
    (["ckpt", "exprot"], "export"),
    (["ckpt", "diff", "--tolerence", "1"], "--tolerance"),
    (["data", "indx"], "index"),
    (["data", "index", ".", "--thread-count", "2"], None),
    (["data", "pack", "a", "b", "--shard-sample-s", "2"], "--shard-samples"),
    (["train", "--worker-count", "3"], None),
    (["train", "--wrokers", "3"], "--workers"),
    (["status", "--jsn"], "--json"),
    (["config", "explain", "attack.nois"], "attack.noise_prob"),
])
def test_unknown_word_names_the_nearest(advprop, arguments, nearest):
    message = advprop(*arguments, code=64).stderr
    assert "unknown" in message
    assert ("nearest one is " + nearest in message) if nearest else ("nearest" not in message)


@pytest.mark.parametrize("arguments", [
    [], ["train"], ["train", "x.yaml"], ["train", "x.yaml", "--workers", "0", "--run", "d"],
    ["train", "x.yaml", "y.yaml", "--workers", "1", "--run", "d"], ["status", "/nonexistent"],
    ["status", "a", "b"], ["watch", "--interval", "x"], ["watch", "--interval", "nan"], ["eval"],
    ["eval", "--checkpoint", "f"], ["eval", "d", "--bn", "both"], ["eval", "d", "--steps", "3"],
    ["eval", "d", "--restarts", "3"], ["eval", "d", "--attack", "pgd", "--restarts", "0"],
    ["data", "plan"], ["config", "check"], ["ckpt"], ["ckpt", "ls"], ["ckpt", "ls", "a", "b"],
    ["ckpt", "diff", "a"], ["ckpt", "diff", "a", "b", "--tolerance", "-1"], ["ckpt", "export", "a"],
    ["ckpt", "import", "a"], ["ckpt", "verify", "a", "--full"],
])
def test_wrong_usage_is_64(advprop, arguments, tmp_path):
    assert advprop(*arguments, code=64, cwd=tmp_path).stderr.strip()


def test_config_check_says_what_is_trained(advprop, tiny_yaml):
    assert "2 epochs, 4 lanes of 20 clean and 5 auxiliary" in advprop("config", "check", tiny_yaml).stdout


def test_wrong_configuration_is_78_with_file_and_line(advprop, tiny_yaml):
    tiny_yaml.write_text(tiny_yaml.read_text() + "attack:\n  epz: 1\n")
    message = advprop("config", "check", tiny_yaml, code=78).stderr
    assert f"{tiny_yaml}:11:3: unknown option attack.epz; the nearest one is attack.eps" in message


def test_wrong_override_is_78(advprop, tiny_yaml):
    message = advprop("config", "check", tiny_yaml, "optim.lr=fast", code=78).stderr
    assert "optim.lr=fast" in message and "expected a number" in message


def test_too_many_workers_are_78(advprop, tiny_yaml):
    message = advprop("config", "check", tiny_yaml, "--workers", "5", code=78).stderr
    assert "at most as many workers as lanes" in message


def test_shown_configuration_loads_again(advprop, tiny_yaml, tmp_path):
    shown = advprop("config", "show", tiny_yaml, "optim.lr=0.125").stdout
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert "lr: 0.125" in shown
    assert advprop("config", "show", again).stdout == shown


def test_missing_data_folder_is_78_before_anything_starts(advprop, tiny_yaml, tmp_path):
    run = tmp_path / "run"
    message = advprop("train", tiny_yaml, "data.path=/nonexistent", "--workers", "1", "--run", run,
                      code=78).stderr
    assert "data.path: /nonexistent: No such file or directory" in message
    assert not run.exists()


def test_dry_run_prints_a_line_for_the_shell(advprop, tiny_yaml, tmp_path):
    run = tmp_path / "a run's directory"
    text = advprop("train", tiny_yaml, "--workers", "3", "--run", run, "--dry-run").stdout
    words = shlex.split(text.replace("\\\n", " "))
    assert "OMPI_MCA_mpi_yield_when_idle=1" in words
    line = words[words.index("mpirun"):]
    assert line[1:3] == ["-n", "1"] and line[3].endswith("/advpropd")
    assert line[4:7] == ["--run", str(run), ":"] and line[-5:-3] == ["-n", "3"] and line[-3].endswith("/advprop-worker")
    assert not run.exists()


def test_workers_on_all_hosts_get_the_settings_of_threads_and_of_nccl(advprop, tiny_yaml, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NCCL_")}
    environment.update({"NCCL_SOCKET_IFNAME": "eth0,eth1", "NCCL_DEBUG": "", "NOT_NCCL_X": "1"})
    text = advprop("train", tiny_yaml, "--workers", "3", "--run", tmp_path / "run", "--dry-run",
                   env=environment).stdout
    words = shlex.split(text.replace("\\\n", " "))
    line = words[words.index(":") + 1:]
    assert sorted(line[1:8:2]) == ["GOMP_SPINCOUNT", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "OMP_DYNAMIC"]
    assert set(line[0:8:2]) == {"-x"} and line[8:10] == ["-n", "3"]


@pytest.fixture
def ended_run(tmp_path):
    """A run directory that no coordinator serves."""
    run = tmp_path / "ended"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 1\n")
    (run / "status.json").write_text(json.dumps({"state": "failed", "step": 7, "steps_total": 9}))
    (run / "events.jsonl").write_text('{"number": 1, "name": "start", "text": "one"}\n'
                                      '{"number": 2, "name": "state", "text": "two"}\n{"number": 3, "na')
    return run


def test_status_without_coordinator_is_the_last_one(advprop, ended_run):
    result = advprop("status", ended_run)
    assert "no coordinator runs" in result.stderr and "step 7 of 9" in result.stdout
    assert json.loads(advprop("status", "--json", cwd=ended_run).stdout)["step"] == 7


def test_events_without_coordinator_come_from_the_file(advprop, ended_run):
    result = advprop("events", ended_run, "--after", "1")
    assert "no coordinator runs" in result.stderr
    assert "two" in result.stdout and "one" not in result.stdout


@pytest.mark.parametrize("command", [["watch"], ["checkpoint"], ["drain"], ["stop"], ["status", "--shards"]])
def test_commands_without_coordinator_are_69(advprop, ended_run, command):
    assert "no coordinator" in advprop(*command, ended_run, code=69).stderr


def test_damaged_status_file_is_named(advprop, ended_run):
    (ended_run / "status.json").write_text('{"state": ')
    assert "status.json" in advprop("status", ended_run, code=69).stderr
