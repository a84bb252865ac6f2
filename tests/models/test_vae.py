"""Stable Diffusion's autoencoder against diffusers: names, layout, numbers, count; missing and wrong files."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from models.vae import VAE
from runtime.errors import UsageError
from tests.models.formula_weights import formula
from tests.models.test_models import make

FIXTURES = json.loads((Path(__file__).parent / "fixtures_vae.json").read_text())
SIZES = {"latent": 3, "channels": [8, 16, 16], "blocks": 1, "groups": 4}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # as files of 2022 have them


def drawn(name, shape):
    value = formula(name, tuple(shape))
    if "norm" in name and name.endswith("weight"):
        return (1 + value).astype(np.float32)
    return (value * 3 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else value).astype(np.float32)


def saved(folder, rename=lambda name: name, **changes):
    """A file as diffusers writes it, (outputs, inputs, height, width) convolutions and all."""
    arrays = {name: mx.array(drawn(name, shape)) for name, shape in FIXTURES["arrays"].items()} | changes
    path = folder / "diffusion_pytorch_model.safetensors"
    mx.save_safetensors(str(path), {rename(name): array for name, array in arrays.items() if array is not None})
    return str(path)


def small(weights=None):
    return VAE([16, 12, 2], weights, **SIZES)


def old(name):
    for now, before in OLD.items():
        name = name.replace(now, before)
    return name


@pytest.mark.parametrize("rename", [lambda name: name, old])
def test_equals_diffusers(rename, tmp_path):
    model = small(saved(tmp_path, rename))
    x, z = (mx.array((3 * formula(n, s)).astype(np.float32)) for n, s in (("x", (2, 16, 12, 2)), ("z", (2, 4, 3, 3))))
    mean, std = model.encode(x)
    for key, got in (("mean", mean), ("std", std), ("image", model.decode(z))):
        wanted = np.array(FIXTURES[key])
        np.testing.assert_allclose(np.array(got).ravel()[::5], wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


def test_count_equals_the_published_one():
    before = mx.get_active_memory()
    model = make("vae", [256, 256, 3], small=False, weights=None)
    assert sum(p.size for _, p in tree_flatten(model.parameters())) == 83_653_863
    assert model.latent_shape == (32, 32, 4) and mx.get_active_memory() - before < 20e6  # lazy: nothing is computed


def test_half_precision_files_are_read_as_float32(tmp_path):
    name = "encoder.conv_in.weight"
    half = mx.array(drawn(name, FIXTURES["arrays"][name])).astype(mx.float16)
    model = small(saved(tmp_path, **{name: half}))
    assert model.encoder.enter.weight.dtype == mx.float32
    assert mx.array_equal(model.encoder.enter.weight, half.astype(mx.float32).transpose(0, 2, 3, 1)).item()


def test_missing_and_wrong_files(tmp_path):
    with pytest.raises(UsageError, match=rf"weights are missing: .*sd-vae-ft-mse.* at {tmp_path}/no.safetensors\.$"):
        small(str(tmp_path / "no.safetensors"))
    cut = Path(saved(tmp_path))
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(UsageError, match="can't be read as a safetensors file"):
        small(str(cut))
    with pytest.raises(UsageError, match=r"lacks 1 arrays \(first: \['decoder.enter.bias'\]\)"):
        small(saved(tmp_path, **{"decoder.conv_in.bias": None}))
    with pytest.raises(UsageError, match=r"encoder.levels.0.0.conv1.weight has \(9, 3, 3, 8\).*needed: \(8, 3, 3, 8\)"):
        small(saved(tmp_path, **{"encoder.down_blocks.0.resnets.0.conv1.weight": mx.zeros((9, 8, 3, 3))}))
    with pytest.raises(UsageError, match=r"lacks 1 arrays \(first: \['encoder.middle.attention.qkv.bias'\]\)"):
        small(saved(tmp_path, **{"encoder.mid_block.attentions.0.to_k.bias": None}))
