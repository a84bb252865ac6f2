import threading
import time
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.pipeline import Pipeline
from dataloaders.source import ArraySource, Transport
from dataloaders.toy2d import EightGaussians, Moons, Pairs
from runtime.errors import UsageError


def numbered(size: int, **arrays) -> ArraySource:
    """Rows that show their own number."""
    return ArraySource({"x": np.arange(size, dtype=np.float32)[:, None], **arrays})


def first(pipeline: Pipeline, count: int, start: int = 0, mode: str = "train") -> list:
    iterator = pipeline.batches(mode, start)
    batches = list(islice(iterator, count))
    iterator.close()
    return batches


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        p.keys() == q.keys() and all(p[k].dtype == q[k].dtype and p[k].tobytes() == q[k].tobytes() for k in p)
        for p, q in zip(a, b, strict=True)
    )


class Mix:
    """Permutes the rows it is given and adds noise: wrong groups or generators show at once."""

    def __init__(self, span: int):
        self.span = span

    def __call__(self, batch, rng):
        order = rng.permutation(len(batch["x"]))
        noise = rng.standard_normal(batch["x"].shape, dtype=np.float32)
        return {**{k: v[order] for k, v in batch.items()}, "noise": batch["x"][order] + noise}


def prefetch_threads() -> list:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 30),
    batch=st.integers(1, 8),
    seed=st.integers(0, 2**40),
    start=st.integers(0, 40),
    spans=st.lists(st.integers(1, 4), max_size=3),
    fresh=st.booleans(),
    prefetch=st.integers(0, 2),
    workers=st.integers(1, 3),
)
def test_any_start_equals_the_tail(size, batch, seed, start, spans, fresh, prefetch, workers):
    source = Transport(EightGaussians(size), Moons(size)) if fresh else numbered(size, label=np.arange(size))
    ops = [Mix(k) for k in spans]
    pipeline = Pipeline(source, batch_size=min(batch, size), seed=seed, ops=ops, prefetch=prefetch)
    whole = first(pipeline, start + 12)
    options = {"seed": seed, "ops": [Mix(k) for k in spans], "prefetch": prefetch, "workers": workers}
    pipeline = Pipeline(source, batch_size=min(batch, size), **options)
    assert same(first(pipeline, 12, start), whole[start:])
    assert all(len(v) == pipeline.batch_size for b in whole for v in b.values())


def test_epochs_are_different_permutations_without_the_short_batch():
    pipeline = Pipeline(numbered(23), batch_size=5, seed=3)
    assert pipeline.steps_per_epoch == 4
    epochs = np.concatenate([b["x"] for b in first(pipeline, 12)]).reshape(3, 20)
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert not same(first(pipeline, 4), first(Pipeline(numbered(23), batch_size=5, seed=4), 4))


def test_long_run_uses_every_row_equally():
    pipeline = Pipeline(numbered(23), batch_size=5, prefetch=0)
    counts = np.bincount(np.concatenate([b["x"][:, 0] for b in first(pipeline, 4000)]).astype(int), minlength=23)
    assert abs(counts / counts.mean() - 1).max() < 0.05  # 1000 epochs of 20 of 23: binomial std 1.2%


def test_a_span_op_sees_consecutive_batches_as_one():
    seen = []

    class Record:
        span = 3

        def __call__(self, batch, rng):
            seen.append(batch["x"].copy())
            return {**batch, "place": np.arange(len(batch["x"]))}

    plain = first(Pipeline(numbered(20), batch_size=4, seed=1), 6)
    pipeline = Pipeline(numbered(20), batch_size=4, seed=1, prefetch=0)
    pipeline.add_ops([Record()])
    spanned = first(pipeline, 6)
    assert len(seen) == 2  # each group once, though three batches come from it
    np.testing.assert_array_equal(np.concatenate(seen), np.concatenate([b["x"] for b in plain]))
    np.testing.assert_array_equal([b["place"] for b in spanned], np.tile(np.arange(12).reshape(3, 4), (2, 1)))


def test_random_numbers_are_not_shared_between_ops_batches_or_seeds():
    class Draw:
        def __call__(self, batch, rng):
            return {**batch, f"draw{len(batch)}": rng.random(len(batch["x"]))}

    drawn = []
    for seed in (0, 1):
        for batch in first(Pipeline(Moons(9, grid=False), batch_size=3, seed=seed, ops=[Draw(), Draw()]), 8):
            drawn += [*batch["draw1"], *batch["draw2"], *batch["x"][:, 0]]
    assert len(set(drawn)) == 2 * 8 * 9


def test_evaluation_goes_through_once_padded_and_masked_without_ops():
    pipeline = Pipeline(numbered(9), eval_data=numbered(11), batch_size=4, ops=[Mix(2)])
    batches = list(pipeline.batches("eval"))
    assert [b["mask"].tolist() for b in batches] == [[1] * 4, [1] * 4, [1, 1, 1, 0]]
    assert batches[0]["mask"].dtype == np.float32 and all(b["x"].shape == (4, 1) for b in batches)
    x, mask = (np.concatenate([b[k] for b in batches]).ravel() for k in ("x", "mask"))
    np.testing.assert_array_equal(x[mask == 1], np.arange(11))
    assert same(list(pipeline.batches("eval", 1)), batches[1:])
    assert len(list(Pipeline(numbered(9), eval_data=numbered(8), batch_size=4).batches("eval"))) == 2


def test_generated_evaluation_data_stay_the_same():
    pipeline = Pipeline(Moons(500), eval_data=Moons(500), batch_size=100)
    assert same(list(pipeline.batches("eval")), list(pipeline.batches("eval")))
    assert not same(first(pipeline, 1), first(pipeline, 1, mode="eval"))


def test_batches_are_numpy_in_the_declared_types():
    (batch,) = first(Pipeline(numbered(9, label=np.arange(9)), batch_size=3), 1)
    assert {k: (type(v), v.dtype) for k, v in batch.items()} == {
        "x": (np.ndarray, np.float32),
        "label": (np.ndarray, np.int32),
    }


def test_global_random_state_is_untouched():
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    first(Pipeline(Pairs(100), batch_size=10, ops=[Mix(2)]), 4)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], before)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_ends_the_thread(taken):
    iterator = Pipeline(Moons(), batch_size=64).batches("train")
    for _ in range(taken):
        next(iterator)
    if taken:
        assert len(prefetch_threads()) == 1
        time.sleep(0.02)  # the queue is full now and the thread waits for room
    iterator.close()
    assert prefetch_threads() == []


def test_dropping_the_iterator_ends_the_thread():
    iterator = Pipeline(Moons(), batch_size=64).batches("train")
    next(iterator)
    del iterator
    assert prefetch_threads() == []


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_an_exception_arrives_in_its_place(prefetch):
    class Fail:
        calls = 0

        def __call__(self, batch, rng):
            self.calls += 1
            if self.calls == 4:
                raise ZeroDivisionError("batch 3")
            return batch

    iterator = Pipeline(numbered(9), batch_size=3, ops=[Fail()], prefetch=prefetch).batches("train")
    assert len(list(islice(iterator, 3))) == 3
    with pytest.raises(ZeroDivisionError, match="batch 3"):
        next(iterator)
    assert prefetch_threads() == []


def test_no_more_than_prefetch_batches_wait():
    made = []

    class Count:
        def __call__(self, batch, rng):
            made.append(1)
            return batch

    iterator = Pipeline(numbered(9), batch_size=3, ops=[Count()], prefetch=2).batches("train")
    next(iterator)
    time.sleep(0.05)
    iterator.close()
    assert len(made) <= 1 + 2 + 1  # one taken, two in the queue, one in hand


def test_draw_is_without_replacement():
    pipeline = Pipeline(numbered(50), batch_size=5)
    drawn = pipeline.draw("train", 50, np.random.default_rng(0))["x"].ravel()
    assert sorted(drawn) == list(range(50)) and list(drawn) != list(range(50))
    with pytest.raises(UsageError, match="51 samples .* has 50"):
        pipeline.draw("train", 51, np.random.default_rng(0))


def test_noise_is_standard_normal_and_repeatable():
    pipeline = Pipeline(numbered(50), batch_size=5)
    noise = pipeline.noise(100_000, np.random.default_rng(0))
    assert noise.shape == (100_000, 1) and noise.dtype == np.float32
    assert abs(noise.mean()) < 0.016 and abs(noise.std() - 1) < 0.012
    np.testing.assert_array_equal(noise, pipeline.noise(100_000, np.random.default_rng(0)))


def test_fingerprint_follows_the_data_only():
    def of(train, **options):
        return Pipeline(train, batch_size=2, **options).fingerprint()

    assert of(numbered(9)) == of(numbered(9), seed=5) != of(numbered(10))
    changed = np.arange(9, dtype=np.float32)[:, None]
    changed[4] += 1e-6 * 4
    assert of(ArraySource({"x": changed})) != of(numbered(9))
    assert of(Moons(noise=0.1)) != of(Moons()) == of(Moons())
    assert Pipeline(numbered(9), numbered(5), batch_size=2).fingerprint("eval") == Pipeline(
        numbered(7), numbered(5), batch_size=2
    ).fingerprint("eval")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10}, "batch_size=10 exceeds the 9 training samples"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"shape": [2]}, r"shape is \(2,\), but train samples have shape \(1,\)"),
        ({"classes": 3}, "classes is 3, but train data has 0"),
        ({"eval_data": Moons()}, r"but eval samples have shape \(2,\)"),
        ({"ops": [Mix(0)]}, "span must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        Pipeline(numbered(9), **{"batch_size": 3, **options})


def test_a_mode_without_data_is_named():
    with pytest.raises(UsageError, match="no data for mode 'test'; this pipeline has train, eval"):
        Pipeline(numbered(9), numbered(9), batch_size=3).batches("test")


def test_benchmark_counts_batches():
    assert Pipeline(numbered(9), numbered(9), batch_size=3).benchmark("train", 20) > 0
    assert Pipeline(numbered(9), numbered(9), batch_size=3).benchmark("eval") > 0


def test_array_source_refuses_what_does_not_fit():
    with pytest.raises(UsageError, match="one common, non-zero length"):
        numbered(4, label=np.arange(5))
    with pytest.raises(UsageError, match=r"labels must lie in 0..2, got 0..3"):
        ArraySource({"x": np.zeros((4, 1)), "label": np.arange(4)}, classes=3)
    with pytest.raises(UsageError, match="labels must be whole numbers"):
        ArraySource({"x": np.zeros((2, 1)), "label": np.array([1.0, 0.5])})


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch_without_overlap(world):
    ranks = [Pipeline(numbered(23), numbered(7), batch_size=3, seed=5, rank=r, world=world) for r in range(world)]
    steps = ranks[0].steps_per_epoch
    assert steps == 23 // world // 3
    for epoch in (0, 2):
        rows = np.concatenate([b["x"] for r in ranks for b in first(r, steps, epoch * steps)]).ravel()
        assert len(set(rows)) == len(rows) == world * steps * 3
    assert same(first(ranks[-1], 9), first(ranks[-1], 3) + first(ranks[-1], 6, 3))
    for rank in ranks:  # data of other modes is whole for every rank
        real = np.concatenate([b["x"][b["mask"] == 1] for b in rank.batches("eval")]).ravel()
        assert real.tolist() == list(range(7))


def test_one_rank_of_one_reads_what_no_ranks_read_and_others_draw_their_own():
    plain, rank = Pipeline(Moons(64), batch_size=4), Pipeline(Moons(64), batch_size=4, rank=0, world=1)
    assert same(first(plain, 3), first(rank, 3))
    halves = [first(Pipeline(Moons(64), batch_size=4, rank=r, world=2), 3) for r in (0, 1)]
    assert not set(np.concatenate([b["x"] for b in halves[0]]).ravel()) & set(
        np.concatenate([b["x"] for b in halves[1]]).ravel()
    )


def test_impossible_ranks_are_named():
    with pytest.raises(UsageError, match="rank must lie in 0..world - 1, got rank=2 and world=2"):
        Pipeline(numbered(9), batch_size=3, rank=2, world=2)
    with pytest.raises(UsageError, match="batch_size=5 on each of 2 ranks exceeds the 9 training samples"):
        Pipeline(numbered(9), batch_size=5, rank=0, world=2)
