"""Counts test cases: count.py RESULT...   (testlog.json of meson, junit XML of pytest)

A meson test that prints cmocka's summary counts as its single cases, any other as one. Prints why tests
were skipped and which failed; the last line is "N passed, N failed, N skipped". Exit status 1 if any
failed or a result file is missing.
"""

import json
import re
import sys
import xml.etree.ElementTree as ET

RUN = re.compile(r"^\[==========\] .*?(\d+) test\(s\) run\.$", re.M)
FAILED = re.compile(r"^\[  FAILED  \] .*?(\d+) test\(s\), listed below:$", re.M)
SKIPPED = re.compile(r"^\[  SKIPPED \] .*?(\d+) test\(s\), listed below:$", re.M)

SKIPPED_CASE = re.compile(r"^\[ RUN +\] (\S+)\n((?:(?!\[ ).*\n)*)\[  SKIPPED \] \1$", re.M)
FAILED_CASE = re.compile(r"^\[  FAILED  \] (?!.*listed below)(\S+)$", re.M)


def last_line(text):
    return (text.strip() or "no reason given").splitlines()[-1]


def total(pattern, text):
    return sum(int(number) for number in pattern.findall(text))


def count_meson(path, counts):
    with open(path) as file:
        tests = [json.loads(line) for line in file]
    if not tests:
        raise ValueError("no test in it")
    for test in tests:
        output = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")
        ran, failed, skipped = (total(p, output) for p in (RUN, FAILED, SKIPPED))
        if test["result"] == "SKIP":
            print(f"skipped: {test['name']}: {last_line(output)}")
            counts["skipped"] += 1
            continue
        if test["result"] not in ("OK", "EXPECTEDFAIL"):
            cases = ", ".join(dict.fromkeys(FAILED_CASE.findall(output)))
            print(f"failed: {test['name']} ({test['result']}): {cases or last_line(output)}")
            failed = max(failed, 1)  # also for what dies outside a case: a crash, a leak
            ran = max(ran, failed)
        for name, said in SKIPPED_CASE.findall(output):
            print(f"skipped: {test['name']}: {name}: {last_line(said)}")
        ran = max(ran, 1)
        counts["failed"] += failed
        counts["skipped"] += skipped
        counts["passed"] += ran - failed - skipped


def count_junit(path, counts):
    suites = list(ET.parse(path).getroot().iter("testsuite"))
    if sum(int(suite.get("tests")) for suite in suites) == 0:
        raise ValueError("no test in it")
    for case in (case for suite in suites for case in suite.iter("testcase")):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            print(f"failed: {name}")
            counts["failed"] += 1
        elif case.find("skipped") is not None:
            print(f"skipped: {name}: {case.find('skipped').get('message')}")
            counts["skipped"] += 1
        else:
            counts["passed"] += 1


def main(paths):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for path in paths:
        try:
            (count_junit if path.endswith(".xml") else count_meson)(path, counts)
        except (OSError, ValueError, ET.ParseError) as error:
            print(f"failed: {path}: {error}")
            counts["failed"] += 1
    print(", ".join(f"{number} {word}" for word, number in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
