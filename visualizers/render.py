"""Draws what a run's checkpoint has learnt: all pictures that suit it, in one folder.

usage: python visualizers/render.py run=outputs/first [key=value ...]

  run=PATH               a run's folder (its newest checkpoint) or a checkpoint; its data are needed
  out=FOLDER             left out: pictures/ in the run's folder
  kind=field,curves      only these, by the names below; left out: all
  format=gif             of what moves: gif, mp4 (needs the extra `video`) or png (moments of it side by side)
  steps=4                of the sampler between one step and the ODE in comparison
  ema=true               true: the first average kept; false: the plain weights; 0.999: the average of that decay
  seed=0                 of noise, labels and spectra
  device=auto            auto, gpu or cpu

Points of the plane: samples, comparison (one step, several, the ODE, from the same noise), denoising (moving), paths,
field (models without classes), jumps (average velocities). Images: samples, comparison, denoising (moving), neighbours.
Autoencoders: reconstructions. Spectra: spectra, spectrum_1, spectrum_2 (Nyquist, Bode with a band, residual). Puzzles:
puzzles, and puzzles.gif (or solving.png), how the answers come about. Classifiers: confusion, mistakes, saliency.
All: curves, where metrics were logged more than once. `visualizers/vis_all.sh` does this for many runs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in visualizers/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
from scripts.arguments import command
from scripts.rendering import work


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
