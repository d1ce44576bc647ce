"""What nvcc and ptxas made of the kernels: nothing spilled, nothing warned about, every kernel for every
architecture and with a twin in the emulation, and the tensors of T in accesses of 16 bytes.

Usage: test_compiled.py NVCC SOURCE_ROOT PLANTED ARCHS FILE.log ...
"""

import pathlib
import re
import subprocess
import sys

# Kernels over T: whether they read and write tensors of T.
TENSORS = {
    "k_bn_sums": (True, False),
    "k_bn_forward": (True, True),
    "k_bn_backward_sums": (True, True),
    "k_bn_backward_data": (True, True),
    "k_bn_pool_forward": (True, True),
    "k_bn_pool_backward_sums": (True, True),
    "k_maxpool_forward": (True, True),
    "k_maxpool_backward": (True, True),
    "k_avgpool_forward": (True, False),
    "k_avgpool_backward": (False, True),
    "k_image_to_activation": (False, True),
    "k_activation_to_image": (True, False),
    "k_rows_pack": (False, True),
    "k_rows_unpack": (True, False),
    "k_flat": (True, True),
    "k_input_packILb1": (False, True),
    "k_attack_stepILi4": (True, True),
    "k_mix_imagesILi4": (True, True),
}

ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+\w?)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
WIDE_LOAD = re.compile(r"ld\.global(\.nc)?\.(v4\.[ufb]32|v2\.[ufb]64)\b")
WIDE_STORE = re.compile(r"st\.global\.(v4\.[ufb]32|v2\.[ufb]64)\b")
NARROW = re.compile(r"(ld|st)\.global(\.nc)?(\.v\d)?\.[ub]16\b")


def read_log(text):
    """{(kernel, arch): registers} and what is wrong."""
    found, wrong, current = {}, [], None
    for line in text.splitlines():
        if match := ENTRY.search(line):
            current = match.groups()
        elif (match := FRAME.search(line)) and current:
            if any(int(bytes_) for bytes_ in match.groups()):
                wrong.append(f"{current[0]} for sm_{current[1]}: {match.group(0)}")
        elif (match := USED.search(line)) and current:
            found[current] = int(match.group(1))
        elif re.search("warning|error", line, re.I):
            wrong.append(line)
    return found, wrong


def check_archs(found, archs):
    for arch in archs:
        for kernel in {name for name, _ in found}:
            if (kernel, arch) not in found:
                yield f"{kernel} is not compiled for sm_{arch}"
    if not found:
        yield "no kernel in the logs"


def entries(ptx):
    """[(kernel, body)]"""
    for match in re.finditer(r"\.entry (\w+)\((.*?)\n}", ptx, re.S):
        yield match.group(1), match.group(2)


def check_width(kernel, body):
    for name, (reads, writes) in TENSORS.items():
        if f"{len(name.split('I')[0])}{name}" not in kernel:
            continue
        if reads and not WIDE_LOAD.search(body):
            yield f"{kernel}: no load of 16 bytes"
        if writes and not WIDE_STORE.search(body):
            yield f"{kernel}: no store of 16 bytes"
        if name != "k_flat" and NARROW.search(body):  # flat arrays have heads and tails
            yield f"{kernel}: an access by 2 bytes"


def self_test():
    """Each check must be able to fail."""
    log = ("ptxas info    : Compiling entry function '_Z1kv' for 'sm_80'\n"
           "    0 bytes stack frame, {} bytes spill stores, 0 bytes spill loads\n"
           "ptxas info    : Used 9 registers\n")
    assert read_log(log.format(0)) == ({("_Z1kv", "80"): 9}, [])
    assert len(read_log(log.format(4))[1]) == 1
    assert len(read_log("x.cu(3): warning #177-D: unused\n")[1]) == 1
    assert list(check_archs({("_Z1kv", "80"): 9}, ["80", "90"]))
    name = "_Z12k_bn_forwardI6__halfEvPKT_"
    good = "ld.global.v4.u32 {}, [];\nst.global.v4.b32 [], {};\n"
    assert list(check_width(name, good)) == []
    assert len(list(check_width(name, good.replace("ld.global.v4", "ld.global.v2")))) == 1
    assert len(list(check_width(name, good.replace("st.global.v4", "st.global.v2")))) == 1
    assert len(list(check_width(name, good + "ld.global.u16 %rs1, [];"))) == 1


def ptx_of(nvcc, root, source, arch):
    command = [nvcc, "-std=c++17", "-O3", "-fmad=false", f"-I{root}", f"-arch=compute_{arch}", "--ptx", "-o", "-"]
    return subprocess.run([*command, source], capture_output=True, text=True, check=True).stdout


def main(nvcc, root, planted, archs, logs):
    self_test()
    found, wrong = {}, []
    for log in logs:
        more, bad = read_log(pathlib.Path(log).read_text())
        found.update(more)
        wrong += bad
    wrong += check_archs(found, archs)
    kernels = sorted({name for name, _ in found})
    twins = subprocess.run([planted, "names"], input="\n".join(kernels), capture_output=True, text=True)
    if twins.returncode != 0:
        wrong.append(twins.stdout)
    checked = set()
    for source in sorted(pathlib.Path(root, "kernels/cuda").glob("*.cu")):
        for kernel, body in entries(ptx_of(nvcc, root, source, archs[0])):
            wrong += check_width(kernel, body)
            checked |= {name for name in TENSORS if f"{len(name.split('I')[0])}{name}" in kernel}
    wrong += [f"no kernel {name} in the PTX" for name in TENSORS if name not in checked]
    for arch in archs:
        most = max((used, name) for (name, of), used in found.items() if of == arch)
        print(f"sm_{arch}: {len(kernels)} kernels, at most {most[0]} registers ({most[1]})")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(","), sys.argv[5:]))
