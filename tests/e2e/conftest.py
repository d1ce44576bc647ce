"""Fixtures of the end-to-end tests: a small data set, a folder for runs, the command, runs that always end.

APD_BUILD names the build directory; tests/run sets it.
"""

import subprocess

import pytest
import support

# A network and a batch that train in milliseconds: 10 steps an epoch.
TINY = """\
seed: 3
device: cpu
model: {arch: resnet18, width: 4, stem: small}
data: {path: "%s", window: 64, crop_padding_px: 1}
train: {epochs: 2, batch: 100, lanes: 4}
optim: {lr: 0.02}
schedule: {kind: cosine}
eval: {batch: 50, attack_steps: 2, attack_images: 20}
cpu: {threads: 1}
"""


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A folder with 1,000 training and 200 test images."""
    return support.make_data(tmp_path_factory.mktemp("tiny data"), train=1000, test=200)


@pytest.fixture
def workdir(tmp_path):
    """A folder of the test's own, with a space in its path."""
    folder = tmp_path / "work dir"
    folder.mkdir()
    return folder


@pytest.fixture
def tiny_yaml(workdir, tiny_data):
    path = workdir / "run.yaml"
    path.write_text(TINY % tiny_data)
    return path


@pytest.fixture
def advprop():
    """advprop(*arguments, code=0, **options): runs the command and checks its exit status."""

    def run(*arguments, code=0, **options):
        return support.run(*arguments, check=code, stdin=subprocess.DEVNULL, **options)

    return run


@pytest.fixture
def start():
    """start(*arguments, **options): starts `advprop` in the background; killed at the end if still there."""
    started = []

    def run(*arguments, **options):
        process = subprocess.Popen([support.ADVPROP, *map(str, arguments)], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, **options)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
