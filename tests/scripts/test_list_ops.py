"""The generated reference page: that it is current, and what it finds in a small tree."""

import importlib

import pytest

from scripts import list_ops
from scripts.class_index import ROOT

TREE = {
    "runtime/op.py": """
class Op:
    def __call__(self, data):
        return self.forward(data)
    def forward(self, data):
        raise NotImplementedError
class TensorOp(Op):
    pass
""",
    "ops/loss_op.py": """
from runtime.op import TensorOp
class LossOp(TensorOp):
    def __call__(self, data):
        return self.per_sample(data)
    def per_sample(self, data):
        raise NotImplementedError
""",
    "ops/losses/mine.py": '''
from functools import partial
from ops.loss_op import LossOp as Base
class Mine(Base):
    """Squares (Papineni et al. 2002), eq. 8, of (B, C). alpha: ignored.

    More.
    """
    def per_sample(self, data):
        return data
class _Hidden(Mine):
    """No."""
Yours = partial(Mine, alpha=2)
''',
    "ops/tensor/half.py": '''
from runtime.op import TensorOp
class Each(TensorOp):
    """Base."""
    def forward(self, data):
        return self.one(data)
    def one(self, x):
        raise NotImplementedError
class Double(Each):
    """Twice x, (B, ...)."""
    def one(self, x):
        return 2 * x
''',
    "models/layers.py": '''
import mlx.nn as nn
class Dropout(nn.Module):
    """A layer."""
class Unused(nn.Module):
    """Beside one."""
''',
    "models/net.py": '''
import mlx.nn as nn
from models.layers import Dropout
class Block(nn.Module):
    """Inside."""
class Net(nn.Module):
    """A net."""
    def __init__(self):
        self.blocks = [Block(), Dropout()]
class Wide(Net):
    """A wider one."""
''',
    "optimizers/decays.py": '''
def falling(time):
    """The rate at a time."""
def _check(time):
    """No."""
''',
}


@pytest.fixture
def tree(tmp_path):
    for path, text in TREE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.fixture(scope="module")
def entries():
    return [one for ones in list_ops.grouped().values() for one in ones]


def test_the_committed_page_is_current():
    assert list_ops.PAGE.read_text() == list_ops.page(), "docs/reference.md is old: run `python scripts/list_ops.py`"


def test_classes_are_found_by_their_ancestors_and_bases_left_out(tree):
    found = {title: [one.path for one in ones] for title, ones in list_ops.grouped(tree).items()}
    assert found == {
        "Frame": ["ops.loss_op.LossOp", "runtime.op.TensorOp"],
        "Losses": ["ops.losses.mine.Mine", "ops.losses.mine.Yours"],
        "Tensor ops": ["ops.tensor.half.Double"],
        "Schedules": ["optimizers.decays.falling"],
        "Layers and blocks": ["models.net.Block", "models.layers.Dropout", "models.layers.Unused"],
        "Architectures": ["models.net.Net", "models.net.Wide"],
    }


def test_an_entry_is_a_name_an_import_path_and_a_sentence(tree):
    lines = list_ops.page(tree).splitlines()
    assert "## Losses (2)" in lines
    sentence = "Squares (Papineni et al. 2002), eq. 8, of (B, C)."
    assert f"- **Mine** (`ops.losses.mine`): {sentence}" in lines
    assert f"- **Yours** (`ops.losses.mine`): `partial(Mine, alpha=2)`: {sentence}" in lines


def test_what_looks_like_a_tag_is_shown_and_code_stays_as_it_is():
    assert list_ops.untagged("as <mode>/x, `<mode>`, 0 < a <= 1") == "as &lt;mode>/x, `<mode>`, 0 < a <= 1"


def test_every_entry_has_a_sentence_and_what_needs_no_extra_imports(entries):
    assert len(entries) > 250
    for one in entries:
        assert one.sentence.endswith(".") and len(one.sentence) > 3, one.path
    for one in entries:
        if one.module.startswith(("ops.", "traces.", "models.", "optimizers.")):
            assert hasattr(importlib.import_module(one.module), one.name), one.path


def test_all_losses_and_traces_that_python_finds_are_on_the_page(entries):
    listed = {one.path for one in entries}
    for path in (*ROOT.glob("ops/**/*.py"), *ROOT.glob("traces/**/*.py")):
        importlib.import_module(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
    from ops.loss_op import LossOp
    from traces.trace import Trace

    for base in (LossOp, Trace):
        subclasses, left = set(), [base]
        while left:
            new = left.pop().__subclasses__()
            left += new
            subclasses |= {c for c in new if c.__module__.startswith(("ops.", "traces.")) and c.__name__[0] != "_"}
        missing = {f"{c.__module__}.{c.__name__}" for c in subclasses} - listed
        assert missing <= {"traces.metrics.precision_recall.Labelled", "traces.xai.cam.Maps"}, missing
