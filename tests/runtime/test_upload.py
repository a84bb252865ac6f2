"""Padded host arrays are the arrays themselves, and are padded on a CUDA GPU only."""

import mlx.core as mx
import numpy as np
import pytest

from runtime import upload
from runtime.upload import uploaded

ROWS = np.arange(24).reshape(2, 3, 4)


@pytest.fixture
def gpu(monkeypatch):
    """MLX as if on a GPU; the sizes of the arrays it is given."""
    made, array = [], mx.array
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "array", lambda value: made.append(value.nbytes) or array(value))
    return made


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("value", [ROWS, ROWS.T, ROWS[:, ::2], ROWS[0, 0], ROWS[:0], np.array(3)])
def test_values_shapes_and_types_are_those_of_mx_array(value, kind, gpu):
    value = value.astype(kind)
    found, wanted = uploaded(value), mx.array(value)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_array_equal(np.array(found), np.array(wanted))


def test_a_buffer_is_out_of_the_reach_of_a_result_of_that_size(gpu):
    uploaded(ROWS.astype(np.float32))
    uploaded(np.zeros(2, np.float32))  # a number or two: MLX's pool of such
    assert gpu == [96 + upload.SPARE, 8] and upload.SPARE > 2 * 16384


def test_elsewhere_nothing_is_padded(monkeypatch):
    made, array = [], mx.array
    monkeypatch.setattr(mx, "array", lambda value: made.append(value.nbytes) or array(value))
    uploaded(ROWS.astype(np.float32))
    assert made == [96]
