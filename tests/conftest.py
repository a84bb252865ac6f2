"""Loads the fast BLAS before anything imports MLX, and keeps the tests' dashboard rows to themselves."""

import gc
import os
import tempfile

import pytest

os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp(prefix="trackio_"))  # read when trackio is imported

import runtime.blas  # noqa: E402, F401


@pytest.fixture
def still_memory():
    """For tests that measure memory: no garbage of earlier tests is freed meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
