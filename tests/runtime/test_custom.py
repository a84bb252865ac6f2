"""Functions with derivatives of their own: MLX's, whose rules run on the stream of the call."""

from pathlib import Path

import mlx.core as mx
import pytest

from runtime.custom import custom_function

MODELS = Path(__file__).parents[2] / "models"
OTHER = mx.new_thread_local_stream(mx.cpu)
X = mx.array([1.0, 2.0, 3.0])


def now():
    return mx.default_stream(mx.default_device())


def made(kind, seen):
    """x cubed with a vjp, a jvp and a vmap of its own; they note the stream they run on."""

    @kind
    def cubed(x):
        seen.append(("body", now()))
        return mx.stop_gradient(x) ** 3

    @cubed.vjp
    def _(x, cotangent, _output):
        seen.append(("vjp", now()))
        return 3 * x**2 * cotangent

    @cubed.jvp
    def _(x, tangent):
        seen.append(("jvp", now()))
        return 3 * x**2 * tangent

    @cubed.vmap
    def _(x, axis):
        seen.append(("vmap", now()))
        return x**3, axis

    return cubed


@pytest.fixture(autouse=True)
def on_the_cpu():
    with mx.stream(mx.cpu):
        yield


def uses(function):
    """What autodiff makes of it: gradient, tangent, vmap, the gradient of a tangent, all compiled as well."""
    ones = mx.ones_like(X)
    forms = {
        "grad": lambda x: mx.grad(lambda v: function(v).sum())(x),
        "jvp": lambda x: mx.jvp(function, [x], [ones])[1][0],
        "vmap": lambda x: mx.vmap(function)(x),
        "grad of jvp": lambda x: mx.grad(lambda v: mx.jvp(function, [v], [ones])[1][0].sum())(x),
    }
    return {name: (form(X), mx.compile(form)(X)) for name, form in forms.items()}


def test_values_and_derivatives_are_mlxs():
    wanted = {"grad": 3 * X**2, "jvp": 3 * X**2, "vmap": X**3, "grad of jvp": 6 * X}
    for kind in (custom_function, mx.custom_function):
        for name, found in uses(made(kind, [])).items():
            assert all(mx.allclose(one, wanted[name]).item() for one in found), (kind, name)


def test_rules_run_on_the_stream_of_the_call():
    seen = []
    cubed, own = made(custom_function, seen), now()

    def elsewhere(x):
        with mx.stream(OTHER):
            return cubed(x)

    uses(elsewhere)
    with mx.stream(OTHER):
        other = now()
    assert {name for name, _ in seen} == {"body", "vjp", "jvp", "vmap"}
    assert own != other and all(stream == other for _, stream in seen)
    seen.clear()
    uses(cubed)  # the same function here
    assert {name for name, _ in seen} == {"body", "vjp", "jvp", "vmap"} and all(stream == own for _, stream in seen)


def test_an_error_in_a_rule_leaves_the_default_stream():
    @custom_function
    def broken(x):
        return mx.stop_gradient(x)

    @broken.vjp
    def _(_primal, _cotangent, _output):
        raise ValueError("no gradient")

    def elsewhere(x):
        with mx.stream(OTHER):
            return broken(x).sum()

    before = now()
    with pytest.raises(ValueError, match="no gradient"):
        mx.grad(elsewhere)(X)
    assert now() == before


def test_no_model_has_rules_that_change_streams():
    texts = {path.name: path.read_text() for path in MODELS.glob("*.py")}
    assert [name for name, text in texts.items() if "mx.custom_function" in text or "mx.checkpoint" in text] == [
        "checkpointing.py"  # whose docstring says why it is not MLX's
    ]
