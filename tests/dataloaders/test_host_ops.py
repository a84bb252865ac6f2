"""Pipelines of map-style data sets and NumpyOps: order, filters, padding, several data sets, worker processes."""

import gc
import os
import signal
import time
from itertools import islice

import numpy as np
import pytest

from dataloaders.ops.numpy_op import Batch, Delete, DynamicBatch, FilteredData, NumpyOp, RemoveIf
from dataloaders.pipeline import Pipeline
from dataloaders.source import ImageSource
from runtime.errors import UsageError


class Rows:
    """Row i is {"x": i, ...}; `ragged` gives row i % 3 + 1 values."""

    def __init__(self, count, offset=0, ragged=False):
        self.count, self.offset, self.ragged = count, offset, ragged

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        x = np.full(i % 3 + 1 if self.ragged else 1, i + self.offset, np.float32)
        return {"x": x, "y": i % 2, "name": f"row{i}"}


class Shift(NumpyOp):
    def forward(self, data, state):
        return data + 100


class Noise(NumpyOp):
    def forward(self, data, state):
        return data + state["rng"].standard_normal(data.shape)


class Seen(NumpyOp):
    """Notes the state and shape that it is given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def forward(self, data, state):
        self.seen.append((state["mode"], state["epoch"], state["ds_id"], np.shape(data)))
        return data


class Die(NumpyOp):
    def forward(self, data, state):
        os.kill(os.getpid(), signal.SIGKILL)


class Fail(NumpyOp):
    def forward(self, data, state):
        raise UsageError("row refused")


def odd(y):
    return y == 1


def first(pipeline, count, start=0, mode="train", ds_id=None):
    iterator = pipeline.batches(mode, start, ds_id)
    batches = list(islice(iterator, count))
    iterator.close()
    return batches


def assert_same(a, b):
    assert len(a) == len(b)
    for p, q in zip(a, b, strict=True):
        assert p.keys() == q.keys()
        for key in p:
            assert p[key].dtype == q[key].dtype
            np.testing.assert_array_equal(p[key], q[key])


def test_samples_go_through_the_ops_of_their_mode_and_are_stacked():
    ops = [Shift("x", "x", mode="!eval"), Delete("y", mode="eval")]
    pipeline = Pipeline(Rows(6), Rows(5), batch_size={"train": 3, "eval": 4}, ops=ops)
    train = np.sort(np.concatenate([b["x"] for b in first(pipeline, 2)]).ravel())
    np.testing.assert_array_equal(train, np.arange(6) + 100)
    full, short = first(pipeline, 9, mode="eval")
    assert full.keys() == {"x", "name", "mask"} and full["x"].shape == (4, 1)
    np.testing.assert_array_equal(short["x"].ravel(), [4, 4, 4, 4])
    np.testing.assert_array_equal(short["mask"], [1, 0, 0, 0])
    assert list(full["name"]) == ["row0", "row1", "row2", "row3"]
    assert "mask" not in first(pipeline, 1)[0] and pipeline.steps_per_epoch == 2
    assert pipeline.get_modes() == {"train", "eval"} and pipeline.get_ds_ids("train") == [""]


def test_batch_divides_sample_ops_from_batch_ops():
    one, many = Seen("x", "x"), Seen("x", "x")
    pipeline = Pipeline(Rows(4), ops=[one, Batch(batch_size=2, mode="train"), many], prefetch=0)
    first(pipeline, 3)
    assert {shape for *_, shape in one.seen} == {(1,)} and len(one.seen) == 6
    assert [epoch for _, epoch, *_ in many.seen] == [0, 0, 1]
    assert {shape for *_, shape in many.seen} == {(2, 1)}


def test_a_plain_batch_op_comes_after_batching_in_training_only():
    def double(batch, rng):
        assert batch["x"].shape == (2, 1)
        return {**batch, "x": batch["x"] * 2}

    pipeline = Pipeline(Rows(4), Rows(4), batch_size=2, ops=[Shift("x", "x"), double])
    total = np.concatenate([b["x"] for b in first(pipeline, 2)])
    assert total.sum() == 2 * (400 + 6)
    assert sum(b["x"].sum() for b in first(pipeline, 2, mode="eval")) == 406


@pytest.mark.parametrize("prefetch", [0, 2])
def test_any_start_equals_the_tail(prefetch):
    pipeline = Pipeline(Rows(7), batch_size=2, seed=3, ops=[Noise("x", "x")], prefetch=prefetch)
    whole = first(pipeline, 12)
    assert_same(first(pipeline, 7, 5), whole[5:])
    other = first(Pipeline(Rows(7), batch_size=2, seed=4, ops=[Noise("x", "x")]), 12)
    assert any(not np.array_equal(a["x"], b["x"]) for a, b in zip(whole, other, strict=True))


def test_a_source_can_have_sample_ops():
    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    plain = first(Pipeline(ImageSource(pixels), batch_size=2, seed=1), 2)
    shifted = first(Pipeline(ImageSource(pixels), batch_size=2, seed=1, ops=[Shift("x", "x")]), 2)
    for a, b in zip(plain, shifted, strict=True):
        np.testing.assert_array_equal(a["x"] + np.float32(100), b["x"])


def test_removed_rows_are_redrawn_or_masked():
    redrawn = first(Pipeline(Rows(10), batch_size=5, ops=[RemoveIf(odd, "y")]), 4)
    assert all((b["y"] == 0).all() and b["x"].shape == (5, 1) and "mask" not in b for b in redrawn)
    assert_same(redrawn[2:], first(Pipeline(Rows(10), batch_size=5, ops=[RemoveIf(odd, "y")]), 2, 2))
    masked = Pipeline(Rows(10), Rows(7), batch_size=5, ops=[RemoveIf(odd, "y", replacement=False)])
    batches = first(masked, 2)
    assert sum(b["mask"].sum() for b in batches) == 5 and all((b["y"] == 0).all() for b in batches)
    evaluated = np.concatenate([b["x"].ravel()[b["mask"] == 1] for b in first(masked, 9, mode="eval")])
    np.testing.assert_array_equal(evaluated, [0, 2, 4, 6])
    with pytest.raises(UsageError, match="1000 samples in a row"):
        first(Pipeline(Rows(4), batch_size=2, ops=[RemoveIf(lambda y: True, "y")]), 1)


def test_ragged_samples_are_padded_or_refused():
    with pytest.raises(UsageError, match=r"'x' has samples of different shapes \(\(1,\), \(2,\), \(3,\)\)"):
        first(Pipeline(Rows(6, ragged=True), batch_size=6), 1)
    (batch,) = first(Pipeline(eval_data=Rows(3, ragged=True), ops=[DynamicBatch(3, pad_value=-1)]), 2, mode="eval")
    np.testing.assert_array_equal(batch["x"], [[0, -1, -1], [1, 1, -1], [2, 2, 2]])


def test_several_data_sets_follow_each_other_with_their_own_ops_and_numbers():
    data = {"a": Rows(5), "b": Rows(4, offset=50)}
    ops = [Shift("x", "x", ds_id="b"), Noise("x", "z"), Batch(batch_size=4, ds_id="b")]
    pipeline = Pipeline(data, data, batch_size=2, ops=ops)
    assert pipeline.steps_per_epoch == 3 and pipeline.get_ds_ids("train") == ["a", "b"]
    whole = first(pipeline, 9)
    assert [pipeline.ds_id_at("train", i) for i in range(6)] == ["a", "a", "b"] * 2
    assert [len(b["x"]) for b in whole] == [2, 2, 4] * 3
    assert all(set(whole[i]["x"].ravel()) == {150, 151, 152, 153} for i in (2, 5, 8))
    assert_same(first(pipeline, 5, 4), whole[4:])
    assert_same(first(pipeline, 3, ds_id="b"), whole[2::3])
    assert [b["mask"].sum() for b in first(pipeline, 9, mode="eval")] == [2, 2, 1, 4]
    with pytest.raises(UsageError, match="has no data set 'c'; it has 'a', 'b'"):
        pipeline.batches("eval", ds_id="c")


@pytest.mark.parametrize("start", [0, 3])
def test_worker_processes_give_the_same_batches(start):
    options = {"batch_size": 2, "seed": 5, "ops": [Noise("x", "x"), RemoveIf(odd, "y", replacement=True)]}
    alone = Pipeline(Rows(7), Rows(5), **options)
    pipeline = Pipeline(Rows(7), Rows(5), num_process=2, **options)
    assert_same(first(pipeline, 8, start), first(alone, 8, start))
    assert_same(first(pipeline, 9, mode="eval"), first(alone, 9, mode="eval"))
    workers = list(pipeline._processes().pool._processes.values())
    assert len(workers) >= 1 and all(worker.is_alive() for worker in workers)
    pipeline.close()
    assert not any(worker.is_alive() for worker in workers)


def test_workers_end_with_their_pipeline_and_after_a_failure():
    pipeline = Pipeline(Rows(4), batch_size=2, num_process=1, ops=[Fail("x", "x")])
    with pytest.raises(UsageError, match="row refused"):
        first(pipeline, 1)
    (worker,) = pipeline._processes().pool._processes.values()
    del pipeline
    gc.collect()  # the failure's traceback held it
    until = time.time() + 5
    while worker.is_alive() and time.time() < until:
        time.sleep(0.01)
    assert not worker.is_alive()
    with pytest.raises(UsageError, match="a worker process ended before its batch was made"):
        first(Pipeline(Rows(4), batch_size=2, num_process=1, ops=[Die("x", "x")]), 1)


def test_what_can_not_be_pickled_is_told():
    with pytest.raises(UsageError, match="num_process=2 sends data sets and ops to other processes, which failed"):
        first(Pipeline(Rows(4), batch_size=2, num_process=2, ops=[RemoveIf(lambda y: False, "y")]), 1)


def test_transform_get_results_and_benchmark():
    ops = [Shift("x", "x", mode="infer"), Delete("y", mode="infer"), Batch(), Shift("x", "z")]
    pipeline = Pipeline(Rows(4), batch_size=2, ops=ops)
    out = pipeline.transform({"x": np.ones(1), "y": 3})
    assert out.keys() == {"x", "z"} and out["x"].tolist() == [[101]] and out["z"].tolist() == [[201]]
    assert out["x"].dtype == np.float32
    assert pipeline.transform({"x": np.ones(1), "y": 3}, mode="train")["x"].tolist() == [[1]]
    assert_same([pipeline.get_results()], first(pipeline, 1))
    assert_same(pipeline.get_results(num_steps=3), first(pipeline, 3))
    assert pipeline.benchmark(num_steps=5) > 0


class Halve(NumpyOp):
    def forward(self, data, state):
        return data[:1]


class Drop(NumpyOp):
    def forward(self, data, state):
        return FilteredData(replacement=False) if data[0] == 0 else data


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (Rows(3), {"batch_size": 4}, "batch_size=4 exceeds the 3 training samples"),
        (Rows(3), {}, "batch_size must be at least 1, got None"),
        (Rows(3), {"batch_size": {"eval": 2}}, "batch_size must be at least 1, got None in mode train"),
        (Rows(0), {"batch_size": 1}, "the train data '' is empty"),
        (7, {"batch_size": 1}, "the train data '' is a int"),
        ([3, 4], {"batch_size": 1}, r"list\[.\] is a int; needed: a dictionary"),
        (Rows(3), {"batch_size": 1, "ops": [Shift("z", "x")]}, "Shift misses z in mode train; the data has name, x, y"),
        (Rows(3), {"batch_size": 1, "ops": [Batch(), Batch()]}, "two Batch ops in mode train"),
        (Rows(3), {"batch_size": 2, "ops": [Batch(), Halve("x", "x")]}, r"made 'x' of shape \(1, 1\); needed: 2 rows"),
        (Rows(3), {"batch_size": 2, "ops": [Batch(), RemoveIf(np.any, "x")]}, "filters samples must stand before it"),
        (Rows(3), {"batch_size": 3, "ops": [Drop("x", "x")]}, "set its attribute masks = True"),
        ([{"x": 1}, {"z": 1}], {"batch_size": 2}, "must have the same keys"),
        ([{"x": {}}], {"batch_size": 1}, "'x' holds a dict; needed"),
        (Rows(3), {"batch_size": 1, "num_process": -1}, "num_process must be at least 0, got -1"),
    ],
)
def test_mistakes_are_told(data, options, message):
    with pytest.raises(UsageError, match=message):
        first(Pipeline(data, prefetch=0, **options), 1)
