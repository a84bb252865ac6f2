"""That docstrings say what shapes go in and come out."""

import ast
import re

import pytest

from scripts.class_index import ROOT
from scripts.list_ops import grouped

FOLDERS = ("ops", "traces", "dataloaders", "training", "models")
# (B, ...), (N, C), (...), (H, W, C): the first axis is a capital letter or dots
SHAPE = re.compile(r"\((?:\.\.\.|[A-Z]'?)(?:,[^()]*)?\)")
# in functions also (size, old) and words: of x's shape, 0-d, elementwise
NAMED = r"\([\w' +*/-]+(?:\([^()]*\))?,(?:[^()]|\([^()]*\))*\)"
ANY_SHAPE = re.compile(rf"{SHAPE.pattern}|{NAMED}|\bshapes?\b|\b0-d\b|\belementwise\b")
IN_CLASS = ("Losses", "Augmentations on the device", "Tensor ops", "Metrics")
IN_METHODS = ("Layers and blocks", "Architectures")
GROUPED = grouped()
ENTRIES = [one for title in IN_CLASS for one in GROUPED.get(title, []) if isinstance(one.node, ast.ClassDef)]
MODELS = [one for title in IN_METHODS for one in GROUPED.get(title, []) if isinstance(one.node, ast.ClassDef)]


def doc(node) -> str:
    return ast.get_docstring(node) or ""


@pytest.mark.parametrize("one", ENTRIES, ids=[one.path for one in ENTRIES])
def test_ops_losses_and_metrics_name_the_shapes_they_take(one):
    assert SHAPE.search(doc(one.node)), f"{one.path}: say in its docstring what shape it takes, such as (B, ...)"


@pytest.mark.parametrize("one", MODELS, ids=[one.path for one in MODELS])
def test_models_name_the_shapes_of_their_call(one):
    calls = [above.own["__call__"] for above in one.lineage if "__call__" in above.own]
    texts = [doc(above.node) for above in one.lineage[:2]] + [doc(call) for call in calls]
    assert any(SHAPE.search(text) for text in texts), f"{one.path}: say what shapes __call__ takes and gives"


def is_array(node: ast.expr | None) -> bool:
    """Whether an annotation is an array, an array or None, or a tuple of such."""
    text = "" if node is None else ast.unparse(node).replace(" | None", "").removeprefix("tuple[")
    return text.startswith(("mx.array", "np.ndarray"))


def functions() -> list[tuple[str, ast.FunctionDef, str]]:
    """Public functions that take or give arrays: where, what, and their module's docstring."""
    found = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                if any(map(is_array, [*(a.annotation for a in node.args.args), node.returns])):
                    found.append((f"{path.relative_to(ROOT)}:{node.name}", node, doc(tree)))
    return found


FUNCTIONS = functions()


@pytest.mark.parametrize(("node", "module"), [f[1:] for f in FUNCTIONS], ids=[f[0] for f in FUNCTIONS])
def test_functions_of_arrays_name_shapes(node, module):
    told = SHAPE.search(module)  # for all functions of the file
    assert told or ANY_SHAPE.search(doc(node)), f"{node.name}: say what shapes it takes and gives, such as (B, ...)"


def test_every_public_class_and_function_begins_with_one_sentence():
    short = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and (text := doc(node)):
                first = text.split("\n\n")[0]
                if not first.rstrip().endswith((".", "!", "?", ":")):
                    short.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert not short, f"no sentence ends the first paragraph of {short}"


def test_what_counts_as_a_shape():
    for good in ("(B, ...)", "(N, C)", "(B,)", "(...)", "(..., C)", "(H, W, C)", "(B, T', C)"):
        assert SHAPE.search(f"x {good}.") and ANY_SHAPE.search(f"x {good}."), good
    for bad in ("(arXiv 1412.6572, section 4)", "(Wen et al., ECCV 2016)", "(degrees)", "f(x, y)", "(x, y)"):
        assert not SHAPE.search(bad), bad
