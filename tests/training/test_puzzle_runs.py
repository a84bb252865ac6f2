"""Recursive puzzle models in real runs: stopped in the middle of a carry, averaged, with embeddings of puzzles."""

import json
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

import launcher
from dataloaders.puzzle_files import Split, write
from domains.sudoku import apply as moved
from domains.sudoku import parse, symmetries, tokens
from losses.act import ACT
from models.trm import TRM
from optimizers.sign_sgd import SignSGD
from runtime.errors import UsageError
from runtime.op import ObjectiveOp
from runtime.table import Table
from runtime.trees import flatten
from scripts import compress
from scripts.compose import compose
from tests.training.by_hand import KEY, weights
from training import checkpoint, compressed, exported
from training.experiment import evaluate_run, load_run
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

IDS, BATCH = 20, 8
SMALL = [
    "run_name=r", "model=trm_mlp", "loss=act", "dataloaders=sudoku4", "optimizer=adam_atan2", "solver=null",
    "evaluation=none", "traces.evaluation.pictures=null", "model.hidden=16", "model.heads=2", "model.low=2",
    "model.high=2",
    "model.prefix=2", "loss.steps=4", f"batch_size={BATCH}", "epochs=null", "max_steps=12", "eval_every=6s",
    "save_every=5s", "trackio.enabled=false", "trackio.log_every=3", "traces.progress.quiet=true", "device=cpu",
    "optimizer.schedule.warmup=3", "optimizer.learning_rate=3e-3",
]  # fmt: skip
EMBEDDED = [
    f"model.ids={IDS}", "+optimizer.table.learning_rate=0.01", "+optimizer.table.optimizer._partial_=true",
    "+optimizer.table.optimizer._target_=optimizers.sign_sgd.SignSGD", "+optimizer.table.optimizer.weight_decay=0.5",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """48 training and 16 test Sudokus of side 4, each with one of 20 identifiers; number 19 is in the test alone."""
    folder, rng = tmp_path_factory.mktemp("sudoku4"), np.random.default_rng(0)
    full = moved(parse("1234341221434321", 1, 4)[None].repeat(64, 0), *symmetries(64, 4, rng))
    puzzles = np.where(rng.random(full.shape) < 0.6, full, 0).astype(np.uint8)
    ids = np.concatenate([rng.integers(0, IDS - 1, 48), [IDS - 1] * 16])
    write(
        folder,
        {"train": Split(tokens(puzzles[:48]), tokens(full[:48]), ids[:48]),
         "test": Split(tokens(puzzles[48:]), tokens(full[48:]), ids[48:])},
        6, [f"p{i}" for i in range(IDS)],
    )  # fmt: skip
    return folder


def run(data, folder, *more):
    overrides = [*SMALL, f"dataloaders.train_data.folder={data}", *more]
    launcher.train(compose(overrides), folder, overrides)
    return {name: np.array(a) for name, a in checkpoint.load(checkpoint.find(folder))[0].items()}


@pytest.mark.parametrize("options", [EMBEDDED, [*EMBEDDED, "compile=false"], ["model=trm"]], ids=lambda o: str(len(o)))
def test_a_run_stopped_in_the_middle_of_a_carry_goes_on_bit_for_bit(data, tmp_path, options):
    whole = run(data, tmp_path / "whole", *options)
    early = run(data, tmp_path / "parts", *options, "max_steps=7")
    assert set(early["carry.carry_steps"]) == {3} and not early["carry.carry_halted"].any()  # of 4 steps
    parts = run(data, tmp_path / "parts", *options, "resume=true")
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)
    if options != ["model=trm"]:
        rows = whole["table.rows"]
        assert rows.shape == (IDS, 16) and rows[:-1].any() and not rows[-1].any()  # 19 never was in a batch


def test_a_checkpoint_brings_the_table_to_evaluations_and_fine_tuning(data, tmp_path):
    kept = run(data, tmp_path / "r", *EMBEDDED)
    table = cast(TRM, load_run(tmp_path / "r").model).table
    assert table is not None
    np.testing.assert_array_equal(np.array(table.state["rows"]), kept["table.rows"])
    record = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert evaluate_run(tmp_path / "r")[0]["eval/loss"] == record[-1]["eval/loss"]
    tuned = run(data, tmp_path / "tuned", *EMBEDDED, f"init_from={tmp_path / 'r'}", "optimizer.table.learning_rate=0",
                "max_steps=1")  # fmt: skip
    np.testing.assert_array_equal(tuned["table.rows"], kept["table.rows"])


@pytest.mark.parametrize("prune", [None, 0.5])
def test_a_compressed_model_has_what_its_few_bits_stand_for(data, tmp_path, prune, capsys):
    run(data, tmp_path / "r", *EMBEDDED, "compile=false", "max_steps=2")
    out, more = tmp_path / "small.safetensors", [] if prune is None else [f"prune={prune}"]
    given = [f"checkpoint={tmp_path}/r", f"out={out}", "bits=4", "evaluate=false", "device=cpu", *more]
    assert compress.main(given) == 0 and "4 matrices in 4 bits" in capsys.readouterr().out
    models = load_run(tmp_path / "r").models
    if prune is not None:
        compressed.prune(models, prune)
    whole, arrays = flatten(models), flatten(load_run(out).models)
    assert whole.keys() == arrays.keys()
    for name, array in arrays.items():
        wanted = whole[name]
        if name.endswith("down"):  # its rows have 256 numbers, those of the others 16
            wanted = mx.dequantize(*mx.quantize(wanted, 64, 4), 64, 4)
            assert 1e-3 < mx.abs(array - whole[name]).max().item() < 0.1
        np.testing.assert_array_equal(np.array(array), np.array(wanted), name)
    assert np.isfinite(evaluate_run(out)[0]["eval/loss"])


def test_an_exported_model_brings_its_table(data, tmp_path):
    kept = run(data, tmp_path / "r", *EMBEDDED)
    exported.export(load_run(tmp_path / "r"), tmp_path / "small.safetensors", "puzzles")
    broken = load_run(tmp_path / "r")
    cast(TRM, broken.model).table = Table(IDS, 16)
    cast(Table, cast(TRM, broken.model).table).state["rows"] = mx.full((IDS, 16), 1e5)
    with pytest.raises(UsageError, match="table.rows are not finite"):
        exported.export(broken, tmp_path / "broken.safetensors", "puzzles")
    model, _ = exported.opened(tmp_path / "small.safetensors", "puzzles") or (None, None)
    assert isinstance(model, TRM) and model.table is not None
    np.testing.assert_array_equal(np.array(model.table.state["rows"]), np.float16(kept["table.rows"]))


def test_answers_depend_on_the_puzzles_row():
    model, objective = trm(), ACT(steps=2)
    assert model.table is not None
    model.table[mx.array([1])] = mx.full((1, 16), 3.0)
    batch = {"x": mx.zeros((2, 16), mx.int32), "label": mx.zeros((2, 16), mx.int32)}
    model.q_weight = mx.ones((2, 16))
    found = [list(objective.rollout(model, batch | {"puzzle": mx.array(ids)})) for ids in ([0, 0], [0, 1])]
    q = np.array([[[float(v) for v in step[1]] for step in steps] for steps in found])
    with pytest.raises(UsageError, match="4 rows.*'puzzle'.*got 4"):
        next(objective.rollout(model, batch | {"puzzle": mx.array([0, 4])}))
    assert (q[0, :, 0] == q[1, :, 0]).all() and (abs(q[0, :, 1] - q[1, :, 1]) > 1e-3).all()


def trm(**settings):
    mx.random.seed(0)
    return TRM(6, 16, hidden=16, heads=2, low=1, high=1, prefix=2, ids=4, mixer="mlp", **settings)


def test_rows_are_those_of_the_carried_puzzles():
    objective, puzzles = ACT(), mx.array([5, 6, 7])
    data = {"puzzle": puzzles, "carry_puzzle": mx.array([1, 2, 3]), "carry_halted": mx.array([True, False, True])}
    assert objective.ids(data).tolist() == [5, 2, 7]
    assert objective.ids({"puzzle": puzzles}).tolist() == [5, 6, 7]


def test_every_trained_leaf_has_an_average_that_moves_lists_of_blocks_too():
    model = trm()
    update = UpdateOp(model, "loss", "adam", 0.01, table={"optimizer": SignSGD}, ema=[0.75], ema_warmup=False)
    step = TrainStep(Network([ObjectiveOp(model, ACT(steps=2)), update]), compile=False)
    rng = np.random.default_rng(0)
    batch = {"x": mx.array(rng.integers(1, 6, (4, 16))), "label": mx.array(rng.integers(2, 6, (4, 16))),
             "puzzle": mx.arange(4)}  # fmt: skip
    step.start(batch)
    before = weights(model)
    average = dict(before)
    for _ in range(3):
        step(batch, KEY)
        average = {path: 0.75 * a + 0.25 * weights(model)[path] for path, a in average.items()}
    trained = {path for path in before if path not in ("y_start", "z_start")}
    found = update.averages.leaves()
    assert set(found) == trained and any("blocks.1" in path for path in trained)
    for path in trained:
        np.testing.assert_allclose(np.array(found[path]), average[path], rtol=1e-5, atol=1e-7, err_msg=path)
        assert not np.array_equal(weights(model)[path], before[path]), path
