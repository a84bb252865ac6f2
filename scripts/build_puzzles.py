"""Makes the data of puzzle models, in the layout that dataloaders/puzzles.py reads.

usage: python scripts/build_puzzles.py KIND ... (KIND --help says more)

  sudoku   from files of Sudokus, or made up
  maze     random walls, the answer is a shortest path
  arc      ARC-AGI-1 or 2 with augmentations
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

from runtime.errors import UsageError, closest
from scripts import build_arc, build_mazes, build_sudoku
from scripts.arguments import command

KINDS = {"sudoku": build_sudoku.main, "maze": build_mazes.main, "arc": build_arc.main}


def refuse(arguments: list[str]) -> None:
    """Raises UsageError for a kind that does not exist."""
    raise UsageError(f"there is no kind {arguments[0]!r}; nearest: {closest(arguments[0], list(KINDS))}.")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    if arguments and arguments[0] in KINDS:
        return KINDS[arguments[0]](arguments[1:])
    return command(refuse, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
