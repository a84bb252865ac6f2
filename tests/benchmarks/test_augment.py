"""The augmentation benchmark: every variant of ours counts what it does."""

import argparse

import pytest

from benchmarks.augment import ours


@pytest.mark.parametrize("worker", ["device", "albumentations"])
def test_a_worker_gives_its_rate(worker):
    pytest.importorskip("albumentations")
    given = argparse.Namespace(worker=worker, device="cpu", batch_size=4, steps=2, num_process=0)
    found = ours(given)
    assert found["variant"] == worker and found["images_per_s"] > 0
    assert (found["batch"], found["steps"], found["num_process"]) == (4, 2, 0)
