"""The rules that sources follow whatever they do: include arrows, vendor headers, headers that stand alone.

Usage: test_sources.py SOURCE_ROOT BUILD_ROOT CC
"""

import pathlib
import re
import subprocess
import sys

FOLDERS = ("base", "proto", "kernels", "worker", "daemon", "cli")
# Which folders' headers a folder may include (besides its own).
ARROWS = {
    "base": set(),
    "proto": {"base"},
    "kernels": {"base"},
    "worker": {"base", "proto", "kernels"},
    "daemon": {"base", "proto"},
    "cli": {"base", "proto"},
}
# Vendor header -> the only places that may include it: folders end with "/", the rest are files.
VENDORS = {
    r"uv\.h": ("daemon/", "cli/", "worker/link"),
    r"mpi\.h": ("daemon/main.c", "worker/main.c", "worker/wireup", "worker/comm_mpi"),
    r"(oneapi/dnnl/.*|dnnl.*)\.h": ("kernels/cpu/",),
    r"(cuda.*|cudnn.*|nvtx3/.*)\.h": ("kernels/cuda/", "worker/comm_nccl"),
    r"nccl\.h": ("worker/comm_nccl",),
    r"j(peglib|error)\.h": ("worker/data/codec_jpeg.c", "worker/data/corrupt/jpeg.c"),
    r"spng\.h": ("worker/data/codec_png.c", "worker/data/png_write.c"),
    r"webp/.*\.h": ("worker/data/codec_webp.c", "worker/data/probe.c"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def sources(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".cu"):
                yield folder, path.relative_to(root), path.read_text()


def wrong_arrows(files):
    for folder, path, text in files:
        for kind, header in INCLUDE.findall(text):
            target = header.split("/")[0]
            if kind == '"' and "/" not in header and not header.endswith(".inc"):
                yield f"{path}: \"{header}\": write the path from the root of the sources"
            if target in ARROWS and target != folder and target not in ARROWS[folder]:
                yield f"{path}: {folder}/ must not include {header}"


def wrong_vendors(files):
    for _, path, text in files:
        for _, header in INCLUDE.findall(text):
            for pattern, places in VENDORS.items():
                if re.fullmatch(pattern, header) and not str(path).startswith(places):
                    yield f"{path}: {header} belongs to {', '.join(places)}"


def missing_guards(files):
    for _, path, text in files:
        if path.suffix == ".h":
            if not re.search(r"^#ifndef (APD_\w+)\n#define \1\n", text, re.M):
                yield f"{path}: no include guard APD_..."


def dependent_headers(root, build, cc, files):
    packages = ["libprotobuf-c", "jansson", "libuv", "ompi-c", "yaml-0.1"]
    flags = subprocess.run(["pkg-config", "--cflags", *packages], capture_output=True, text=True, check=True)
    headers = [path for _, path, _ in files if path.suffix == ".h"]
    for path in headers:
        command = [cc, "-std=gnu11", "-D_POSIX_C_SOURCE=200809L", "-D_DEFAULT_SOURCE", "-fsyntax-only", "-w"]
        command += [f"-I{root}", f"-I{build}", *flags.stdout.split(), "-x", "c", str(root / path)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            yield f"{path}: does not compile alone: {result.stderr.splitlines()[0]}"


def self_test():
    """Each rule must be able to fail."""
    bad = [
        ("base", pathlib.PurePath("base/a.c"), '#include "proto/plan.h"\n#include <uv.h>\n#include "a.h"\n'),
        ("daemon", pathlib.PurePath("daemon/b.h"), '#include "worker/step.h"\n'),
        ("kernels", pathlib.PurePath("kernels/cpu/c.c"), "#include <mpi.h>\n#include <dnnl.h>\n"),
    ]
    assert len(list(wrong_arrows(bad))) == 3
    assert len(list(wrong_vendors(bad))) == 2
    assert len(list(missing_guards(bad))) == 1


def main(root, build, cc):
    self_test()
    files = list(sources(root))
    assert len(files) > 50, f"only {len(files)} sources below {root}"
    problems = [*wrong_arrows(files), *wrong_vendors(files), *missing_guards(files)]
    problems += dependent_headers(root, build, cc, files)
    print("\n".join(problems) if problems else f"{len(files)} sources follow the rules")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]))
