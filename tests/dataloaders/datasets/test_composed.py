"""Data sets made of others: what each batch holds, in any process, from any start."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from dataloaders.datasets.batches import BatchDataset
from dataloaders.datasets.composed import CombinedDataset, ExtendDataset, InterleaveDataset
from dataloaders.datasets.derived import GeneratorDataset, OpDataset
from dataloaders.datasets.folders import SiameseDirDataset, TextDirDataset
from dataloaders.datasets.rows import NumpyDataset
from dataloaders.datasets.sliced import SlicedDataset
from dataloaders.datasets.summary import KeySummary
from dataloaders.ops.numpy_op import Batch, NumpyOp, RemoveIf
from dataloaders.pipeline import Pipeline
from dataloaders.toy2d import Moons
from runtime.errors import UsageError
from runtime.slicers import AxisSlicer


def numbers(count, offset=0, key="x"):
    return NumpyDataset({key: np.arange(count) + offset})


def first(pipeline, count, start=0, mode="train", ds_id=None):
    iterator = pipeline.batches(mode, start, ds_id)
    batches = list(islice(iterator, count))
    iterator.close()
    return batches


def assert_same(a, b):
    assert len(a) == len(b) > 0
    for p, q in zip(a, b, strict=True):
        assert p.keys() == q.keys()
        for key in p:
            np.testing.assert_array_equal(p[key], q[key])


class Noise(NumpyOp):
    def forward(self, data, state):
        return data + state["rng"].standard_normal()


def drawn(index, rng):
    return {"x": index + rng.random()}


def beyond_two(x):
    return x > 2


def test_every_batch_has_its_share_of_each_data_set():
    data = BatchDataset([numbers(7), numbers(20, 100)], [2, 3])
    pipeline = Pipeline(data)
    assert (pipeline.batch_size, pipeline.steps_per_epoch, len(data)) == (5, 7, 35)  # 20 / 3 rounded up
    epoch = first(pipeline, 7)
    assert [int((b["x"] < 100).sum()) for b in epoch] == [2] * 7
    seen = Counter(int(x) for b in epoch for x in b["x"])
    assert {seen[i] for i in range(7)} == {2}  # 14 of 7 rows: each twice
    assert sorted(seen[i] for i in range(100, 120)) == [1] * 19 + [2]
    assert len({tuple(b["x"] < 100) for b in epoch}) > 1  # mixed within a batch
    assert_same(first(pipeline, 3, 9), first(pipeline, 12)[9:])
    plain = [b["x"].tolist() for b in first(Pipeline(eval_data=data), 9, mode="eval")]
    assert len(plain) == 7 and plain[0] == [0, 1, 100, 101, 102] and [data[i]["x"] for i in range(5)] == plain[0]


def test_probabilities_choose_the_data_set_of_each_sample():
    data = BatchDataset([numbers(50), numbers(100, 1000)], 8, [0.75, 0.25])
    pipeline = Pipeline(data)
    assert pipeline.batch_size == 8 and pipeline.steps_per_epoch == 50  # 100 / (8 x .25)
    counts = [int((b["x"] >= 1000).sum()) for b in first(pipeline, 500)]
    assert abs(np.mean(counts) - 2) < 0.2 and np.var(counts) == pytest.approx(8 * 0.75 * 0.25, rel=0.25)


def test_data_sets_with_other_keys_are_paired_anew_each_epoch():
    data = BatchDataset([numbers(4), numbers(10, 0, "z")], [2, 2])
    pairs = [[(int(x), int(z)) for b in first(Pipeline(data), 5, start) for x, z in zip(b["x"], b["z"], strict=True)]
             for start in (0, 5)]  # fmt: skip
    assert [sorted(z for _, z in epoch) for epoch in pairs] == [list(range(10))] * 2
    assert all(set(Counter(x for x, _ in epoch).values()) <= {2, 3} for epoch in pairs) and pairs[0] != pairs[1]
    assert data[3] == {"x": 3, "z": 3}


def test_ranks_get_whole_composed_batches():
    data = BatchDataset([numbers(8), numbers(8, 100)], [1, 3])
    ranks = [first(Pipeline(data, data, rank=r, world=2), 4) for r in (0, 1)]
    assert all(int((b["x"] < 100).sum()) == 1 for own in ranks for b in own)
    whole = first(Pipeline(data, data), 8)
    assert [b["x"].tolist() for pair in zip(*ranks, strict=True) for b in pair] == [b["x"].tolist() for b in whole]
    judged = [first(Pipeline(data, data, rank=r, world=2), 4, mode="eval") for r in (0, 1)]
    assert [b["x"].tolist() for b in judged[0]] == [b["x"].tolist() for b in judged[1]]  # whole on every rank


def test_filtered_rows_of_composed_sets_are_redrawn_from_them():
    data = ExtendDataset(BatchDataset([numbers(3), numbers(6, -6)], [1, 2]), 12)
    batches = first(Pipeline(data, ops=[RemoveIf(beyond_two, "x"), RemoveIf(lambda x: x == 0, "x")]), 8)
    assert {int(x) for b in batches for x in b["x"]} == {1, 2, *range(-6, 0)} and len(batches[0]["x"]) == 3


@pytest.mark.parametrize(("make", "message"), [
    (lambda: BatchDataset([numbers(3)], [1]), "needs two data sets"),
    (lambda: BatchDataset([numbers(3), numbers(3)], [1]), "a number for each of 2"),
    (lambda: BatchDataset([numbers(3), numbers(3, key="z")], [1, 2]), "equal ones"),
    (lambda: BatchDataset([numbers(3), numbers(3)], 4, [0.5, 0.6]), "sum to 1"),
    (lambda: BatchDataset([numbers(3), NumpyDataset({"x": [1], "z": [1]})], [1, 1]), "none in common"),
    (lambda: BatchDataset([ExtendDataset(numbers(3), 2), numbers(3)], [1, 1]), "got a ExtendDataset; put it outside"),
    (lambda: Pipeline(BatchDataset([numbers(3)] * 2, [1, 1]), ops=[Batch(3)]), "batches of 2; Batch asks for 3"),
    (lambda: ExtendDataset(InterleaveDataset([numbers(2), numbers(2)]), 3), "takes a data set of samples"),
    (lambda: ExtendDataset(BatchDataset([numbers(3), numbers(3)], [1, 1]), 5), "whole batches"),
    (lambda: GeneratorDataset(drawn, 0), "at least 1"),
    (lambda: GeneratorDataset(endless, 3), "has been called"),
])  # fmt: skip
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def endless():
    index = yield {"x": -1.0}
    while True:
        index = yield {"x": float(index)}


def test_a_generator_is_sent_the_index_and_a_function_draws_from_the_batchs_numbers():
    data = GeneratorDataset(endless(), 6)
    assert data.summary().keys == {"x": KeySummary("float64")}  # which takes no sample out
    epoch = np.concatenate([b["x"] for b in first(Pipeline(data, batch_size=3, prefetch=0), 2)])
    assert sorted(epoch) == list(range(6))
    with pytest.raises(UsageError, match="cannot pickle 'generator'"):
        first(Pipeline(data, batch_size=3, num_process=1), 1)
    short = GeneratorDataset(({"x": i} for i in range(3)), 9)
    with pytest.raises(UsageError, match="the generator of a GeneratorDataset ended"):
        first(Pipeline(short, batch_size=3), 1)
    pipeline = Pipeline(GeneratorDataset(drawn, 6), batch_size=3, seed=1)
    batches = first(pipeline, 6)
    assert sorted(np.concatenate([b["x"] for b in batches[:2]]).astype(int)) == list(range(6))
    assert len({float(x) for b in batches for x in b["x"]}) == 18
    assert_same(first(pipeline, 2, 4), batches[4:])


def test_ops_of_a_data_set_run_before_the_pipelines():
    data = OpDataset(numbers(5), [Noise("x", "x"), Noise("x", "z", mode="eval")])
    assert data[3] == data[3] and abs(data[3]["x"] - 3) < 5 and data[3].keys() == {"x"}
    assert OpDataset(numbers(5), Noise("x", "z"), mode="eval")[0].keys() == {"x", "z"}
    with pytest.raises(UsageError, match="put RemoveIf into the Pipeline's ops"):
        first(Pipeline(OpDataset(numbers(5), RemoveIf(beyond_two, "x")), batch_size=5), 1)


def everything(root):
    for name in ("a", "b"):
        (root / name).mkdir()
        for i in range(3):
            (root / name / f"{i}.txt").write_text(f"{name}{i}")
    pairs, texts = SiameseDirDataset(str(root)), TextDirDataset(str(root))
    return {
        "batch": BatchDataset([numbers(6), OpDataset(numbers(6), Noise("x", "x"))], 4, [0.5, 0.5]),
        "unpaired": BatchDataset([pairs, numbers(5)], [4, 4]), "texts": texts,
        "pairs": CombinedDataset([pairs, pairs]), "extend": ExtendDataset(pairs, 8),
        "made": GeneratorDataset(drawn, 8), "source": CombinedDataset([Moons(4)] * 2),
        "sliced": SlicedDataset(NumpyDataset({"x": np.arange(24).reshape(3, 8)}), AxisSlicer(0, "x")),
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_worker_processes_make_the_same_batches_of_every_data_set(tmp_path, mode):
    data = everything(tmp_path)
    alone = Pipeline(data, data, batch_size=4, seed=2)
    count = sum(alone.recipes[mode, ds_id].steps for ds_id in data) + 3
    whole = first(alone, count, mode=mode)
    workers = Pipeline(data, data, batch_size=4, seed=2, num_process=2)
    assert_same(first(workers, count, mode=mode), whole)
    assert_same(first(workers, count, 5, mode=mode)[: len(whole) - 5], whole[5:])
    workers.close()


def test_texts_are_read_when_asked_for(tmp_path):
    data = everything(tmp_path)["texts"]
    assert data[4] == {"x": "b1", "y": 1} and data["x"][:2] == ["a0", "a1"] and len(data.split(2)) == 2
    (tmp_path / "b" / "2.txt").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="no readable text in utf-8"):
        data["x"]


def test_joined_sets_are_split_set_by_set():
    data = BatchDataset([numbers(10), numbers(20, 100)], [1, 2])
    part = data.split(0.5, seed=0)
    assert (len(data), len(part)) == (15, 15)
    rows = [{int(x) for b in first(Pipeline(own), 5) for x in b["x"]} for own in (data, part)]
    assert not rows[0] & rows[1] and rows[0] | rows[1] == {*range(10), *range(100, 120)}
    woven = InterleaveDataset({"a": numbers(10), "b": numbers(20, 100)}, ["a", "b", "b"])
    fifth, half = woven.split(0.2, 0.5)
    assert [len(own) for own in (fifth, half, woven)] == [6, 15, 9] and fifth.pattern == [0, 1, 1]
    with pytest.raises(UsageError, match="a GeneratorDataset can't be split"):
        BatchDataset([numbers(3), GeneratorDataset(drawn, 3)], [1, 1]).split(1)


def test_summaries_count_and_describe(tmp_path):
    data = everything(tmp_path)
    texts = data["texts"].summary()
    assert (texts.num_instances, texts.num_classes, texts.class_key) == (6, 2, "y")
    assert texts.class_key_mapping == {"a": 0, "b": 1} and texts.keys["y"].num_unique_values == 2
    assert texts.keys["x"] == KeySummary("str", (), 6)
    rows = NumpyDataset(
        {"x": np.zeros((3, 4, 2), np.uint8), "w": [np.zeros((2, 3)), np.zeros((5, 3)), np.zeros((2, 3))]}
    )
    assert rows.summary().keys == {"x": KeySummary("uint8", (4, 2)), "w": KeySummary("float64", (None, 3))}
    joined = data["unpaired"].summary()
    assert joined.num_instances == 8 and set(joined.keys) == {"x_a", "x_b", "y", "x"}
    assert data["extend"].summary().num_instances == 8
    moons = Pipeline({"moons": Moons(9, grid=False)}, batch_size=2).summary("train")["moons"]
    assert moons.keys["x"] == KeySummary("float32", (2,)) and moons.num_instances == 9
    assert Pipeline(data, batch_size=2).summary("train").keys() == data.keys() and "num_instances" in str(texts)


def test_columns_can_be_replaced():
    data = numbers(6)
    part = data.split([0, 5])
    data["x"] = data["x"] * 10
    data["y"] = list("abcd")
    assert data[0] == {"x": 10, "y": "a"} and part["x"].tolist() == [0, 5] and len(data.split(2)) == 2
    with pytest.raises(UsageError, match="has 3 values; needed: 2"):
        data["x"] = [1, 2, 3]
