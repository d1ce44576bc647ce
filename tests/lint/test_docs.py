"""Pages that follow from the programs: the reference of run.yaml, the man pages, links between pages.

Usage: test_docs.py SOURCE_ROOT ADVPROP
"""

import pathlib
import re
import subprocess
import sys


def output(advprop, *arguments):
    return subprocess.run([advprop, *arguments], capture_output=True, text=True, check=True).stdout


def reference(root, advprop):
    if (root / "docs/run-yaml.md").read_text() != output(advprop, "config", "explain", "--markdown"):
        yield "docs/run-yaml.md differs from: advprop config explain --markdown"


def subcommands(advprop, *prefix):
    """Names in the table that --help prints."""
    text = output(advprop, *prefix, "--help")
    return re.findall(r"^  ([a-z]+) {2,}\S", text, re.M)


def long_options(advprop, *command):
    text = output(advprop, *command, "--help")
    return set(re.findall(r"^ +(?:-\S, )?--([a-z-]+)", text, re.M)) - {"help", "usage", "version"}


def commands(advprop):
    for name in subcommands(advprop):
        inner = subcommands(advprop, name) if name in ("ckpt", "config", "data") else []
        yield from ((name, word) for word in inner)
        if not inner:
            yield (name,)


def man_page(root, advprop):
    page = (root / "docs/man/advprop.1").read_text().replace("\\-", "-")
    for command in commands(advprop):
        section = re.search(rf"^\.SS {' '.join(command)}\n(.*?)(?=^\.S[SH] )", page, re.M | re.S)
        if not section:
            yield f"docs/man/advprop.1: no section .SS {' '.join(command)}"
            continue
        for option in sorted(long_options(advprop, *command)):
            if f"--{option}" not in section.group(1):
                yield f"docs/man/advprop.1: {' '.join(command)}: --{option} is not explained"
    for code in (0, 64, 65, 69, 70, 75, 78):
        if not re.search(rf"^\.B {code}$", page, re.M):
            yield f"docs/man/advprop.1: exit status {code} is not explained"


def other_man_pages(root):
    for name in ("advpropd.8", "advprop-worker.8"):
        if not (root / "docs/man" / name).is_file():
            yield f"docs/man/{name} is missing"


def links(root):
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        if not page.exists():
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                yield f"{page.relative_to(root)}: link to {target}, which is not there"


def main(root, advprop):
    assert len(list(commands(advprop))) >= 12
    problems = [*reference(root, advprop), *man_page(root, advprop), *other_man_pages(root), *links(root)]
    print("\n".join(problems) if problems else "pages agree with the programs")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
