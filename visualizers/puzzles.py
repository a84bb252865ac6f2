"""Pictures of held-out puzzles and of a model's way to its answers; what configs and traces name."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from domains.puzzles import IGNORED
from runtime.errors import UsageError
from runtime.run import Run
from visualizers.grids import save_denoising, save_grid
from visualizers.sudoku import animate_sudokus, save_sudokus
from visualizers.token_grids import PALETTES, images

KINDS = ("sudoku", *PALETTES)


class PuzzlePicture:
    """Answers to held-out puzzles as `folder`/`name`.png, and how they come about, step by step, as `name`.gif.

    Of Sudokus clues are black, right cells blue and wrong ones red; in mazes wrong cells are red; of ARC the question,
    the answer and what would have been right stand side by side. kind: "sudoku", "maze" or "arc"; None: by the number
    of tokens and of their kinds. puzzles: how many, evenly spread. moving: how many in the GIF, 0 for none.
    """

    def __init__(self, puzzles: int = 9, moving: int = 4, kind: str | None = None):
        if kind not in (None, *KINDS):
            raise UsageError(f"PuzzlePicture: kind must be {', '.join(KINDS)} or null, got {kind!r}.")
        self.puzzles, self.moving, self.kind = puzzles, moving, kind

    def __call__(self, run: Run, folder: Path | str, name: str = "puzzles") -> list[Path]:
        """The files written; none where nothing is held out."""
        source = run.pipeline.sources.get("eval", ())
        if not len(source):
            return []
        rows = np.linspace(0, len(source) - 1, min(self.puzzles, len(source))).round().astype(int)
        batch = source.take(rows, np.random.default_rng(0))
        objective: Any = run.objective
        given = {key: mx.array(value) for key, value in batch.items()}
        answers = np.stack([np.array(found) for found, _ in objective.rollout(run.model, given)])
        kind = self.kind or kind_of(run.pipeline.shape[0], run.pipeline.classes)
        return drawn(kind, batch["x"], answers, batch["label"], Path(folder) / name, self.moving)


def kind_of(length: int, vocabulary: int) -> str:
    """What puzzles of so many tokens of so many kinds are; UsageError where they are none of those drawn here."""
    side = round(length**0.5)
    if side in (4, 6, 9) and vocabulary == side + 2:
        return "sudoku"
    for kind, palette in PALETTES.items():
        if vocabulary == len(palette) and side * side == length:
            return kind
    raise UsageError(f"pictures are of Sudokus, mazes and ARC grids, got {length} tokens of {vocabulary} kinds.")


def drawn(kind: str, x: np.ndarray, answers: np.ndarray, label: np.ndarray, path: Path, moving: int = 4) -> list[Path]:
    """Puzzles x (N, S), answers (T, N, S) after every step and labels (N, S), all tokens, as `path`.png and .gif."""
    still, film = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.gif")
    if kind == "sudoku":
        grids, found, right = (np.maximum(tokens, 1).astype(np.uint8) - 1 for tokens in (x, answers, label))
        files = [save_sudokus(grids, found[-1], right, still)]
        return [*files, animate_sudokus(grids[:moving], found[:, :moving], right[:moving], film)] if moving else files
    if kind == "maze":
        wrong = (answers != label) & (label != IGNORED)
        shown = images(answers, kind, wrong)
        files = [save_grid(shown[-1], still)]
    else:
        shown = images(np.where(label == IGNORED, IGNORED, answers), kind)
        beside = np.stack([images(x, kind), shown[-1], images(label, kind)], axis=1)
        files = [save_grid(beside.reshape(-1, *beside.shape[2:]), still, columns=3)]
    return [*files, save_denoising(shown, film, moving)] if moving else files
