"""What all puzzles have in common, whatever they ask."""

from typing import Any

IGNORED = -100  # a label that nothing is asked about (HRM, TRM)


def halts(q: Any, q_continue: bool) -> Any:
    """Which rows (B,) a model stops by its halting logits q (B, 2), NumPy's or MLX's.

    TRM stops where the first logit is positive, HRM (`q_continue`) where it exceeds the second, the gain of going on.
    """
    return q[:, 0] > (q[:, 1] if q_continue else 0)
