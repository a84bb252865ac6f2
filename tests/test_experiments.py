"""Experiments that are meant to be compared differ only in what they compare."""

import pytest

from scripts.compose import compose, options

CIFAR10 = [name for name in options("experiment") if name.startswith("cifar10_unet_")]


def composed(name, *overrides):
    return compose(["run_name=t", f"experiment={name}", *overrides])


@pytest.mark.parametrize("name", CIFAR10)
def test_cifar10_methods_share_data_network_optimizer_and_time(name):
    ours, base = composed(name), composed("cifar10_unet_fm")
    for key in ("dataloaders", "model", "optimizer", "precision", "max_time", "max_steps", "epochs", "accumulate"):
        assert ours[key] == base[key], key
    assert ours.evaluation.count == base.evaluation.count
    assert ours.evaluation.solvers.euler50 == base.evaluation.solvers.euler50
    assert ours.traces.evaluation == {**base.traces.evaluation, "evaluator": ours.evaluation}


IMAGENET = {"s": 1, "b": 2, "l": 4, "xl": 8}  # accumulated micro-batches


@pytest.mark.parametrize("size", list(IMAGENET))
def test_imagenet_follows_the_published_recipe(size):
    ours = composed(f"imagenet_dit_{size}_meanflow", "dataloaders=digits", f"batch_size={256 // IMAGENET[size]}")
    assert ours.model == compose(["run_name=t", f"model=dit_{size}", "dataloaders=digits"]).model
    assert ours.accumulate == IMAGENET[size]
    update, loss = ours.optimizer, ours.loss
    assert update.optimizer._target_ == "mlx.optimizers.AdamW" and update.optimizer.weight_decay == 0
    assert (update.learning_rate, update.schedule, update.clip) == (1e-4, None, None)
    assert (*update.optimizer.betas, *update.ema, update.ema_warmup) == (0.9, 0.95, 0.9999, False)
    assert (loss.jvp_share, loss.power, loss.eps, loss.label_dropout) == (0.25, 1.0, 1e-2, 0.1)
    assert (loss.pairs.times.mu, loss.pairs.times.sigma) == (0.4, 1.0)  # the published mean is -.4: noise at t=1
    guided = (loss.omega, loss.kappa, loss.guided_from, loss.guided_to)
    assert guided == ((0.2, 0.92, 0.25, 1.0) if size == "xl" else (1.0, 0.5, 0.0, 1.0))
