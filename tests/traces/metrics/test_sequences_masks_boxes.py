"""BLEU, Dice and mean average precision against other packages' numbers and closed forms."""

import numpy as np
import pytest

from runtime.errors import UsageError
from tests.traces.metrics.by_batches import measured, one_hot
from traces.metrics.bleu import BleuScore
from traces.metrics.dice import Dice
from traces.metrics.mean_average_precision import MeanAveragePrecision

# nltk's corpus_bleu with method 4 and equal weights up to 1-, 2-, 3-, 4-grams
BLEU = [0.44804929120017306, 0.32461796264379994, 0.257720718188559, 0.21298335084126313]
SMOOTHED = [0.4583333333333333, 0.3027650354097492, 0.12210990738369754, 0.07007299469204567]


def sentences():
    rng = np.random.default_rng(0)
    true, lengths = rng.integers(1, 7, (9, 12)), rng.integers(4, 13, 9)
    pred = np.where(rng.random((9, 12)) < 0.7, true, rng.integers(1, 7, (9, 12)))
    for row, (known, found) in enumerate(zip(lengths, rng.integers(3, 13, 9), strict=True)):
        true[row, known:] = pred[row, found:] = 0
    return true, pred


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_bleu_is_nltks(n):
    true, pred = sentences()
    for encode in (lambda t: t, lambda t: one_hot(t, 7)):
        got = measured(BleuScore("y", "p", n_gram=n), encode(true), encode(pred), sizes=(3, 5))
        assert got["bleu_score"] == pytest.approx(BLEU[n - 1], rel=1e-12)
    true = [[22, 24, 28, 15, 16, 29], [15, 6, 8, 28, 2, 24], [19, 14, 25, 24, 13, 18], [23, 19, 15, 27, 26, 2]]
    pred = [[22, 24, 29, 15, 2, 5], [15, 6, 11, 10, 4, 21], [19, 14, 22, 15, 20, 23], [23, 19, 2, 17, 8, 6]]
    got = measured(BleuScore("y", "p", n_gram=n), np.array(true), np.array(pred), sizes=(3,))
    assert got["bleu_score"] == pytest.approx(SMOOTHED[n - 1], rel=1e-12)


def test_bleu_of_equals_and_of_strangers():
    true, _ = sentences()
    assert measured(BleuScore("y", "p"), true, true)["bleu_score"] == pytest.approx(1.0)
    assert measured(BleuScore("y", "p"), true, np.where(true > 0, true + 10, 0))["bleu_score"] == 0.0
    assert measured(BleuScore("y", "p"), true, np.zeros_like(true))["bleu_score"] == 0.0


def masks(rows=11):
    rng = np.random.default_rng(4)
    true = (rng.random((rows, 6, 5, 3)) < 0.4).astype(np.float32)
    pred = rng.random(true.shape).astype(np.float32)
    true[2, ..., 1] = 0
    pred[2, ..., 1] *= 0.5  # empty in both
    true[3, ..., 0] = 0  # empty in one
    return true, pred


def by_hand(true, pred):
    """Image by image and channel by channel, as sets of pixels."""
    channels = []
    for c in range(true.shape[-1]):
        found = []
        for t, p in zip(true[..., c], pred[..., c], strict=True):
            a, b = set(np.flatnonzero(t)), set(np.flatnonzero(p > 0.5))
            if a or b:
                found.append(2 * len(a & b) / (len(a) + len(b)))
        channels.append((np.mean(found), np.std(found)))
    return channels


def test_dice_is_the_overlap_of_sets():
    true, pred = masks()
    expected = by_hand(true, pred)
    got = measured(Dice("y", "p", channel_mapping={0: "car", 2: "dog"}, include_std=True), true, pred)
    assert got["Dice"] == pytest.approx(np.mean([m for m, _ in expected]), rel=1e-6)
    assert got["Dice_std"] == pytest.approx(np.mean([s for _, s in expected]), rel=1e-6)
    for name, (mean, std) in zip(("car", "1", "dog"), expected, strict=True):
        assert (got[f"Dice_{name}"], got[f"Dice_{name}_std"]) == pytest.approx((mean, std), rel=1e-6)
    alone = measured(Dice("y", "p", exclude_channels=[0, 2]), true, pred)
    assert alone["Dice"] == pytest.approx(expected[1][0], rel=1e-6) and set(alone) == {"Dice"}


def test_dice_with_one_class_a_pixel_and_without_a_threshold():
    true, pred = masks()
    largest = one_hot(pred.argmax(-1), 3)
    got = measured(Dice("y", "p", threshold=0.0, mask_overlap=False), true, pred)["Dice"]
    assert got == pytest.approx(np.mean([m for m, _ in by_hand(true, largest)]), rel=1e-6)
    soft = measured(Dice("y", "p", threshold=None), true[:1], pred[:1])["Dice"]
    parts = [2 * (t * p).sum() / (t.sum() + p.sum()) for t, p in zip(true[0].T, pred[0].T, strict=True)]
    assert soft == pytest.approx(np.mean(parts), rel=1e-6)
    with pytest.raises(UsageError, match="from 0 to 1, got p"):
        measured(Dice("y", "p"), true, pred * 2)


def boxes():
    rng = np.random.default_rng(5)
    rows, most, guesses, classes = 17, 4, 9, 3
    true, pred = np.zeros((rows, most, 5)), np.zeros((rows, guesses, 7))
    for b in range(rows):
        n = rng.integers(0, most + 1)
        true[b, :n, :2], true[b, :n, 2:4] = rng.integers(0, 40, (n, 2)), rng.integers(8, 30, (n, 2))
        true[b, :n, 4] = rng.integers(0, classes, n)
        pred[b, :, :2], pred[b, :, 2:4] = rng.integers(0, 40, (guesses, 2)), rng.integers(8, 30, (guesses, 2))
        pred[b, :, 4] = rng.integers(0, classes, guesses)
        near = min(n, rng.integers(0, most + 1))
        pred[b, :near, :5] = true[b, :near]
        pred[b, :near, :4] += rng.integers(-3, 4, (near, 4))
        pred[b, :, 5] = np.round(rng.random(guesses), 2)
        pred[b, :near, 5] += 0.5
        pred[b, :, 6] = rng.random(guesses) < 0.8
    return true.astype(np.float32), pred.astype(np.float32)


def test_mean_average_precision_is_pycocotools():
    true, pred = boxes()
    got = measured(MeanAveragePrecision(3, "y", "p"), true, pred)
    # pycocotools' COCOeval on the same boxes (39 true, 122 detected, some images without any true box)
    expected = {"mAP": 0.036755727167548234, "AP50": 0.14885675339016688, "AP75": 0.014301430143014304}
    assert got == pytest.approx(expected, rel=1e-9)


def test_mean_average_precision_of_perfect_and_of_no_boxes():
    true, _ = boxes()
    perfect = np.concatenate([true, np.ones((*true.shape[:2], 1)), (true != 0).any(-1, keepdims=True)], -1)
    assert measured(MeanAveragePrecision(3, "y", "p"), true, perfect) == {"mAP": 1.0, "AP50": 1.0, "AP75": 1.0}
    assert measured(MeanAveragePrecision(3, "y", "p"), true * 0, perfect)["mAP"] == -1.0
    with pytest.raises(UsageError, match="boxes must be"):
        measured(MeanAveragePrecision(3, "y", "p"), true[..., :4], perfect)
