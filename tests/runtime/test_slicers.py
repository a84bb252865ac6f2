"""Cutting and joining: FastEstimator's windows, round trips of volumes, and what is put together of other shapes."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.datasets.rows import NumpyDataset
from dataloaders.datasets.sliced import SlicedDataset
from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError
from runtime.slicers import AxisSlicer, MeanUnslicer, SlidingSlicer

CASES = json.loads(Path(__file__).with_name("fixtures_slicers.json").read_text())["cases"]
LIBRARIES = [np.array, mx.array]


def volume(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("array", LIBRARIES)
@pytest.mark.parametrize("case", CASES)
def test_windows_are_fastestimators(case, array):
    slicer = SlidingSlicer(slice="x", **case["options"])
    parts = slicer.cut(array(np.arange(70, dtype=np.float32).reshape(2, 7, 5)))
    assert [list(part.shape) for part in parts] == case["shapes"]
    assert [part.sum().item() for part in parts] == case["sums"]
    np.testing.assert_allclose(np.array(slicer.join([2 * part + 1 for part in parts], (2, 7, 5))), case["whole"], 1e-6)


@pytest.mark.parametrize("array", LIBRARIES)
@pytest.mark.parametrize("slicer", [
    AxisSlicer(1, "x"), AxisSlicer(-2, "x"), SlidingSlicer([-1, 2, 3, 2, -1], pad_mode="constant", slice="x"),
    SlidingSlicer([1, 4, 4, 4, 1], [1, 1, 3, 2, 1], "mirror", slice="x", squeeze_window=True),
    SlidingSlicer([-1, 4, 4, 4, -1], 3, "nopad", slice="x"),
    SlidingSlicer([-1, 2, 4, 5, -1], pad_mode="partial", slice="x"),
])  # fmt: skip
def test_a_volume_comes_back_from_its_slices(slicer, array):
    given = volume(2, 5, 7, 6, 3)
    parts = slicer.cut(array(given))
    np.testing.assert_allclose(np.array(slicer.join(parts, given.shape)), given, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(draw=st.data(), pad_mode=st.sampled_from(["constant", "partial", "nopad", "mirror"]), squeeze=st.booleans())
def test_windows_that_leave_no_gap_give_the_whole_back(draw, pad_mode, squeeze):
    shape = tuple(draw.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    window = [draw.draw(st.just(-1) | st.integers(1, size)) for size in shape]
    slicer = SlidingSlicer(
        window,
        [draw.draw(st.integers(1, max(size, 1))) for size in window],
        pad_mode,
        slice="x",
        squeeze_window=squeeze,
    )
    given_array = volume(*shape)
    try:
        parts = slicer.cut(given_array)
    except UsageError as error:
        assert pad_mode == "mirror" and "can't be mirrored" in str(error)
        return
    np.testing.assert_allclose(slicer.join(parts, shape), given_array, rtol=1e-6)


def test_slices_are_what_they_are_called():
    given = volume(2, 4, 3)
    np.testing.assert_array_equal(AxisSlicer(1, "x").cut(given)[2], given[:, 2])
    (plane, *_), mirror = AxisSlicer(-1, "x").cut(given), SlidingSlicer([-1, 3, -1], 2, "mirror", slice="x").cut(given)
    assert plane.shape == (2, 4)
    np.testing.assert_array_equal(mirror[1], given[:, [2, 3, 2]])
    np.testing.assert_allclose(MeanUnslicer("y").join([given, 3 * given]), 2 * given)


def test_what_is_put_together_may_have_other_channels_or_none():
    slicer = SlidingSlicer([-1, 2, 2, -1], slice="x", unslice=["y", "z"])
    given = volume(3, 4, 6, 5)
    parts = slicer.cut(given)
    assert slicer.join([part[..., :1] for part in parts], given.shape).shape == (3, 4, 6, 1)
    np.testing.assert_array_equal(slicer.join([part[..., 0] for part in parts], given.shape), given[..., 0])
    alone = SlidingSlicer([-1, 2, 2, -1], unslice="z", unslice_shape=(-1, 4, 6, 5))
    np.testing.assert_array_equal(alone.join(parts), given)


def test_gradients_go_through_cutting_and_joining():
    slicer, given = SlidingSlicer([-1, 3], 2, slice="x"), mx.array(volume(2, 5))

    def loss(x):
        return (slicer.join([part**2 for part in slicer.cut(x)], x.shape) * mx.arange(5)).sum()

    np.testing.assert_allclose(mx.compile(mx.grad(loss))(given), 2 * given * mx.arange(5), rtol=1e-6)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: AxisSlicer(1), "needs a key"),
    (lambda: AxisSlicer(3, "x").cut(np.zeros((2, 2))), r"no axis 3 in an array of shape \(2, 2\)"),
    (lambda: SlidingSlicer([0, 2], slice="x"), "windows of at least 1"),
    (lambda: SlidingSlicer([2, 2], [1, 0], slice="x"), "a stride from 1"),
    (lambda: SlidingSlicer([2, 2], [1], slice="x"), "a stride from 1"),
    (lambda: SlidingSlicer([2], pad_mode="full", slice="x"), "pad_mode must be one of drop"),
    (lambda: SlidingSlicer([2], unslice="x"), "needs unslice_shape"),
    (lambda: SlidingSlicer([3], slice="x").cut(np.zeros(2)), "no window of"),
    (lambda: SlidingSlicer([3], slice="x").cut(np.zeros((2, 2))), "windows of 1 axes"),
    (lambda: SlidingSlicer([3], pad_mode="nopad", slice="x").cut(np.zeros(2)), "does not fit into 2 places"),
    (lambda: SlidingSlicer([5], pad_mode="mirror", slice="x").cut(np.zeros(2)), "can't be mirrored"),
    (lambda: SlidingSlicer([2], slice="x").join([np.zeros(2)], (4,)), "got 1 slices"),
    (lambda: MeanUnslicer("x").cut(np.zeros(2)), "puts slices together only"),
])  # fmt: skip
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_every_slice_is_a_sample_of_a_data_set():
    given, names = volume(3, 4, 6, 5), np.arange(3)
    windows = SlidingSlicer([-1, 4, 3], 2, "constant", slice=["x"])
    data = SlicedDataset(NumpyDataset({"x": given, "id": names}), windows)
    assert (data.slices, len(data)) == (4, 12)
    np.testing.assert_array_equal(data[5]["x"], np.pad(given[1], ((0, 0), (0, 0), (0, 2)))[:, :4, 2:5])
    batches = list(Pipeline(eval_data=data, batch_size=6).batches("eval"))
    assert [batch["id"].tolist() for batch in batches] == [[0, 0, 0, 0, 1, 1], [1, 1, 2, 2, 2, 2]]
    wholes = data.joined("x", np.concatenate([batch["x"] for batch in batches]) + 1)
    np.testing.assert_allclose(wholes, given + 1, rtol=1e-6)
    with pytest.raises(UsageError, match="12 values, got 'x' and 3"):
        data.joined("x", given)
    ragged = NumpyDataset({"x": [np.zeros(3), np.zeros(4)]})
    with pytest.raises(UsageError, match="sample 1 has 4 slices; needed: 3"):
        SlicedDataset(ragged, AxisSlicer(0, "x"))[3]
    with pytest.raises(UsageError, match="equally many slices"):
        SlicedDataset(NumpyDataset({"x": given, "y": given[:, :2]}), AxisSlicer(0, ["x", "y"]))
