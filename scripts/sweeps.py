"""Overrides with several values, in Hydra's grammar, as the spaces of a search."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig

from runtime.errors import UsageError
from scripts.compose import compose, explain, groups, quoted
from training.search.space import Interval


def read_sweeps(overrides: list[str]) -> tuple[dict[str, list | Interval], list[str]]:
    """The sweeps, {key: values}, and the overrides of one value; UsageError for what can't be read or drawn from."""
    parser, space, fixed = OverridesParser.create(), {}, []
    for text in overrides:
        try:
            override = parser.parse_override(quoted(text))
        except HydraException as error:
            raise UsageError(explain(error)) from error
        if not override.is_sweep_override():
            fixed.append(text)
            continue
        sweep: Any = override.value()
        if isinstance(sweep, IntervalSweep):
            low, high = sweep.start, sweep.end
            assert low is not None and high is not None
            whole = isinstance(low, int) and isinstance(high, int)
            values: list | Interval = Interval(low, high, log="log" in sweep.tags, integer=whole)
        elif isinstance(sweep, ChoiceSweep):
            values = [_value(override, element) for element in sweep.list]
        elif isinstance(sweep, RangeSweep):
            values = list(sweep.range())
        else:
            raise UsageError(f"can't search over {text!r}; needed: a list, range(...) or interval(...).")
        space[override.get_key_element()] = values
    return space, fixed


def _value(override: Any, element: Any) -> Any:
    """A number, true or false as it is, everything else as it is written in an override."""
    if isinstance(element, bool | int | float) and not isinstance(element, QuotedString):
        return element
    return override._get_value_element_as_str(element)


def checked(space: dict[str, list | Interval], fixed: list[str]) -> DictConfig:
    """The configuration of the first point; UsageError for a mistake in it or an option that doesn't exist."""
    first = {key: values.low if isinstance(values, Interval) else values[0] for key, values in space.items()}
    config = compose([*fixed, *point_overrides(first)])
    for key in groups():
        swept = space.get(key, [])
        for value in [] if isinstance(swept, Interval) else swept:
            compose([*fixed, *point_overrides({**first, key: value})])
    return config


def point_overrides(values: dict[str, Any]) -> list[str]:
    """A search's parameters as overrides."""
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in values.items()]
