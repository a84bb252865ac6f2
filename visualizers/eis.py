"""Pictures of a measured impedance spectrum and the circuits found for it: Nyquist, Bode, residual; a folder's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domains.eis import Impedance, impedance
from domains.eis_alarm import Alarm
from runtime.errors import UsageError
from visualizers.canvas import DATA, INK, SAMPLES, new_figure, save_figure

RED = "#d62728"
LINES = 40  # draws of the posterior in the Nyquist plot: a band has no meaning where both axes are measured
SMOOTH = 200  # frequencies of a circuit's curve
BAND = (0.05, 0.95)


@dataclass
class Picture:
    """A spectrum and circuits of it; frequencies (F,) in Hz, z (F,) complex in ohm.

    best (5,) ohm and farad after the series resistance rs (ohm); draws (N, 5) of the posterior with draws_rs (N,).
    """

    frequencies: np.ndarray
    z: Impedance
    topology: str
    best: np.ndarray
    rs: float = 0.0
    draws: np.ndarray | None = None
    draws_rs: np.ndarray | float = 0.0
    alarm: Alarm | None = None
    name: str = ""

    def curve(self) -> tuple[np.ndarray, Impedance]:
        """Frequencies (SMOOTH,) over the measured range and the best circuit's Z there."""
        dense = np.geomspace(self.frequencies.min(), self.frequencies.max(), SMOOTH)
        return dense, impedance(self.best, dense, self.topology, self.rs)

    def residual(self) -> Impedance:
        """(Z of the best circuit - Z) / |Z|, (F,) complex."""
        return (impedance(self.best, self.frequencies, self.topology, self.rs) - self.z) / np.abs(self.z)

    def band(self) -> tuple[np.ndarray, np.ndarray] | None:
        """|Z| (2, SMOOTH) and phase in degrees (2, SMOOTH) at 5% and 95% of the draws, over the curve's frequencies."""
        if self.draws is None:
            return None
        z = impedance(self.draws, self.curve()[0], self.topology, self.draws_rs)
        return np.quantile(np.abs(z), BAND, axis=0), np.quantile(np.angle(z, deg=True), BAND, axis=0)


def draw_spectrum(picture: Picture, path: Path | str) -> Path:
    """Nyquist plot (equal axes, capacitive upwards), Bode plot and relative residual, in the format of the suffix."""
    if len(picture.frequencies) != len(picture.z):
        raise UsageError(f"a picture needs one impedance for each frequency, got {len(picture.z)} impedances and "
                         f"{len(picture.frequencies)} frequencies.")  # fmt: skip
    figure, axes = new_figure(10, 7.2, 2, 2)
    _nyquist(axes[0, 0], picture)
    _bode(axes[0, 1], axes[1, 1], picture)
    _residual(axes[1, 0], picture)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(picture.name, color=RED if picture.alarm and picture.alarm.raised else INK)
    return save_figure(figure, path)


def _measured(axis: Any, x: np.ndarray, y: np.ndarray) -> None:
    axis.plot(x, y, "o", color=DATA, markersize=3.5, label="measured", zorder=2)


def _nyquist(axis: Any, picture: Picture) -> None:
    dense, best = picture.curve()
    _measured(axis, picture.z.real, -picture.z.imag)
    if picture.draws is not None:
        some = np.linspace(0, len(picture.draws) - 1, min(LINES, len(picture.draws))).astype(int)
        rs = np.broadcast_to(picture.draws_rs, len(picture.draws))[some]
        for z in impedance(picture.draws[some], dense, picture.topology, rs):
            axis.plot(z.real, -z.imag, color=SAMPLES, linewidth=0.8, alpha=0.12, zorder=1)
    axis.plot(best.real, -best.imag, color=SAMPLES, linewidth=1.4, zorder=3)
    both = np.concatenate([picture.z, best])
    axis.update_datalim(np.stack([both.real, -both.imag], axis=1))
    axis.set_aspect("equal", adjustable="datalim")
    axis.set(xlabel="Re Z (Ω)", ylabel="-Im Z (Ω)", title="Nyquist")


def _bode(modulus: Any, phase: Any, picture: Picture) -> None:
    dense, best = picture.curve()
    if bands := picture.band():
        for axis, (low, high) in zip((modulus, phase), bands, strict=True):
            axis.fill_between(dense, low, high, color=SAMPLES, alpha=0.25, linewidth=0, label="posterior, 5 to 95%")
    _measured(modulus, picture.frequencies, np.abs(picture.z))
    _measured(phase, picture.frequencies, np.angle(picture.z, deg=True))
    modulus.plot(dense, np.abs(best), color=SAMPLES, linewidth=1.4, label="best circuit", zorder=3)
    phase.plot(dense, np.angle(best, deg=True), color=SAMPLES, linewidth=1.4, zorder=3)
    modulus.set(xscale="log", yscale="log", ylabel="|Z| (Ω)", title="Bode")
    if np.ptp(np.log10(np.abs(picture.z))) < 1:  # else the few labels of a logarithmic axis are powers of ten
        from matplotlib.ticker import EngFormatter

        modulus.yaxis.set_major_formatter(EngFormatter(sep=""))
        modulus.yaxis.set_minor_formatter(EngFormatter(sep=""))
    phase.set(xscale="log", xlabel="frequency (Hz)", ylabel="phase (°)")


def _residual(axis: Any, picture: Picture) -> None:
    residual = 100 * picture.residual()
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.plot(picture.frequencies, residual.real, "o", color=SAMPLES, markersize=3.5, label="real")
    axis.plot(picture.frequencies, residual.imag, "s", color=DATA, markersize=3.5, label="imaginary")
    if picture.alarm is not None:
        for sign in (-1, 1):
            axis.axhline(sign * 100 * picture.alarm.allowed, color=RED, linewidth=0.9, linestyle="--",
                         label="allowed" if sign > 0 else None)  # fmt: skip
    axis.set(xscale="log", xlabel="frequency (Hz)", ylabel="residual (% of |Z|)", title="Best circuit - measured")
    axis.legend(frameon=False, fontsize=8)


def draw_folder(pictures: Sequence[Picture], path: Path | str) -> Path:
    """A Nyquist plot for each spectrum of a folder, those with an alarm titled in red."""
    if not pictures:
        raise UsageError("a folder's picture needs at least one spectrum, got none.")
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = new_figure(3.2 * columns, 2.9 * rows, rows, columns)
    for axis, picture in zip(axes.flat, pictures, strict=False):
        _nyquist(axis, picture)
        axis.set_title(picture.name, fontsize=8, color=RED if picture.alarm and picture.alarm.raised else INK)
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(pictures) :]:
        axis.set_axis_off()
    return save_figure(figure, path)
