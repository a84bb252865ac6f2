"""Loads the fast BLAS before anything imports MLX, and keeps the tests' dashboard rows to themselves."""

import os
import tempfile

os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp(prefix="trackio_"))  # read when trackio is imported

import runtime.blas  # noqa: E402, F401
