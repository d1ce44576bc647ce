"""The scripts around the programs: setup's dry run, the count of tests, help and wrong arguments."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL, **options)


@pytest.mark.parametrize("script", ["deploy/setup", "deploy/quickstart", "deploy/pth2safetensors", "tests/run",
                                    "tests/gpu/run"])
def test_help_from_any_directory(script, tmp_path):
    result = run(ROOT / script, "--help", cwd=tmp_path)
    assert result.returncode == 0 and f"usage: {script}" in result.stdout.lower()


@pytest.mark.parametrize("line", [["deploy/setup", "--wrong"], ["tests/run", "--wrong"],
                                  ["deploy/pth2safetensors", "only-one"],
                                  ["tests/run", "--suite", "wrong"], ["tests/run", "--suite"],
                                  ["tests/gpu/run", "--wrong"], ["tests/gpu/run", "--minutes", "0"]])
def test_wrong_arguments_are_64(line):
    assert run(ROOT / line[0], *line[1:]).returncode == 64


def fake_dpkg(tmp_path, missing):
    query = tmp_path / "dpkg-query"
    query.write_text(f'#!/bin/sh\nfor last; do :; done\n[ "$last" = "{missing}" ] || printf installed\n')
    query.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin"}


def test_setup_names_what_is_missing_and_why(tmp_path):
    result = run(ROOT / "deploy/setup", "--dry-run", env=fake_dpkg(tmp_path, "libuv1-dev"))
    assert result.returncode == 0
    assert "missing: libuv1-dev: event loop of the coordinator" in result.stdout
    assert "apt-get -qq install -y --no-install-recommends libuv1-dev" in result.stdout


def test_setup_does_nothing_when_nothing_is_missing(tmp_path):
    result = run(ROOT / "deploy/setup", "--tests", env=fake_dpkg(tmp_path, "nothing"))
    assert result.returncode == 0 and result.stdout == "setup: nothing is missing\n"


PASSED = "[==========] Running 3 test(s).\n[==========] 3 test(s) run.\n[  PASSED  ] 3 test(s).\n"
ONE_FAILED = ("[==========] 3 test(s) run.\n[  PASSED  ] 2 test(s).\n"
              "[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] it\n")


ONE_SKIPPED = "[ RUN      ] it\nno second host\n[  SKIPPED ] it\n[==========] 3 test(s) run.\n"
ONE_SKIPPED_SUMMARY = "[  PASSED  ] 2 test(s).\n[  SKIPPED ] 1 test(s), listed below:\n[  SKIPPED ] it\n"


def count(tmp_path, tests, xml=None):
    log = tmp_path / "testlog.json"
    log.write_text("".join(json.dumps(test) + "\n" for test in tests))
    paths = [log]
    if xml is not None:
        paths.append(tmp_path / "e2e.xml")
        paths[-1].write_text(xml)
    result = run(sys.executable, ROOT / "tests/count.py", *paths)
    return result.returncode, result.stdout.splitlines()[-1], result.stdout


def test_count_adds_single_cases(tmp_path):
    tests = [{"name": "a", "result": "OK", "stdout": "", "stderr": PASSED}, {"name": "b", "result": "OK"}]
    xml = '<testsuites><testsuite tests="2"><testcase name="x"/><testcase name="y"><skipped message="no GPU"/>' \
          "</testcase></testsuite></testsuites>"
    code, last, text = count(tmp_path, tests, xml)
    assert (code, last) == (0, "5 passed, 0 failed, 1 skipped") and "no GPU" in text


def test_count_shows_why_a_case_was_skipped(tmp_path):
    tests = [{"name": "a", "result": "OK", "stdout": ONE_SKIPPED, "stderr": ONE_SKIPPED_SUMMARY}]
    code, last, text = count(tmp_path, tests)
    assert (code, last) == (0, "2 passed, 0 failed, 1 skipped") and "a: it: no second host" in text


def test_count_fails_for_failed_cases_crashes_and_missing_results(tmp_path):
    tests = [{"name": "a", "result": "FAIL", "stderr": ONE_FAILED}, {"name": "b", "result": "FAIL", "stderr": PASSED},
             {"name": "c", "result": "TIMEOUT"}, {"name": "d", "result": "SKIP", "stdout": "needs two hosts"}]
    code, last, text = count(tmp_path, tests)
    assert (code, last) == (1, "4 passed, 3 failed, 1 skipped") and "d: needs two hosts" in text
    (tmp_path / "testlog.json").unlink()
    result = run(sys.executable, ROOT / "tests/count.py", tmp_path / "testlog.json")
    assert result.returncode == 1 and result.stdout.endswith("0 passed, 1 failed, 0 skipped\n")
