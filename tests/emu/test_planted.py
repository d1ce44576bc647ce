"""Planted bugs are caught, each by the tool that is meant to, and a sound kernel is not.

Usage: test_planted.py VARIANT PROGRAM, VARIANT one of plain, asan, tsan
"""

import shutil
import subprocess
import sys

ANYWHERE = {
    "sound": "orders agree",
    "limits": "",
    "by_name": "",
}
CAUGHT_ANYWHERE = {
    "divergent": "deadlock: a barrier or warp operation not all threads come to",
    "two_barriers": "threads are at different __syncthreads",
    "early_exit": "__syncthreads after threads of the block have ended",
    "lost_lane": "a warp operation waits for a lane that has ended",
    "race": "orders differ",
    "same_name": "two kernels are named k_same",
}
CAUGHT = {
    "plain": {},
    "asan": {
        "shared_overrun": "AddressSanitizer: heap-buffer-overflow",
        "global_overrun": "AddressSanitizer: heap-buffer-overflow",
        "misaligned": "which requires 16 byte alignment",
    },
    "tsan": {
        "race": "ThreadSanitizer: data race",
        "same_address": "ThreadSanitizer: data race",
    },
}


def run(variant, program, what):
    command = [program, what]
    if variant == "tsan" and shutil.which("setarch"):
        command = ["setarch", "-R", *command]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout + result.stderr


def main(variant, program):
    wrong = []
    for what, text in ANYWHERE.items():
        status, output = run(variant, program, what)
        if status != 0 or text not in output:
            wrong.append(f"{what}: exit {status}, although nothing is wrong:\n{output}")
    for what, text in {**CAUGHT_ANYWHERE, **CAUGHT[variant]}.items():
        status, output = run(variant, program, what)
        if status == 0 or text not in output:
            wrong.append(f"{what}: exit {status}, and no '{text}':\n{output}")
    print("\n".join(wrong) or f"{len(ANYWHERE)} sound, {len({**CAUGHT_ANYWHERE, **CAUGHT[variant]})} bugs caught")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
