"""Runs the pages of docs/: a page's ```bash and ```python blocks in its order, in a folder of their own.

A comment directly above a block says how: `<!-- test: WORD ... -->` with
  with A B     every python command of the block gets these arguments too: small settings
  compose      nothing is trained: configurations are composed, arguments read, files looked up (a long command)
  fails        every command must end with status 2, and its message must be the ```text block that follows
A ```text block without a comment is an example of output and isn't looked at. A block with a title,
```python title="mine.py", is a file: it is written, not run.
"""

import argparse
import ast
import contextlib
import io
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import scripts.arguments
import scripts.processes
import training.checkpoint
import training.experiment

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"(?:^<!-- test: (?P<mark>[^\n]*?) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
QUICK = ["trackio.enabled=false", "compile=false"]  # the dashboard takes a second of every run, a new graph several
LINKED = ("launcher.py", "scripts", "examples", "visualizers", "benchmarks", "docs", "tests")  # what commands name


class Composed(BaseException):
    """Raised where a command would begin its work; no `except Exception` on the way may hold it."""


@dataclass
class Block:
    """One fenced block: its language, text, first line's number, the test's words and the file it is, if any."""

    language: str
    text: str
    line: int
    mark: list[str]
    title: str | None

    @property
    def commands(self) -> list[str]:
        """The lines of a bash block, continued ones joined, without comments and blanks."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page's text."""
    return [
        Block(found["language"], found["text"], page.count("\n", 0, found.start("language")) + 1,
              (found["mark"] or "").split(), found["title"])
        for found in FENCE.finditer(page)
    ]  # fmt: skip


def prepare(folder: Path) -> None:
    """Makes the folder look like the repository to a command: scripts are there, data aren't; configs/ may grow."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "configs", folder / "configs")


def run_page(path: Path) -> None:
    """Runs a page in the current folder; an AssertionError names the line and command that failed."""
    found, names = blocks(path.read_text()), {"__name__": "__page__"}
    for number, block in enumerate(found):
        after = found[number + 1] if number + 1 < len(found) else None
        where = f"{path.name}, line {block.line}"
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text)
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(path), "exec"), names)
        elif block.language == "bash":
            for command in block.commands:
                told = executed(command, block.mark, where)
                if block.mark == ["fails"]:
                    assert after is not None and after.language == "text", f"{where}: no ```text block with the message"
                    assert after.text.strip() in told, f"{where}: {command}\nsays {told}not\n{after.text}"


def executed(command: str, mark: list[str], where: str) -> str:
    """Runs one command as `mark` says; returns what it told on stderr."""
    words = shlex.split(command, comments=True)
    if mark == ["compose"] or words[0] != "python":
        check(command)
        return ""
    assert mark[:1] in ([], ["with"], ["fails"]), f"{where}: unknown words in its comment: {' '.join(mark)}"
    status, told = run(with_settings(words[1:], mark[1:]))
    assert status == (2 if mark == ["fails"] else 0), f"{where}: {command}\nended with status {status}: {told}"
    return told


def with_settings(words: list[str], settings: list[str]) -> list[str]:
    """A command's words with more of them; Hydra's come before its first flag, for it reads overrides in one piece."""
    if words[0] != "launcher.py" or "--backend" in words:
        return [*words, *settings]
    place = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return [*words[:place], *QUICK, *settings, *words[place:]]


def run(words: list[str]) -> tuple[int, str]:
    """The exit status and stderr of `python WORDS`, in this process: MLX is imported once for all commands."""
    told = io.StringIO()
    places = [str((ROOT / words[0]).parent), str(Path.cwd())]  # where Python looks first for a script's imports
    with patch.object(sys, "argv", words), patch.object(sys, "path", [*places, *sys.path]):
        with contextlib.redirect_stderr(told):
            try:
                runpy.run_path(words[0], run_name="__main__")
            except SystemExit as end:
                return int(end.code or 0), told.getvalue()
    return 0, told.getvalue()


def check(command: str) -> None:
    """Raises AssertionError unless the command could start: its configuration composes, its arguments are known."""
    program, *words = shlex.split(command, comments=True)
    if program == "python":
        composes(words, command)
    elif program == "pytest":
        files = [word.partition("::")[0] for word in words if word.startswith("tests/")]
        assert files, f"{command}: no test is named"
        assert all(list(ROOT.glob(file.rstrip("/"))) for file in files), f"{command}: no such test"
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets), f"{command}: the Makefile has {', '.join(targets)}"
    elif program == "pip":
        known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
        extras = {name for word in words for name in (re.findall(r"\.\[(.*)\]", word) or [""])[0].split(",") if name}
        assert words[:2] == ["install", "-e"] and extras <= known, f"{command}: the extras are {', '.join(known)}"
    elif program == "bash":
        assert (ROOT / words[0]).is_file(), f"{command}: there is no {words[0]}"
    elif program == "export":
        assert re.fullmatch(r"MLX_\w+=\S+", words[0]) and len(words) == 1, f"{command}: not one setting of MLX"
    else:
        assert [program, *words][:2] in (["trackio", "show"], ["modal", "token"]), f"can't check: {command}"


def composes(words: list[str], command: str) -> None:
    """Runs a python command up to the point where its arguments are read and its configuration is composed."""

    def stop(*args, **kwargs):
        raise Composed

    def then_stop(self, *args, parse=argparse.ArgumentParser.parse_args):
        parse(self, *args)
        raise Composed

    assert (ROOT / words[0]).is_file(), f"{command}: there is no {words[0]}"
    if words[0] == "scripts/run_estimator.py":
        return takes(Path(words[2]), [word for word in words[3:] if word.startswith("--")], command)
    if words[0].startswith("examples/"):
        assert len(words) == 1, f"{command}: run by itself an example takes no arguments"
        return None
    with (
        patch.object(training.experiment, "build", stop),  # what assemble, and all that opens a run, begins with
        patch.object(training.checkpoint, "find", stop),
        patch.object(scripts.processes, "together", stop),
        patch.object(scripts.arguments.OmegaConf, "to_object", stop),  # the last line of `parse`
        patch.object(argparse.ArgumentParser, "parse_args", then_stop),
    ):
        try:
            status, told = run(words)
        except Composed:
            return
    assert status == 0, f"{command}\nended with status {status}: {told}"


def takes(file: Path, options: list[str], command: str) -> None:
    """Raises AssertionError unless an example's get_estimator has these arguments; its data may be missing here."""
    named = ast.walk(ast.parse(file.read_text()))
    makers = [node for node in named if isinstance(node, ast.FunctionDef) and node.name == "get_estimator"]
    arguments = {f"--{argument.arg}" for maker in makers for argument in maker.args.args}
    assert makers and set(options) <= arguments, f"{command}: get_estimator takes {', '.join(sorted(arguments))}"
