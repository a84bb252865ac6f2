"""How often something happens, in epochs or steps, and how many of them there are."""

from runtime.errors import UsageError


def in_steps(every: str | int | None, steps_per_epoch: int, name: str) -> int | None:
    """A frequency in steps: "2e" epochs, "500s" or 500 steps, None never; UsageError for anything else."""
    text = str(every)
    if every is None or text == "0":
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in "es" else (text, "s")
    if not number.isdigit() or int(number) < 1:
        raise UsageError(f'{name} must be like "1e" (epochs), "500s" or 500 (steps) or null, got {every!r}.')
    return int(number) * (steps_per_epoch if unit == "e" else 1)


def check_counts(bound: int, **numbers: int | None) -> None:
    """Raises UsageError for a number that is neither None nor a whole one from `bound` on."""
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or number < bound):
            raise UsageError(f"{name} must be a whole number, at least {bound}, or None, got {number!r}.")
