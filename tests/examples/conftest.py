"""Examples are tested uncompiled: kernels of a dozen networks would take minutes to compile for a few steps each."""

import mlx.core as mx
import pytest


@pytest.fixture(autouse=True)
def uncompiled():
    """Switches mx.compile off for a test."""
    mx.disable_compile()
    yield
    mx.enable_compile()
