"""What all puzzles' labels have in common."""

IGNORED = -100  # a label that nothing is asked about (HRM, TRM)
