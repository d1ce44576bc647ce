#!/usr/bin/python3
"""Runs the sections of tests/gpu/run and writes the report, anew after each section. Each has a process and a limit
of its own and runs whatever became of the others.
"""
import argparse
import ctypes
import datetime
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time

import sections

PR_SET_CHILD_SUBREAPER = 36
QUICK_PATIENCE = 20  # limits are of GPUs; an emulated one has what its CPU has left


def adopt_orphans():
    """What a section leaves becomes our child, whatever session it is in."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def parent_of(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def descendants(pid):
    parents = {int(entry.name): parent_of(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit()}
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def reap():
    """Statuses of those of our children that have ended, by process."""
    ended = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def end_all():
    """Whatever a section has started and left. 10 s at most, since a process can be stuck in a driver."""
    until = time.monotonic() + 10
    while (left := descendants(os.getpid())) and time.monotonic() < until:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
        reap()


def logs(folder):
    """The ends of what the runs of a failed section have logged."""
    for log in sorted(folder.glob("*/logs/*")):
        text = log.read_text(errors="replace").strip()
        if text:
            yield f"-- {log.relative_to(folder)}\n{text[-2000:]}"


def write_lines(section, host, file):
    """In the section's process. Returns its exit status."""
    try:
        for line in section(host):
            print(line.rstrip(), file=file, flush=True)
    except Exception as problem:
        print(f"{type(problem).__name__}: {problem}", file=file, flush=True)
        return 1
    return 0


def run_section(section, host, limit_s):
    """Returns the verdict and the text."""
    path = host.folder / "lines"
    host.until = time.monotonic() + limit_s
    with open(path, "w") as file:
        pid = os.fork()
        if pid == 0:
            os._exit(write_lines(section, host, file))
        ended = {}
        while pid not in ended and time.monotonic() < host.until:
            time.sleep(0.02)
            ended |= reap()
        end_all()
    verdict = "ok" if ended.get(pid) == 0 else "FAILED" if pid in ended else f"FAILED: ended after {limit_s:.0f} s"
    lines = [path.read_text().rstrip()]
    if verdict != "ok":
        lines += logs(host.folder)
    return verdict, "\n".join(lines)


def run_all(host, chosen, folder, seconds, parts, out):
    """Returns the names of those that failed."""
    until = time.monotonic() + seconds
    failed = []
    for number, (name, section, limit_s) in enumerate(chosen):
        began = time.monotonic()
        host.folder = folder / f"section{number}"
        host.folder.mkdir()
        if began + 1 > until:
            verdict, text = "FAILED: no time is left", ""
        else:
            verdict, text = run_section(section, host, min(limit_s, until - began))
        if verdict != "ok":
            failed.append(name)
        took = time.monotonic() - began
        print(f"{name}: {verdict} ({took:.0f} s)", flush=True)
        parts.append(f"\n== {name}: {verdict} ({took:.0f} s)\n{text}")
        out.write_text("\n".join(parts) + "\n")
    parts.append(f"\n{len(chosen) - len(failed)} of {len(chosen)} sections ok"
                 + (f"; failed: {', '.join(failed)}" if failed else ""))
    out.write_text("\n".join(parts) + "\n")
    return failed


def output(*command):
    """What a program says that may not be there."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def heading(build, quick):
    commit = output("git", "-C", sections.ROOT, "describe", "--always", "--dirty")
    options = build / "meson-info" / "intro-buildoptions.json"
    values = {o["name"]: o["value"] for o in json.loads(options.read_text())} if options.exists() else {}
    nvcc = output("nvcc", "--version") or output("/usr/local/cuda/bin/nvcc", "--version") or "none"
    fields = "name,driver_version,memory.total,memory.used,utilization.gpu,power.limit,clocks.max.sm"
    return [f"advpropd on GPUs, {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
            + (", quick: speeds mean nothing" if quick else ""),
            f"commit {commit or 'unknown'}, buildtype {values.get('buildtype', 'unknown')}, "
            f"code for {values.get('gpu_arch', 'unknown')}",
            f"{platform.platform()}, {os.cpu_count()} CPU cores",
            f"nvcc: {nvcc.splitlines()[-1]}",
            f"nvidia-smi: {fields}",
            output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader") or "none"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, required=True, help="for all sections together")
    arguments = parser.parse_args()
    adopt_orphans()
    build = arguments.build.resolve()
    with tempfile.TemporaryDirectory() as folder:
        host = sections.Host(build, arguments.quick, pathlib.Path(folder))
        parts = heading(build, arguments.quick)
        patience = QUICK_PATIENCE if arguments.quick else 1
        chosen = [(name, section, patience * limit_s) for name, section, limit_s in sections.SECTIONS]
        failed = run_all(host, chosen, pathlib.Path(folder), arguments.seconds, parts, arguments.out)
    print(f"{parts[-1].strip()}; report: {arguments.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
