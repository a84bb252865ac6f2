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


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_composes(name):
    assert composed(name).run_name == "t"


@pytest.mark.parametrize("end", ["", "_grid"])
def test_eis_experiments_differ_in_the_topology_alone(end):
    series, parallel = composed(f"eis_series{end}"), composed(f"eis_parallel{end}")
    assert [c.dataloaders.train_data.topology for c in (series, parallel)] == ["series", "parallel"]
    for config in (series, parallel):
        steps = -(-config.dataloaders.train_data.size // config.dataloaders.batch_size) * config.epochs
        assert config.optimizer.schedule.total == pytest.approx(steps, rel=0.01)  # the rate ends with the run
        for data in (config.dataloaders.train_data, config.dataloaders.eval_data):
            data.topology, data.rs = "", 0.0
    assert series == parallel


def test_the_eis_flow_differs_from_the_heads_in_model_loss_and_solver():
    heads, flow = composed("eis_series"), composed("eis_series_flow")
    encoder = {name: value for name, value in flow.model.items() if not str(name).startswith(("flow_", "_target_"))}
    assert encoder.items() <= dict(heads.model).items()
    for config in (heads, flow):
        config.model, config.loss, config.solver = None, None, None
    assert heads == flow


IMAGENET = {"s": 1, "b": 2, "l": 4, "xl": 8}  # accumulated micro-batches


@pytest.mark.parametrize("size", list(IMAGENET))
def test_imagenet_follows_the_published_recipe(size):
    ours = composed(f"imagenet_dit_{size}_meanflow")
    assert ours.model == compose(["run_name=t", f"model=dit_{size}", "dataloaders=imagenet_latents"]).model
    assert (*ours.model.shape, ours.model.classes) == (32, 32, 4, 1000)
    assert ours.accumulate == IMAGENET[size] and ours.dataloaders.batch_size * ours.accumulate == 256
    update, loss = ours.optimizer, ours.loss
    assert update.optimizer._target_ == "mlx.optimizers.AdamW" and update.optimizer.weight_decay == 0
    assert (update.learning_rate, update.schedule, update.clip) == (1e-4, None, None)
    assert (*update.optimizer.betas, *update.ema, update.ema_warmup) == (0.9, 0.95, 0.9999, False)
    assert (loss.jvp_share, loss.power, loss.eps, loss.label_dropout) == (0.25, 1.0, 1e-2, 0.1)
    assert (loss.pairs.times.mu, loss.pairs.times.sigma) == (0.4, 1.0)  # the published mean is -.4: noise at t=1
    guided = (loss.omega, loss.kappa, loss.guided_from, loss.guided_to)
    assert guided == ((0.2, 0.92, 0.25, 1.0) if size == "xl" else (1.0, 0.5, 0.0, 1.0))


def test_imagenet_improved_meanflow_follows_the_published_recipe():
    ours = composed("imagenet_imf_dit_b")
    assert ours.dataloaders.batch_size * ours.accumulate == 1024
    assert ours.optimizer.schedule.warmup == 10 * (1_281_167 // 1024)  # 10 epochs
    loss = ours.loss
    assert (loss.velocity_head, loss.guidance_max, loss.jvp_share, loss.label_dropout) == (True, 8.0, 0.5, 0.1)
    assert (loss.guidance, loss.guided_from, loss.guided_to) == (8.0, 0.35, 0.6)
