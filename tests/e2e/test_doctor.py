"""advprop doctor: facts, sentences and exit status, with GPUs that are stand-ins, and without."""

import json
import os
import re
import resource
import shutil
import subprocess

import pytest
import standin
import support

CPU = "training will run on the CPU"


def doctor(advprop, code=0, **settings):
    return advprop("doctor", code=code, env=standin.environment(**settings)).stdout


def test_host_without_help_of_stand_ins(advprop):
    """The genuine libraries, or a build without CUDA; whether there is a GPU is the host's affair."""
    result = advprop("doctor", "--json", code=None)
    facts = json.loads(result.stdout)
    assert facts["cuda"]["built"] == standin.built_with_cuda()
    assert result.returncode == (69 if facts["device"] == "none" else 0)
    assert facts["mpi"].startswith("Open MPI v") and facts["cpu"]["threads"] == len(os.sched_getaffinity(0))
    if not facts["gpus"]:
        assert facts["device"] == "cpu" and facts["conclusion"] == CPU
        assert re.search("without CUDA|no NVIDIA driver|driver is too old|no GPU is visible", facts["problems"][0])


@standin.needs_all
@pytest.mark.parametrize("driver, sentence", [
    ("missing", "no NVIDIA driver is installed"),
    ("old", "the NVIDIA driver is too old: it is made for CUDA 12.4, needed is 13.0"),
    ("none", "no GPU is visible: none is installed or CUDA_VISIBLE_DEVICES hides it"),
])
def test_no_usable_driver_leaves_the_cpu(advprop, driver, sentence):
    lines = doctor(advprop, DRIVER=driver).splitlines()
    assert lines[-2:] == [sentence, CPU]


@standin.needs_all
def test_gpu_of_an_architecture_left_out_cannot_train(advprop):
    text = doctor(advprop, code=69, CAPABILITY="7.0")
    assert re.search(r"^GPU 0, .*, cannot be used: its compute capability is 7.0, this build has code for [\d., ]+ and later$",
                     text, re.M)
    assert text.endswith("training with device: auto cannot run here; device: cpu can\n")


@standin.needs_all
def test_cudnn_that_is_too_old_cannot_train(advprop):
    text = doctor(advprop, code=69, CUDNN_VERSION=90701)
    assert "\ncuDNN 9.7.1 was found where 9.8 or a newer 9 is needed\n" in text


@standin.needs_all
def test_gpu_with_little_free_memory_is_told(advprop):
    assert "\nGPU 0 has only 190 of 190 MiB of memory free\n" in doctor(advprop, MEMORY=200_000_000)


@standin.needs_all
def test_two_gpus_and_how_they_reach_each_other(advprop):
    text = doctor(advprop, DEVICES=2)
    assert "  GPU 1          NVIDIA H100" in text and "compute capability 9.0, 79.6 of 79.6 GiB free" in text
    assert "peer access    0: - yes\n                 1: yes -\n" in text
    assert text.endswith("training will run on the GPUs, one worker each\n")
    facts = json.loads(advprop("doctor", "--json", env=standin.environment(DEVICES=2)).stdout)
    assert [gpu["peers"] for gpu in facts["gpus"]] == [[1], [0]]
    assert facts["device"] == "cuda" and all(gpu["usable"] for gpu in facts["gpus"])


@standin.needs_all
def test_small_limit_of_locked_memory_is_told_where_it_matters(advprop):
    """Of this process, which the command inherits: two GPUs talk through NCCL, one needs nobody."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, before[1]))
    try:
        assert "only 1024 KiB of memory may be locked" in doctor(advprop, DEVICES=2)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


@standin.needs_all
def test_selftest_compares_the_gpu_with_the_cpu(advprop):
    result = advprop("doctor", "--json", "--selftest", env=standin.environment())
    tests = json.loads(result.stdout)["selftest"]
    assert [(test["name"], test["pass"]) for test in tests] == [("fp32", True), ("fp16", True)]


@standin.needs_all
def test_selftest_that_fails_is_69(advprop):
    """A fault in the middle: the stand-in's operation 300 ends with an illegal address."""
    result = advprop("doctor", "--selftest", code=69, env=standin.environment(FAULT=300))
    assert re.search(r"^  fp32 +FAIL: ", result.stdout, re.M)
    assert "\nthe self test in fp32 failed: " in result.stdout


def test_selftest_without_a_gpu_is_left_out(advprop):
    facts = json.loads(advprop("doctor", "--json", code=None).stdout)
    if facts["gpus"]:
        pytest.skip("there is a GPU")
    assert "the self test was left out: it needs a GPU" in advprop("doctor", "--selftest").stdout


def test_worker_program_that_does_not_start_is_69(advprop, tmp_path):
    """Like one whose libraries are missing."""
    copy = tmp_path / "bin"
    copy.mkdir()
    shutil.copy(support.ADVPROP, copy / "advprop")
    worker = copy / "advprop-worker"
    worker.write_text("#!/bin/sh\necho 'error while loading shared libraries: libcudnn.so.9' >&2\nexit 127\n")
    worker.chmod(0o755)
    result = subprocess.run([copy / "advprop", "doctor"], capture_output=True, text=True)
    assert result.returncode == 69
    assert "libcudnn.so.9" in result.stderr and "a library it was built with is missing" in result.stderr


@standin.needs_all
@pytest.mark.parametrize("workers, settings, sentence", [
    (1, {"DRIVER": "missing"}, "no NVIDIA driver is installed"),
    (1, {"DRIVER": "old"}, "the NVIDIA driver is too old"),
    (1, {"DRIVER": "none"}, "no GPU is visible"),
    (1, {"CAPABILITY": "7.0"}, "has compute capability 7.0; this build has code for"),
    (2, {"DEVICES": 1}, "two workers have the same GPU"),
    (3, {"DEVICES": 2}, "worker 2 of this host has no GPU: 2 visible"),
    (1, {"CUDNN_VERSION": 90701}, "cuDNN 9.7.1 was found where 9.8 or a newer 9 is needed"),
    (1, {"MEMORY": 2_000_000}, "GPU memory does not suffice"),
])
def test_training_that_cannot_have_its_gpu_starts_once_and_says_why(advprop, tiny_yaml, tmp_path, workers,
                                                                   settings, sentence):
    run = tmp_path / "run"
    result = advprop("train", tiny_yaml, "device=cuda", "--workers", workers, "--run", run, code=69,
                     env=standin.environment(**settings))
    assert sentence in result.stderr and "starting again" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert (run / "generation").read_text().strip() == "1"
