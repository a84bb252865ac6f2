"""Constructors take FastEstimator's arguments by the same names and places, so that ported scripts stay as they are."""

import ast
import json
from pathlib import Path

import pytest

from scripts.class_index import Class, read

ARGUMENTS = json.loads(Path(__file__).with_name("fixtures_arguments.json").read_text())["arguments"]
KINDS = {"ops": "op", "traces": "trace", "runtime": "schedule"}
# What of theirs is not taken here: TensorFlow's or notebooks' matters, and what is not built (yet)
LEFT_OUT = {
    "op.ModelOp": {"gradients"},
    "trace.LRScheduler": {"ds_id"},
    "trace.BestModelSaver": {"save_architecture"},
    "trace.ModelSaver": {"save_architecture"},
    "trace.ImageViewer": {"interactive"},
    "trace.EigenCAM": {"downsize"},
    "trace.GradCAM": {"n_components"},
    "trace.TensorBoard": {
        "paint_weights", "embedding_freq", "write_embeddings", "embedding_labels", "embedding_images",
    },
}  # fmt: skip
OTHER_PLACES = {"trace.GradCAM"}  # reads gradients of the graph itself


def taken(one: Class) -> list[str]:
    """The arguments of a class's constructor in order."""
    found = next(above.own["__init__"] for above in (one.like or one).lineage if "__init__" in above.own)
    return [argument.arg for argument in found.args.args[1:]]


@pytest.fixture(scope="module")
def classes() -> dict[str, Class]:
    found: dict[str, Class] = {}
    for one in read():
        top = one.module.split(".")[0]
        if top in KINDS and isinstance((one.like or one).node, ast.ClassDef):
            found.setdefault(f"{KINDS[top]}.{one.name}", one)
    return found


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_have_fastestimators_names_and_order(name, classes):
    ours, theirs = taken(classes[name]), ARGUMENTS[name]
    assert {argument for argument in theirs if argument not in ours} == LEFT_OUT.get(name, set())
    shared = [argument for argument in theirs if argument in ours]
    if name not in OTHER_PLACES:
        assert [argument for argument in ours if argument in shared] == shared
        whole = theirs if name not in LEFT_OUT else theirs[: min(theirs.index(a) for a in LEFT_OUT[name])]
        assert ours[: len(whole)] == whole, "ours has arguments of its own in between: they belong behind"
