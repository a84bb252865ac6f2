"""Which folder may import which, read from the imports themselves."""

import ast
import importlib.util
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SIBLINGS = ("ops", "losses", "models", "solvers", "optimizers", "dataloaders", "evaluation", "visualizers")
FOLDERS = (*SIBLINGS, "domains", "runtime", "training", "traces")
MAY_IMPORT = {
    "runtime": {"runtime"},
    "domains": {"domains", "runtime"},
    **{folder: {folder, "domains", "runtime"} for folder in SIBLINGS},
    "training": {"training", "runtime"},
    "traces": {"traces", "training", "runtime"},
}
ENTRIES = ("visualizers/render.py",)  # commands that stand beside what they draw with; they import as scripts do
TOP = ("launcher", "scripts", "examples", "benchmarks")
ONLY_IN = {
    "hydra": ("launcher.py", "scripts/"),
    "trackio": ("training/tracking.py", "scripts/trackio_delete.py"),
    "matplotlib": ("visualizers/",),
    "modal": ("scripts/remote/modal_backend.py",),
}
HEAVY = {"optuna", "matplotlib", "scipy", "ot", "PIL", "torch", "torchvision", "cleanfid", "modal", "trackio"}
FREE = (
    "scripts/remote/modal_backend.py",
    "training/tracking.py",
    "scripts/trackio_delete.py",
    "benchmarks/augment_fastestimator.py",
    "benchmarks/lenet_fastestimator.py",
    "benchmarks/nets_torch.py",
    "benchmarks/classifiers_torch.py",
    "benchmarks/eis_fit_impedance.py",
    "benchmarks/eis_network_torch.py",
    "benchmarks/eis_train_torch.py",
    "benchmarks/puzzle_step_torch.py",
    "benchmarks/step_torch.py",
)  # they are about a heavy module
LONGEST = 300


@cache
def sources() -> tuple[str, ...]:
    """The repository's Python files outside tests, as paths relative to the root."""
    places = [ROOT / "launcher.py", *(path for folder in (*FOLDERS, *TOP) for path in (ROOT / folder).rglob("*.py"))]
    return tuple(sorted(path.relative_to(ROOT).as_posix() for path in places if path.is_file()))


def imported(nodes) -> set[str]:
    """The top-level names of the packages that import statements among `nodes` name."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: imports are absolute, from the root"
            found.add((node.module or "").split(".")[0])
    return found


def at_import(tree: ast.AST):
    """The nodes that run when the module is imported: everything outside function bodies and TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_import(node)


def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), filename=path)


@pytest.mark.parametrize("path", sources())
def test_imports_respect_the_layering(path):
    tree = parsed(path)
    folder, names = path.split("/")[0], imported(ast.walk(tree))
    ours = names & {*FOLDERS, *TOP}
    above = ours - ({*FOLDERS, *TOP} if path in ENTRIES else MAY_IMPORT.get(folder, {*FOLDERS, *TOP}))
    assert not above, f"{path} imports {sorted(above)}; {folder} may import {sorted(MAY_IMPORT.get(folder, ()))}"
    for package, places in ONLY_IN.items():
        assert package not in names or path.startswith(places), f"{path} imports {package}; only {places} may"
    if folder != "visualizers" and path not in FREE:
        heavy = imported(at_import(tree)) & HEAVY
        assert not heavy, f"{path} imports {sorted(heavy)} at its top: import it inside the function that needs it"


@pytest.mark.parametrize("path", sources())
def test_files_are_short_and_plainly_named(path):
    lines = len((ROOT / path).read_text().splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines; {LONGEST} are allowed"
    words = {word for part in Path(path).with_suffix("").parts for word in part.split("_")}
    assert not words & {"utils", "util", "helpers", "misc", "common"}, f"{path}: name the subject instead"


def test_there_is_no_init_file():
    folders = [ROOT / name for name in (*FOLDERS, *TOP, "configs", "tests")]
    assert not [str(path) for folder in folders for path in folder.rglob("__init__.py")]


@pytest.mark.parametrize("folder", [*FOLDERS, "scripts", "configs"])
def test_folders_resolve_inside_the_repository(folder):
    if not any((ROOT / folder).rglob("*.*")):
        pytest.skip(f"{folder} is empty")
    spec = importlib.util.find_spec(folder)
    assert spec is not None and spec.submodule_search_locations
    assert Path(list(spec.submodule_search_locations)[0]).resolve() == ROOT / folder


def test_the_reader_sees_what_it_must():
    code = "import hydra.core as h\nclass A:\n  import ot\ndef f():\n  from torch import nn\nif h:\n  import PIL.Image"
    tree = ast.parse(code)
    assert imported(ast.walk(tree)) == {"hydra", "ot", "torch", "PIL"}
    assert imported(at_import(tree)) == {"hydra", "ot", "PIL"}
    assert len(sources()) > 10 and "runtime/blas.py" in sources()
