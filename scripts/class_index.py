"""The classes of the repository with their ancestors, read from the sources without importing them."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (
    "runtime", "training", "ops", "dataloaders", "losses", "models", "optimizers", "solvers", "evaluation", "traces",
)  # fmt: skip
Definition = ast.ClassDef | ast.FunctionDef


@dataclass
class Class:
    """A class or a function, or another name for one (`like`), whose `node` is what the name is set to."""

    name: str
    module: str
    node: ast.AST
    bases: list["Class"] = field(default_factory=list)  # of the repository
    outside: list[str] = field(default_factory=list)  # names of the others
    uses: dict[str, "Class"] = field(default_factory=dict)  # what the names of its module mean
    like: "Class | None" = None  # what another name stands for

    @property
    def lineage(self) -> list["Class"]:
        """The class, and those of the repository above it, nearest first."""
        return [self, *(above for base in self.bases for above in base.lineage)]

    def kind(self, name: str) -> bool:
        """Whether it is made of a class of this name."""
        if self.like is not None:
            return self.like.kind(name)
        return any(name == above.name or name in above.outside for above in self.lineage)

    @property
    def is_model(self) -> bool:
        """Whether it is made of one of mlx.nn's classes."""
        if self.like is not None:
            return self.like.is_model
        return any(base.startswith("nn.") for above in self.lineage for base in above.outside)

    @property
    def path(self) -> str:
        """As Python names it."""
        return f"{self.module}.{self.name}"

    @cached_property
    def own(self) -> dict[str, ast.FunctionDef]:
        """The methods of its own body by name."""
        body = self.node.body if isinstance(self.node, ast.ClassDef) else []
        return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}

    def has(self, method: str) -> bool:
        """Whether it has a method, its own or an inherited one."""
        return any(method in above.own for above in self.lineage)

    @cached_property
    def called(self) -> set[str]:
        """The names of what its body calls."""
        return {ast.unparse(node.func) for node in ast.walk(self.node) if isinstance(node, ast.Call)}

    def calls(self, other: "Class") -> bool:
        """Whether its body makes one of another class."""
        return any(self.uses.get(name) is other for name in self.called)

    @property
    def abstract(self) -> bool:
        """Whether a subclass must still give a method: one that only raises, and that what is inherited calls."""
        for depth, above in enumerate(self.lineage):
            given = {name for nearer in self.lineage[:depth] for name in nearer.own}
            for name, method in above.own.items():
                if name in given or "raise NotImplementedError" not in ast.unparse(method.body[-1]):
                    continue
                callers = {other for other, body in above.own.items() if f"self.{name}(" in ast.unparse(body)}
                if not callers or callers - given:
                    return True
        return False

    @property
    def sentence(self) -> str:
        """What the docstring says first; of another name, what it stands for."""
        if self.like is not None:
            return f"`{ast.unparse(self.node)}`: {self.like.sentence}"
        text = ast.get_docstring(self.node) if isinstance(self.node, ast.ClassDef | ast.FunctionDef) else None
        paragraph = " ".join((text or "").split("\n\n")[0].split())
        return re.split(r"(?<=\.) (?=[A-Z`]|\w+(, \w+)*:)", paragraph, maxsplit=1)[0]


def is_class(node: Definition, module: str) -> bool:
    """Whether it is a class, whatever the module."""
    return isinstance(node, ast.ClassDef)


def read(root: Path = ROOT, wanted: Callable[[Definition, str], bool] = is_class) -> list[Class]:
    """The public definitions below `root` that are wanted(node, module), and their other names, in order of modules."""
    trees = {
        path.relative_to(root).with_suffix("").as_posix().replace("/", "."): ast.parse(path.read_text())
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
    }
    found: dict[tuple[str, str], Class] = {}
    for module, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and wanted(node, module):
                found[module, node.name] = Class(node.name, module, node)
    names = {module: dict(_names(module, tree, found)) for module, tree in trees.items()}
    for (module, _), one in found.items():
        one.uses = names[module]
        for base in one.node.bases if isinstance(one.node, ast.ClassDef) else []:
            above = names[module].get(text := ast.unparse(base))
            one.bases += [above] if above else []
            one.outside += [] if above else [text]
    others = [
        Class(name, module, value, like=like)
        for module, tree in trees.items()
        for name, value in _assigned(tree)
        if (like := names[module].get(_stands_for(value))) and like.module.split(".")[0] == module.split(".")[0]
    ]
    return [one for one in (*found.values(), *others) if not one.name.startswith("_")]


def _names(module: str, tree: ast.Module, found: dict[tuple[str, str], Class]) -> Iterator[tuple[str, Class]]:
    """The classes that a module's names mean: its own and those that it imports."""
    yield from ((name, one) for (owner, name), one in found.items() if owner == module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported = ((alias, found.get((node.module or "", alias.name))) for alias in node.names)
            yield from ((alias.asname or alias.name, one) for alias, one in imported if one)


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _stands_for(value: ast.expr) -> str:
    """The class in `Other`, `partial(Other, ...)` and `Other(...)`."""
    if isinstance(value, ast.Call):
        partial = ast.unparse(value.func) == "partial" and value.args
        value = value.args[0] if partial else value.func
    return ast.unparse(value)


def blocks(classes: list[Class]) -> set[str]:
    """The paths of models that others are built of, and of what lies beside those that other files use.

    A model that is built of its file's other classes is none of them, even where another file uses one of these.
    """
    models = [one for one in classes if one.module.startswith("models.") and one.is_model and one.like is None]
    parts = {user.path: [part for part in models if part is not user and user.calls(part)] for user in models}
    used = {part.path for found in parts.values() for part in found}
    shared = {part.module for path, found in parts.items() for part in found if part.module != path.rpartition(".")[0]}
    whole = {path for path, found in parts.items() if any(part.module == path.rpartition(".")[0] for part in found)}
    return used | {one.path for one in models if one.module in shared and one.path not in whole}
