"""Pictures of an EIS predictor's run: held-out spectra with the circuits that it finds and how sure it is of them."""

from typing import Any

import numpy as np

from domains.eis import NAMES, from_places
from domains.eis_spectrum import FEWEST, Spectrum
from evaluation.eis_predictor import EISParameterCompleter, ProbabilisticEISPredictor
from runtime.errors import UsageError
from runtime.run import Run
from scripts.eis_analysis import Options, analyse
from scripts.eis_models import trained_on, usable
from visualizers.eis import Picture

SPECTRA, TRIED = 8, 64  # spectra drawn, and rows among which they are looked for


def held_out(run: Run, seed: int = 0) -> list[tuple[np.ndarray, dict[str, float], str]]:
    """Points (F, 4) of held-out spectra that are long enough, what their rows call known, by name, and a title."""
    rows = run.pipeline.draw("eval", min(TRIED, len(run.pipeline.source("eval"))), np.random.default_rng(seed))
    found = []
    for x, target, mask in zip(rows["x"].astype(np.float64), rows["target"], rows["known_mask"], strict=True):
        points = x[x[:, 3] > 0]
        if len(points) >= FEWEST:
            values = dict(zip(NAMES, from_places(target).tolist(), strict=True))
            known = {name: value for name, value, given in zip(NAMES, values.values(), mask, strict=True) if given}
            title = f"{len(found) + 1}: known {', '.join(known) or 'nothing'}"
            found.append((points, known, title))
    return found


def analysed(run: Run, seed: int = 0) -> list[Picture]:
    """The pictures of the first held-out spectra that the predictor takes; UsageError where it takes none."""
    completer = EISParameterCompleter(ProbabilisticEISPredictor(usable(run.model), **trained_on(run.config)))
    pictures: list[Picture] = []
    refused: list[Any] = []
    for points, known, title in held_out(run, seed):
        if len(pictures) == SPECTRA:
            break
        try:
            spectrum = Spectrum(10 ** points[:, 0], points[:, 1] + 1j * points[:, 2], title)
            pictures.append(analyse(spectrum, known, completer, Options(seed=seed))[1])
        except UsageError as error:
            refused.append(error)
    if not pictures:
        raise UsageError(f"no held-out spectrum could be predicted: {refused[0] if refused else 'all are too short'}")
    return pictures
