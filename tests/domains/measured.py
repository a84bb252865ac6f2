"""The measured cells that come with the repository, for tests."""

from pathlib import Path

from dataloaders.eis_files import read_folder
from domains.eis_spectrum import Spectrum

CELLS = Path(__file__).parents[2] / "examples" / "data" / "eis" / "cells"


def cells() -> list[Spectrum]:
    """One spectrum of each of the eleven."""
    found = [spectrum for reading in read_folder(CELLS)[0] for spectrum in reading.spectra]
    assert len(found) == 11
    return found
