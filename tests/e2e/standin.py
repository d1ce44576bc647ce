"""CUDA programs on the stand-ins for CUDA's runtime, cuDNN and NCCL, for machines without a GPU.

APD_STANDINS names folders, separated by colons, with the stand-ins that the build does not make itself.
"""
import os

import pytest
import support

FOLDERS = [support.BUILD / "tests" / "emu" / "standin"]


def folders():
    return [str(f) for f in FOLDERS] + [f for f in os.environ.get("APD_STANDINS", "").split(":") if f]


def _has(name):
    return any(os.path.exists(os.path.join(folder, name)) for folder in folders())


def built_with_cuda():
    return (support.BUILD / "worker" / "libapd_comm_nccl.a").exists()


needs_runtime = pytest.mark.skipif(not (built_with_cuda() and _has("libcudart.so.13")),
                                   reason="no CUDA build, or no stand-in for its runtime")
needs_all = pytest.mark.skipif(not (built_with_cuda() and _has("libcudart.so.13") and _has("libcudnn.so.9")),
                               reason="no CUDA build, or no stand-ins for its runtime and cuDNN")


def environment(**settings):
    """Of a program that runs on the stand-ins; settings: DRIVER="old" for STANDIN_DRIVER=old."""
    return dict(os.environ, LD_LIBRARY_PATH=":".join(folders()),
                **{"STANDIN_" + name: str(value) for name, value in settings.items()})
