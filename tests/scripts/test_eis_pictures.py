"""Pictures of an EIS predictor: the held-out spectra are those of the circuits, and all are drawn."""

from types import SimpleNamespace

import numpy as np

from dataloaders.eis import Spectra
from dataloaders.pipeline import Pipeline
from domains.eis import NAMES, from_places, impedance
from scripts import eis_pictures, rendering
from tests.scripts.test_eis_models import FAST, NETWORK, trained
from visualizers import render


def test_held_out_spectra_have_the_impedance_of_their_circuit_and_only_what_is_known():
    data = Spectra(40, topology="parallel", points=(3, 30), noise=0.0, known=(0.5, 0.2, 0.3), blank=0.2)
    run = SimpleNamespace(pipeline=Pipeline(data, data, batch_size=4))
    found = eis_pictures.held_out(run, 1)  # type: ignore[arg-type]
    rows = run.pipeline.draw("eval", 40, np.random.default_rng(1))
    counts = rows["x"][..., 3].sum(1)
    assert len(found) == (counts >= 5).sum() < 40 and (counts == 0).any()
    kept = np.flatnonzero(counts >= 5)
    for number, (row, (points, known, title)) in enumerate(zip(kept, found, strict=True)):
        parameters = from_places(rows["target"][row])
        z = impedance(parameters, 10 ** points[:, 0], "parallel")
        np.testing.assert_allclose(points[:, 1] + 1j * points[:, 2], z, rtol=1e-4)
        names = [name for name, given in zip(NAMES, rows["known_mask"][row], strict=True) if given]
        assert list(known) == names and title == f"{number + 1}: known {', '.join(names) or 'nothing'}"
        assert all(np.isclose(known[name], parameters[NAMES.index(name)]) for name in names)


def test_a_predictors_run_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eis_pictures, "SPECTRA", 2)
    small = [*NETWORK, *FAST, "trackio.log_every=1"]
    run = trained(tmp_path / "r", "experiment=eis_parallel", *small, "dataloaders.train_data.points=[30,100]")
    capsys.readouterr()
    assert render.main([f"run={run}", "device=cpu", f"out={tmp_path / 'out'}"]) == 0
    names = ["spectra.png", *(f"spectrum_{n + 1}.png" for n in range(rendering.DETAILED)), "curves.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in names]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names}
