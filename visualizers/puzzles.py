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
        found = self.answers(run)
        return drawn(*found, Path(folder) / name, self.moving) if found else []

    def answers(self, run: Run) -> tuple[str, np.ndarray, np.ndarray, np.ndarray] | None:
        """The kind of held-out puzzles, x (N, S), answers (T, N, S) and labels (N, S); None without held-out ones."""
        source = run.pipeline.sources.get("eval", ())
        if not len(source):
            return None
        rows = np.linspace(0, len(source) - 1, min(self.puzzles, len(source))).round().astype(int)
        batch = source.take(rows, np.random.default_rng(0))
        objective: Any = run.objective
        given = {key: mx.array(value) for key, value in batch.items()}
        answers = np.stack([np.array(found) for found, *_ in objective.rollout(run.model, given)])
        kind = self.kind or kind_of(run.pipeline.shape[0], run.pipeline.classes)
        return kind, batch["x"], answers, batch["label"]


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
    files = [draw_answers(kind, x, answers, label, still)]
    return [*files, animate(kind, x, answers, label, film, moving)] if moving else files


def draw_answers(kind: str, x: np.ndarray, answers: np.ndarray, label: np.ndarray, path: Path) -> Path:
    """The last answers as a picture; arrays as for `drawn`."""
    if kind == "sudoku":
        grids, found, right = digits(x, answers[-1], label)
        return save_sudokus(grids, found, right, path)
    if kind == "maze":
        return save_grid(images(answers[-1], kind, (answers[-1] != label) & (label != IGNORED)), path)
    shown = images(np.where(label == IGNORED, IGNORED, answers[-1]), kind)
    beside = np.stack([images(x, kind), shown, images(label, kind)], axis=1)
    return save_grid(beside.reshape(-1, *beside.shape[2:]), path, columns=3)


def animate(kind: str, x: np.ndarray, answers: np.ndarray, label: np.ndarray, path: Path, moving: int = 4) -> Path:
    """How the answers to the first `moving` puzzles come about, as a film; arrays as for `drawn`."""
    x, answers, label = x[:moving], answers[:, :moving], label[:moving]
    if kind == "sudoku":
        grids, found, right = digits(x, answers, label)
        return animate_sudokus(grids, found, right, path)
    wrong = (answers != label) & (label != IGNORED) if kind == "maze" else None
    seen = answers if kind == "maze" else np.where(label == IGNORED, IGNORED, answers)
    return save_denoising(images(seen, kind, wrong), path, moving)


def digits(*tokens: np.ndarray) -> list[np.ndarray]:
    """Tokens of Sudokus as digits, 0 for a blank."""
    return [np.maximum(part, 1).astype(np.uint8) - 1 for part in tokens]
