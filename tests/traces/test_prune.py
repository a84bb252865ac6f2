"""A pruned run ends at the value that condemned it, without the evaluation that ends other runs."""

import pytest

from runtime.errors import UsageError
from tests.traces.small import estimator
from traces.evaluation import Evaluation
from traces.prune import Prune
from traces.trace import Trace


class Judged(Evaluation):
    """Counts final judgements."""

    count = 0

    def on_begin(self, data):
        """Nothing to check."""

    def _judge(self, evaluate, draw):
        self.count += 1


@pytest.mark.parametrize("hopeless", [8, None])
def test_a_pruned_run_ends_at_once_and_is_not_judged(hopeless):
    told, judged = [], Judged()

    def report(value, step):
        told.append((value, step))
        return step == hopeless

    trace = Prune(report, "eval/ce")
    trained = estimator([trace, judged], epochs=4)
    summary = trained.fit()
    steps, values = summary.series("eval/ce")
    assert told == list(zip(values, steps, strict=True)) and steps == ([4, 8] if hopeless else [4, 8, 12, 16])
    assert summary.steps == steps[-1] and judged.count == (0 if hopeless else 1) and trace.pruned == bool(hopeless)
    assert summary.reason == (f"pruned: eval/ce={values[-1]:.6g} at step 8" if hopeless else "finished")


def test_only_numbers_can_be_reported():
    class Text(Trace):
        def on_batch_end(self, data):
            self.estimator.log(note="text")

    with pytest.raises(UsageError, match="note='text'"):
        estimator([Prune(lambda value, step: False, "note"), Text()]).fit()
