"""Models that declare independent rows have them: a row of what they give is that of the row alone."""

import ast
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from models import cvae, dcgan, segmentation_unet
from models.cnn import SmallCNN
from models.dit import DiT
from models.gpt import GPT
from models.imf_dit import IMFDiT
from models.lenet import LeNet
from models.mlp import MLP, ResidualMLP
from models.resnet9 import ResNet9
from models.seq2seq import Transformer
from models.siamese import SiameseEncoder, SiameseNetwork
from models.song_unet import SongUNet
from models.unet import UNet
from models.vit import ViT
from models.wide_resnet import WideResidualNetwork
from runtime.streams import independent
from runtime.trees import leaves
from tests.models.parity import filled, given

IMAGE, SMALL = (8, 8, 2), {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [8], "classes": 4}
TIMED = {"x": IMAGE, "times": (2,), "label": 4}
# the model without dropout; its arguments in order: the shape of a row, or how many tokens there are
CASES = {
    "MLP": (lambda: MLP([3], hidden=8, classes=4), {"x": (3,), "times": (2,), "label": 4}),
    "ResidualMLP": (lambda: ResidualMLP([3], width=8, classes=4), {"x": (3,), "times": (2,), "label": 4}),
    "SmallCNN": (lambda: SmallCNN(IMAGE, channels=8, blocks=2, classes=4), TIMED),
    "UNet": (lambda: UNet(IMAGE, **SMALL), TIMED),
    "SongUNet": (lambda: SongUNet(IMAGE, dropout=0, augment=[0, 2], **SMALL), {**TIMED, "augment": (9,)}),
    "DiT": (lambda: DiT(IMAGE, hidden=16, depth=2, heads=2, classes=4), TIMED),
    "IMFDiT": (lambda: IMFDiT(IMAGE, hidden=16, depth=2, heads=2, head_depth=1, classes=4),
               {**TIMED, "guidance": (), "interval": (2,)}),
    "ViT": (lambda: ViT(IMAGE, classes=3, patch=4, hidden=16, depth=2, heads=2), {"x": IMAGE}),
    "GPT": (lambda: GPT(11, context=8, hidden=16, depth=2, heads=2), {"tokens": (5, 11)}),
    "Transformer": (lambda: Transformer(11, 13, 16, 2, 4, 24, dropout=0, context=12),
                    {"source": (6, 11), "target": (5, 13)}),
    "LeNet": (lambda: LeNet((18, 18, 1)), {"x": (18, 18, 1)}),
    "ResNet9": (lambda: ResNet9((16, 16, 3), channels=4), {"x": (16, 16, 3)}),
    "WideResidualNetwork": (lambda: WideResidualNetwork(depth=10, widen_factor=1), {"x": (8, 8, 3)}),
    "segmentation UNet": (lambda: segmentation_unet.UNet((16, 16, 1), channels=4), {"x": (16, 16, 1)}),
    "AttentionUNet": (lambda: segmentation_unet.AttentionUNet((16, 16, 1), channels=4), {"x": (16, 16, 1)}),
    "SiameseEncoder": (lambda: SiameseEncoder((66, 65, 1), 8, 4), {"x": (66, 65, 1)}),
    "SiameseNetwork": (lambda: SiameseNetwork((66, 65, 1), 8, 4), {"first": (66, 65, 1), "second": (66, 65, 1)}),
    "Generator": (lambda: dcgan.Generator((8, 8, 1), noise=5, channels=8), {"z": (5,)}),
    "Discriminator": (lambda: dcgan.Discriminator((8, 8, 1), channels=4, dropout=0), {"x": (8, 8, 1)}),
    "cvae Encoder": (lambda: cvae.Encoder((8, 8, 1)), {"x": (8, 8, 1)}),
    "cvae Decoder": (lambda: cvae.Decoder((8, 8, 1)), {"z": (2,)}),
}  # fmt: skip
BATCHED = {"ResNet9", "WideResidualNetwork", "AttentionUNet", "Generator"}  # they have BatchNorm


def argument(name, kind, rows=3):
    """Numbers in [-1, 1], labels or rows of tokens; guidance at least 1, an interval in order."""
    if isinstance(kind, int):
        return mx.array([0, kind - 1, -1][:rows])
    if name in ("tokens", "source", "target"):
        return (mx.abs(given(name, (rows, kind[0]))) * kind[1]).astype(mx.int32)
    x = given(name, (rows, *kind))
    return {"guidance": mx.abs(x) + 1, "interval": mx.sort(mx.abs(x), axis=-1)}.get(name, x)


@pytest.mark.parametrize("case", CASES)
def test_rows_alone_give_what_they_give_together(case):
    build, kinds = CASES[case]
    model = filled(build())
    assert independent(model)
    given = {name: argument(name, kind) for name, kind in kinds.items()}
    together = model(**given, key=mx.random.key(0)) if "times" in kinds else model(**given)
    for i in range(3):
        alone = model(**{name: array[i : i + 1] for name, array in given.items()})
        for (_, one), (_, all_) in zip(leaves([alone]), leaves([together]), strict=True):
            scale = float(mx.abs(all_).max())
            assert scale > 1e-3 and len(all_) == 3
            np.testing.assert_allclose(np.array(one[0]), np.array(all_[i]), atol=2e-5 * scale, rtol=0)
    changed = model(**{name: mx.concatenate([array[:2], array[:1]]) for name, array in given.items()})
    assert any(not mx.allclose(a[2], b[2], atol=1e-4).item()
               for (_, a), (_, b) in zip(leaves([changed]), leaves([together]), strict=True))  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_in_training_batch_norm_lets_rows_meet(case):
    assert independent(CASES[case][0]().train()) == (case not in BATCHED)


def test_dropout_lets_them_draw_together():
    for model in (ViT(IMAGE, patch=4, hidden=16, depth=1, heads=2, dropout=0.1), dcgan.Discriminator((8, 8, 1))):
        assert not independent(model.train()) and independent(model.train(False))


def test_every_class_that_declares_independent_rows_is_here():
    declared = set()
    for path in (Path(__file__).parents[2] / "models").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and "independent_rows = True" in map(ast.unparse, node.body):
                declared.add((path.stem, node.name))
    tested = {type(build()) for build, _ in CASES.values()}
    assert declared and declared <= {(kind.__module__.removeprefix("models."), kind.__name__) for kind in tested}
