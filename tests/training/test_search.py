"""Searches against closed forms, and what they keep: nothing is evaluated twice, whatever killed them."""

import json
import math
import signal
import subprocess
import sys
import threading
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from runtime.errors import UsageError
from training.estimator import Interrupted
from training.search.golden import GoldenSection
from training.search.grid import GridSearch, RandomSearch
from training.search.search import Search
from training.search.space import Interval

ROOT = Path(__file__).parents[2]


def counted(function):
    """The function of x and the list of x it was called with."""
    calls = []

    def evaluated(search_idx, x):
        calls.append(x)
        return function(x)

    return evaluated, calls


def product(search_idx, a, b):
    return {"product": a * b, "sum": a + b}


def test_a_grid_is_all_combinations_in_order():
    search = GridSearch(product, {"a": [1, -2], "b": [3, 4, 5]}, best_mode="min", optimize_field="product")
    search.fit()
    pairs = [(done["param"]["a"], done["param"]["b"]) for done in search.get_search_summary()]
    assert pairs == [(1, 3), (1, 4), (1, 5), (-2, 3), (-2, 4), (-2, 5)]
    assert [done["param"]["search_idx"] for done in search.get_search_summary()] == [1, 2, 3, 4, 5, 6]
    assert search.get_best_results() == {
        "param": {"a": -2, "b": 5, "search_idx": 6}, "result": {"product": -10, "sum": 3}
    }  # fmt: skip
    assert search.get_best_results("max", "sum")["param"] == {"a": 1, "b": 5, "search_idx": 3}


@pytest.mark.parametrize("best", [-4.9, -1.3, 0.0, 2.71, 4.999])
@pytest.mark.parametrize("iterations", [1, 7, 20])
def test_the_golden_section_finds_a_quadratics_optimum_within_its_bracket(best, iterations):
    for mode, sign in (("min", 1), ("max", -1)):
        function, calls = counted(lambda x, sign=sign: sign * (x - best) ** 2)
        search = GoldenSection(function, -5.0, 5.0, iterations, mode, integer=False)
        search.fit()
        bracket = 10 * ((math.sqrt(5) - 1) / 2) ** iterations
        assert abs(search.get_best_results()["param"]["x"] - best) <= bracket
        assert len(calls) == iterations + 2 == len(set(calls))


def test_the_golden_sections_of_a_logarithm_are_those_of_its_exponent():
    function, calls = counted(lambda x: (math.log10(x) + 3) ** 2)
    GoldenSection(function, 1e-6, 1.0, 12, "min", integer=False, log=True).fit()
    plain, exponents = counted(lambda x: (x + 3) ** 2)
    GoldenSection(plain, -6.0, 0.0, 12, "min", integer=False).fit()
    np.testing.assert_allclose(np.log10(calls), exponents, atol=1e-12)


@pytest.mark.parametrize("width", [1, 2, 5, 20, 37])
def test_the_golden_section_of_whole_numbers_is_exact_for_every_optimum(width):
    for best in range(width + 1):
        function, calls = counted(lambda x, best=best: abs(x - best))
        search = GoldenSection(function, 0, width, 50, "min")
        search.fit()
        assert search.get_best_results()["param"]["x"] == best
        assert len(calls) == len(set(calls)) <= 13 and all(isinstance(x, int) and 0 <= x <= width for x in calls)


def test_random_draws_fill_their_space_and_a_longer_search_begins_with_the_shorter():
    space = {
        "rate": Interval(1e-4, 1, log=True), "size": Interval(2, 5, integer=True), "kind": ["a", "b"],
        "wide": Interval(1, 8, log=True, integer=True),
    }  # fmt: skip
    search = RandomSearch(lambda search_idx, **values: 0, space, 1, seed=3)
    draws = [search.draw(index) for index in range(3000)]
    decades = np.histogram(np.log10([d["rate"] for d in draws]), [-4, -3, -2, -1, 0])[0]
    np.testing.assert_allclose(decades / 3000, 0.25, atol=0.03)
    for name, values in (("size", [2, 3, 4, 5]), ("kind", ["a", "b"])):
        got = [d[name] for d in draws]
        assert set(got) == set(values) and max(map(got.count, values)) < 3000 / len(values) * 1.15
    wide = np.array([d["wide"] for d in draws])
    assert set(wide) == set(range(1, 9))
    share = np.log(8.5 / 7.5) / np.log(8.5 / 0.5)
    assert abs((wide == 8).mean() - share) < 0.02
    seen = []
    for n in (4, 9):
        search = RandomSearch(lambda search_idx, **values: 0, space, n, seed=3)
        search.fit()
        seen.append([done["param"] for done in search.get_search_summary()])
    assert seen[1][:4] == seen[0] and len(seen[1]) == 9
    assert RandomSearch(lambda search_idx, **values: 0, space, 1, seed=4).draw(0) != draws[0]


CHILD = """
import json, os, signal, sys
from pathlib import Path
from training.search.{module} import {kind}

folder, killed = Path(sys.argv[1]), int(sys.argv[2])

def evaluated(search_idx, x):
    with (folder / "calls").open("a") as calls:
        calls.write(f"{{search_idx}} {{x}}\\n")
    if search_idx == killed:
        os.kill(os.getpid(), signal.SIGKILL)
    if search_idx == 2:
        raise ValueError("the second fails")
    return {{"loss": (x - 3) ** 2, "curve": [x, x / 3]}}

search = {kind}(evaluated, {arguments}, best_mode="min", optimize_field="loss")
search.fit(folder)
print(json.dumps(search.get_search_summary()))
"""


@pytest.mark.parametrize(
    ("module", "kind", "arguments"),
    [
        ("grid", "GridSearch", '{"x": [5, 4, 3, 2, 1, 0]}'),
        ("grid", "RandomSearch", '{"x": range(1000)}, 9, seed=1'),
        ("golden", "GoldenSection", "0.0, 10.0, 6, integer=False"),
    ],
    ids=["grid", "random", "golden"],
)
def test_a_killed_search_goes_on_where_it_was(module, kind, arguments, tmp_path):
    code = CHILD.format(module=module, kind=kind, arguments=arguments)

    def searched(folder, killed):
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", code, folder, str(killed)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    whole = searched(tmp_path / "whole", 0)
    assert searched(tmp_path / "parts", 4).returncode == -signal.SIGKILL
    resumed = searched(tmp_path / "parts", 0)
    assert whole.returncode == resumed.returncode == 0, whole.stderr + resumed.stderr
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]
    assert "the second fails" in json.loads(whole.stdout.splitlines()[-1])[1]["error"]
    once = (tmp_path / "whole" / "calls").read_text().splitlines()
    assert len(set(once)) == len(once) >= 6
    assert (tmp_path / "parts" / "calls").read_text().splitlines() == [*once[:4], *once[3:]]  # the killed one again
    files = [next((tmp_path / part).glob("*.json")).read_text() for part in ("whole", "parts")]
    assert files[0] == files[1] and not list((tmp_path / "parts").glob(".*"))


def test_equal_parameters_cost_one_evaluation():
    calls = []

    def evaluated(search_idx, x, y):
        calls.append((x, y))
        return 1.0

    search = Search(evaluated)
    assert search.evaluate(x=[1, 2], y=3) == search.evaluate(y=3, x=(1, 2)) == {"value": 1.0}
    search.evaluate(x=np.array([1, 2]), y=np.int64(3))
    assert calls == [([1, 2], 3)]


def test_failures_are_kept_and_count_as_worst_and_can_be_tried_again(tmp_path):
    broken = True

    def evaluated(search_idx, x):
        if broken and x > 2:
            raise ValueError("too large")
        return math.nan if x == 0 else x

    search = GridSearch(evaluated, {"x": [0, 1, 2, 3]}, best_mode="max")
    search.fit(tmp_path)
    assert search.get_best_results()["param"]["x"] == 2
    assert search.get_search_summary()[3] == {"param": {"x": 3, "search_idx": 4}, "error": "ValueError: too large"}
    broken = False
    search.fit(tmp_path)
    assert len(search.get_search_summary()) == 4 and search.get_best_results()["param"]["x"] == 2
    search.fit(tmp_path, retry_failed=True)
    assert search.get_best_results()["param"] == {"x": 3, "search_idx": 5}
    golden = GoldenSection(lambda search_idx, x: 1 / 0 if x > 5 else (x - 4) ** 2, 0, 13, 20, "min")
    golden.fit()
    assert golden.get_best_results()["param"]["x"] == 4


def test_a_signal_ends_the_search_and_leaves_no_record(tmp_path):
    def evaluated(search_idx, x):
        raise Interrupted(15)

    search = GridSearch(evaluated, {"x": [1]})
    with pytest.raises(Interrupted):
        search.fit(tmp_path)
    kept = json.loads((tmp_path / "grid_search.json").read_text())
    assert search.get_search_summary() == [] == kept["search_summary"]
    assert kept["begun"] == [{"x": 1, "search_idx": 1}]


def test_evaluations_at_once_are_those_in_turn():
    together = threading.Barrier(3, timeout=20)

    def evaluated(search_idx, x):
        together.wait()  # passes only if three are at it
        if x == 4:
            raise ValueError("the fourth fails")
        return x * x

    found = []
    for jobs, function in ((3, evaluated), (1, lambda search_idx, x: 1 / 0 if x == 4 else x * x)):
        search = GridSearch(function, {"x": [1, 2, 3, 4, 5, 6]}, "min")
        search.fit(jobs=jobs)
        summary = search.get_search_summary()
        assert [done["param"]["search_idx"] for done in summary] == [1, 2, 3, 4, 5, 6]
        found.append({done["param"]["x"]: done.get("result") for done in summary})
    assert found[0] == found[1] and found[0][4] is None
    with pytest.raises(UsageError, match="needs the one before, got 2"):
        GoldenSection(lambda search_idx, x: x, 0, 9, 3, "min").fit(jobs=2)


def test_equal_points_at_once_are_evaluated_once_and_a_signal_keeps_its_number(tmp_path):
    calls, second = [], threading.Event()

    def evaluated(search_idx, x):
        calls.append((search_idx, x))
        if x == 1 and len(calls) < 3:
            assert second.wait(20)
            raise Interrupted(15)
        second.set()
        return x

    with pytest.raises(Interrupted):
        GridSearch(evaluated, {"x": [1, 2]}).fit(tmp_path, jobs=2)
    search = GridSearch(evaluated, {"x": [1, 2, 3]})
    search.fit(tmp_path, jobs=2)
    number = {x: index for index, x in calls}
    assert sorted(calls) == sorted([(number[1], 1)] * 2 + [(number[2], 2), (3, 3)])
    assert {number[1], number[2]} == {1, 2} and len(search.get_search_summary()) == 3

    slow, count = threading.Event(), []

    def once(search_idx, x):
        count.append(search_idx)
        slow.wait(0.2)
        return x

    twice = GridSearch(once, {"x": [7, 7]})
    twice.fit(jobs=2)
    assert count == [1] and len(twice.get_search_summary()) == 1


def test_load_brings_back_results_mode_and_field(tmp_path):
    def arrays(search_idx, x):
        return {"loss": mx.array(2.0) * x, "curve": np.arange(2), "kind": "a"}

    GridSearch(arrays, {"x": [3, 1]}, "min", "loss", name="mine").fit(tmp_path)
    other = Search(arrays, name="mine")
    other.load(tmp_path)
    assert other.get_best_results() == {
        "param": {"x": 1, "search_idx": 2}, "result": {"loss": 2.0, "curve": [0, 1], "kind": "a"}
    }  # fmt: skip


def test_mistakes_are_told(tmp_path):
    def told(call, *words):
        with pytest.raises(UsageError) as error:
            call()
        assert all(word in str(error.value) for word in words), error.value

    def bowl(search_idx, x):
        return {"loss": x, "note": "text"}

    told(lambda: GridSearch(lambda x: x, {"x": [1]}), "search_idx", "it takes x")
    told(lambda: GridSearch(bowl, {"y": [1]}), "'y'", "it takes x")
    told(lambda: GridSearch(bowl, {"x": "abc"}), "x needs a list", "'abc'")
    told(lambda: GridSearch(bowl, {"x": []}), "at least one value")
    told(lambda: GridSearch(bowl, {"x": [1]}, best_mode="best"), "min or max", "'best'")
    told(lambda: RandomSearch(bowl, {"x": [1]}, 0), "n must be at least 1, got 0")
    told(lambda: Interval(2, 1), "low < high", "2 and 1")
    told(lambda: Interval(0, 1, log=True), "low > 0")
    told(lambda: Interval(0.5, 3, integer=True), "whole ends")
    told(lambda: GoldenSection(bowl, 3, 3, 5, "min"), "x_min < x_max", "3 and 3")
    told(lambda: GoldenSection(bowl, 0.5, 3, 5, "min"), "whole numbers")
    told(lambda: GoldenSection(bowl, 0, 3, 0, "min"), "max_iter", "got 0")
    told(lambda: GoldenSection(product, 0, 3, 5, "min"), "one argument", "a, b")
    told(lambda: GridSearch(bowl, {"x": [print]}).fit(), "numbers, texts", "print")
    search = GridSearch(bowl, {"x": [1]}, "min")
    told(search.get_best_results, "evaluated nothing")
    search.fit()
    told(search.get_best_results, "loss, note", "None")
    told(lambda: search.get_best_results(optimize_field="note"), "must name a number", "'text'")
    told(lambda: search.get_best_results(optimize_field="los"), "'los'", "loss, note")
    broken = GridSearch(lambda search_idx, x: 1 / 0, {"x": [1]}, "min")
    broken.fit()
    told(broken.get_best_results, "none of the 1", "ZeroDivisionError")
    told(lambda: search.load(tmp_path), "there is no search file", "grid_search.json")
    (tmp_path / "grid_search.json").write_text('{"search_summary"')
    told(lambda: search.fit(tmp_path), "not JSON")
    (tmp_path / "grid_search.json").write_text('{"search_summary": [{}]}')
    told(lambda: search.fit(tmp_path), "needs a list search_summary")
