"""CUDA programs on the stand-ins for CUDA's runtime, cuDNN and NCCL, for machines without a GPU.
"""
import os

import pytest
import support

FOLDER = support.BUILD / "tests" / "emu" / "standin"


def built_with_cuda():
    return (support.BUILD / "worker" / "libapd_comm_nccl.a").exists()


needs_all = pytest.mark.skipif(not (built_with_cuda() and (FOLDER / "libcudnn.so.9").exists()),
                               reason="built without CUDA (nvcc, cuDNN, NCCL)")


def environment(**settings):
    """Of a program that runs on the stand-ins; settings: DRIVER="old" for STANDIN_DRIVER=old."""
    return dict(os.environ, LD_LIBRARY_PATH=str(FOLDER),
                **{"STANDIN_" + name: str(value) for name, value in settings.items()})
