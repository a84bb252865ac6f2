"""Troubleshooting has an entry for everything that the doctor can say, read from the doctor's own source."""

import ast
import re
import tomllib
from pathlib import Path

from scripts import doctor

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
TEXT = " ".join(PAGE.replace("**", "").replace("`", "").split())
HEADINGS = {
    name for line in re.findall(r"^## Doctor: (.*)$", PAGE, re.MULTILINE) for name in re.findall(r"`(.*?)`", line)
}
SHORTEST = 8  # characters of a fragment worth looking for


def constants(node: ast.AST) -> list[str]:
    """The texts in an expression, those of f-strings in pieces."""
    found = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return [text for text in found if len(text.strip()) >= SHORTEST]


def calls(path: str, name: str) -> list[ast.Call]:
    tree = ast.parse((ROOT / path).read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name]


def assigned(path: str, name: str) -> list[ast.AST]:
    """What is assigned to a name anywhere in a file, also as one of a pair."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Assign):
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id == name:
                found.append(node.value)
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                names = [part.id for part in target.elts if isinstance(part, ast.Name)]
                found += [node.value.elts[names.index(name)]] if name in names else []
    return found


def test_every_line_of_the_report_has_a_heading(monkeypatch):
    monkeypatch.setattr(doctor, "SIDE", 64)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {"python", *(re.split(r"[^\w-]", line)[0] for line in project["dependencies"])}
    said = {finding.name for finding in doctor.examine()} - packages
    said |= {str(c.args[0].value) for c in calls("scripts/doctor.py", "Finding") if isinstance(c.args[0], ast.Constant)}
    said -= {"python"}
    assert len(said) > 10
    assert said - HEADINGS == set()


def test_every_remedy_is_on_the_page():
    remedies = [text for node in assigned("scripts/doctor.py", "remedy") for text in constants(node)]
    for call in calls("scripts/doctor.py", "Finding"):
        remedies += [text for argument in call.args[2:3] for text in constants(argument)]
    for call in calls("runtime/blas.py", "Status"):
        remedies += [text for argument in call.args[2:3] for text in constants(argument)]
    for name in ("remedy", "INSTALL"):
        remedies += [text for node in assigned("runtime/blas.py", name) for text in constants(node)]
    assert len(remedies) > 8 and any("XDG_CACHE_HOME" in text for text in remedies)
    assert [text for text in remedies if " ".join(text.split()) not in TEXT] == []


def test_what_the_memory_and_the_compiler_say_is_on_the_page():
    for path in ("runtime/heap.py", "runtime/jit.py"):
        tree = ast.parse((ROOT / path).read_text())
        said = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
        texts = [text for node in said if isinstance(node, ast.Constant) for text in constants(node)]
        assert texts and [text for text in texts if " ".join(text.split()) not in TEXT] == []
