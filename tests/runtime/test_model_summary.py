"""Model summaries, counted by hand."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from runtime.model_summary import in_bytes, model_summary, output_shapes, print_model_summary
from tests.runtime.nets import TOTAL, TRAINABLE, Nest


def by_path(model, *inputs, **conditions):
    return {row.path: row for row in model_summary(model, *inputs, **conditions)}


def test_names_shapes_counts_memory_types_and_notes():
    rows = by_path(Nest())
    assert list(rows) == ["", "first", "rows.0", "rows.0.layers.0", "rows.0.layers.1", "rows.0.layers.2",
                          "rows.0.layers.2.layers.0", "rows.1.in", "tied", "still", "last"]  # fmt: skip
    whole, bf16, still = rows[""], rows["rows.1.in"], rows["still"]
    assert (whole.parameters, whole.trainable, whole.dtypes) == (TOTAL, TRAINABLE, {"float32", "bfloat16"})
    assert whole.nbytes == 4 * TOTAL - 2 * 20 and whole.arrays == {}
    assert (bf16.nbytes, bf16.dtypes, bf16.arrays) == (40, {"bfloat16"}, {"weight": (4, 4), "bias": (4,)})
    assert (still.parameters, still.trainable, still.note) == (8, 0, "frozen")
    assert (rows["tied"].parameters, rows["tied"].note) == (0, "is first")
    assert rows["rows.0"].parameters == 40 and rows["rows.0.layers.1"].parameters == 0
    assert [rows[path].depth for path in ("", "rows.0", "rows.1.in", "rows.0.layers.2.layers.0")] == [0, 1, 1, 3]
    assert not any(row.output for row in rows.values())


@pytest.mark.usefixtures("still_memory")
def test_output_shapes_of_an_example_of_which_nothing_is_computed():
    x, active = mx.ones((1 << 20, 4)) * 1, mx.get_active_memory()
    rows = by_path(Nest(), x)
    assert mx.get_active_memory() - active < 10_000  # constants such as the 1, no layer
    inner = ["rows.0", "rows.0.layers.0", "rows.0.layers.1", "rows.0.layers.2", "rows.0.layers.2.layers.0", "rows.1.in"]
    assert {path: row.output for path, row in rows.items()} == {
        "": "(1048576, 2)", "first": "(1048576, 4) x 2", **dict.fromkeys(inner, "(1048576, 4)"), "tied": "",
        "still": "(1048576, 4)", "last": "(1048576, 2)",
    }  # fmt: skip


class Noisy(nn.Module):
    """Draws from the global stream, has statistics, returns several things."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm(3), nn.Dropout(0.5)

    def __call__(self, x, scale=1.0):
        self.norm.running_mean = self.norm.running_mean + 1
        return {"y": [self.norm(x) + mx.random.normal(x.shape)], "n": (x[:, 0] * scale, 3)}


def test_the_model_and_the_global_stream_stay_as_they_were():
    model = Noisy()
    model.drop.train(False)
    mx.random.seed(5)
    expected = mx.random.uniform().item()
    mx.random.seed(5)
    rows = by_path(model, mx.ones((2, 3)), scale=2.0)
    assert mx.random.uniform().item() == expected
    assert rows[""].output == "(2, 3), (2,)"
    assert model.norm.running_mean.tolist() == [0, 0, 0]
    assert model.training and model.norm.training and not model.drop.training
    with pytest.raises(ValueError):
        model_summary(model, mx.ones((2, 7)))
    assert model.norm.running_mean.tolist() == [0, 0, 0] and model.training and not model.drop.training


def test_shared_arrays_count_once_and_what_hides_from_mlx_is_told(capsys):
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied.layers[1].weight = tied.layers[0].weight
    rows = by_path(tied)
    assert rows[""].parameters == 15 and rows["layers.1"].note == "weight is layers.0.weight"
    model = nn.Module()
    model.a, model.own = (nn.Linear(2, 2),), [mx.ones(3), {"b": mx.zeros((2, 2), mx.float16)}]
    print_model_summary(model)
    out = capsys.readouterr().out
    assert "7 parameters, 7 trainable, 0 frozen, 20 B" in out and "own.0 (3,), own.1.b (2, 2)" in out
    assert "no parameters in tuples and under private names; a.0: weight is no parameter" in out


def test_printed_with_depth_and_without_parameters(capsys):
    print_model_summary(Nest(), mx.ones((3, 4)), depth=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == [
        "(model)",
        "first",
        "rows.0",
        "rows.1.in",
        "tied",
        "still",
        "last",
    ]
    assert lines[-1] == f"{TOTAL} parameters, {TRAINABLE} trainable, 8 frozen, 344 B"
    print_model_summary(nn.ReLU())
    assert "0 parameters, 0 trainable" in capsys.readouterr().out


def test_shapes_of_several_models_at_once():
    models = {"g": nn.Sequential(nn.Linear(2, 3)), "d": nn.Linear(3, 1)}
    with output_shapes(models) as shapes:
        for count in (4, 4, 5):
            models["d"](models["g"](mx.ones((count, 2), mx.bfloat16)))
    assert shapes == {"g": "(4, 3) or (5, 3) x 3", "g.layers.0": "(4, 3) or (5, 3) x 3", "d": "(4, 1) or (5, 1) x 3"}


def test_bytes_in_words():
    assert [in_bytes(n) for n in (0, 1023, 1536, 3 * 2**30, 5 * 2**50)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 GiB",
        "5120.0 TiB",
    ]
