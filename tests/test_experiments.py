"""Experiments that are meant to be compared differ only in what they compare."""

import pytest

from scripts.compose import compose, options

CIFAR10 = [name for name in options("experiment") if name.startswith("cifar10_unet_")]


def composed(name):
    return compose(["run_name=t", f"experiment={name}"])


@pytest.mark.parametrize("name", CIFAR10)
def test_cifar10_methods_share_data_network_optimizer_and_time(name):
    ours, base = composed(name), composed("cifar10_unet_fm")
    for key in ("dataloaders", "model", "optimizer", "precision", "max_time", "max_steps", "epochs", "accumulate"):
        assert ours[key] == base[key], key
    assert ours.evaluation.count == base.evaluation.count
    assert ours.evaluation.solvers.euler50 == base.evaluation.solvers.euler50
    assert ours.traces.evaluation == {**base.traces.evaluation, "evaluator": ours.evaluation}
