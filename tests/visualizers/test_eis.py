"""The pictures of spectra: what their axes hold, read back from the figure before it is written."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from domains.eis import default_frequencies, impedance
from domains.eis_alarm import Alarm
from runtime.errors import UsageError
from visualizers import eis as drawing
from visualizers.eis import Picture, draw_folder, draw_spectrum

BEST = np.array([460.0, 4820.0, 2210.0, 3e-6, 1e-7])


@pytest.fixture
def figures(monkeypatch):
    """The figures that were written."""
    seen, own = [], drawing.save_figure
    monkeypatch.setattr(drawing, "save_figure", lambda figure, path: seen.append(figure) or own(figure, path))
    return seen


def alarm(raised):
    return Alarm(0.02, 0.03, raised, 100.0)


def picture(**changes: Any) -> Picture:
    frequencies = default_frequencies(30)
    draws = BEST * np.exp(0.1 * np.random.default_rng(0).standard_normal((200, 5)))
    z = impedance(BEST, frequencies, "parallel", 20.0)
    given: dict[str, Any] = {"frequencies": frequencies, "z": z, "topology": "parallel", "best": BEST, "rs": 20.0}
    given |= {"draws": draws, "draws_rs": np.full(200, 20.0), "alarm": alarm(False), "name": "cell"} | changes
    return Picture(**given)


def line(axis, label):
    (found,) = [one for one in axis.get_lines() if one.get_label() == label]
    return found.get_xydata()


def test_four_panels_show_the_spectrum_and_the_circuit(tmp_path, figures):
    shown = picture()
    assert draw_spectrum(shown, tmp_path / "a" / "p.png") == tmp_path / "a" / "p.png"
    with Image.open(tmp_path / "a" / "p.png") as file:
        assert min(file.size) > 600
    nyquist, modulus, residual, phase = figures[0].axes
    np.testing.assert_allclose(line(nyquist, "measured"), np.stack([shown.z.real, -shown.z.imag], 1))
    assert nyquist.get_aspect() == 1.0 and min(nyquist.get_ylim()) < 0 < max(nyquist.get_ylim())
    curve = line(modulus, "best circuit")
    np.testing.assert_allclose(curve[:, 1], np.abs(impedance(BEST, curve[:, 0], "parallel", 20.0)))
    np.testing.assert_allclose(line(phase, "measured")[:, 1], np.angle(shown.z, deg=True))
    np.testing.assert_allclose(line(residual, "real")[:, 1], 0, atol=1e-12)
    np.testing.assert_allclose(line(residual, "allowed")[:, 1], 3.0)


def test_the_residual_is_that_of_model_minus_measured():
    shown = picture(best=BEST * [2, 2, 2, 0.5, 0.5], rs=40.0)
    np.testing.assert_allclose(shown.residual(), shown.z / np.abs(shown.z))


def test_the_band_holds_nine_tenths_of_the_draws(tmp_path, figures):
    shown = picture()
    band, (dense, _) = shown.band(), shown.curve()
    assert shown.draws is not None and band is not None
    modulus, phase = band
    inside = np.abs(impedance(shown.draws, dense, "parallel", 20.0))
    assert np.mean((modulus[0] <= inside) & (inside <= modulus[1])) == pytest.approx(0.9, abs=0.01)
    assert modulus.shape == phase.shape == (2, drawing.SMOOTH) and (phase[0] < phase[1]).all()
    draw_spectrum(shown, tmp_path / "p.svg")
    labels = {one.get_label() for one in figures[0].axes[1].collections}
    assert "posterior, 5 to 95%" in labels
    draw_spectrum(picture(draws=None), tmp_path / "p.svg")
    assert not figures[1].axes[1].collections


def test_a_folder_has_a_panel_each_and_the_alarmed_are_red(tmp_path, figures):
    draw_folder([picture(name="good"), *[picture(name="bad", alarm=alarm(True))] * 4], tmp_path / "f.png")
    titles = [(axis.get_title(), axis.title.get_color()) for axis in figures[0].axes]
    assert titles[:2] == [("good", drawing.INK), ("bad", drawing.RED)] and len(titles) == 8
    with pytest.raises(UsageError, match="at least one spectrum, got none"):
        draw_folder([], tmp_path / "f.png")


def test_unequal_lengths_are_told(tmp_path):
    with pytest.raises(UsageError, match="got 30 impedances and 29 frequencies"):
        draw_spectrum(picture(frequencies=default_frequencies(29)), tmp_path / "p.png")
