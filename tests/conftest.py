"""Loads the fast BLAS before anything imports MLX, and keeps the tests' dashboard rows to themselves."""

import ctypes
import gc
import os
import tempfile

import pytest

os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp(prefix="trackio_"))  # read when trackio is imported

import runtime.blas  # noqa: E402, F401

# a test that changes PATH puts back this one, with MLX's compiler, not the one before runtime.blas
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
os.environ["PATH"] = getenv(b"PATH").decode()


@pytest.fixture
def still_memory():
    """For tests that measure memory: no garbage of earlier tests is freed meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
