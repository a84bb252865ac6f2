"""Stable Diffusion's autoencoder (arXiv 2112.10752), with weights from a file in diffusers' format."""

import re
from pathlib import Path
from typing import cast

import mlx.core as mx

from models.autoencoder import Autoencoder
from runtime.errors import UsageError
from runtime.slots import restore

WHERE = "huggingface.co/stabilityai/sd-vae-ft-mse, diffusion_pytorch_model.safetensors, 335 MB"
NAMES = (  # diffusers' names, today's and those of older files, and ours
    (r"\.(?:down|up)_blocks\.(\d+)\.resnets\.", r".levels.\1."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.conv\.", r".halve.\1."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.conv\.", r".grow.\1."),
    (r"\.mid_block\.resnets\.0\.", ".middle.first."),
    (r"\.mid_block\.resnets\.1\.", ".middle.second."),
    (r"\.mid_block\.attentions\.0\.", ".middle.attention."),
    (r"\.(?:group_norm|conv_norm_out)\.", ".norm."),
    (r"\.conv_shortcut\.", ".skip."),
    (r"\.conv_in\.", ".enter."),
    (r"\.(?:conv_out|to_out\.0|proj_attn)\.", ".leave."),
    (r"\.(?:to_q|query)\.", ".q."),
    (r"\.(?:to_k|key)\.", ".k."),
    (r"\.(?:to_v|value)\.", ".v."),
    (r"^quant_conv\.", "to_moments."),
    (r"^post_quant_conv\.", "from_latent."),
)


class VAE(Autoencoder):
    """Images (H, W, 3) in [-1, 1] to latents (H / 8, W / 8, 4) and back: 83,653,863 parameters by default.

    weights: a safetensors file in diffusers' format; None for random ones. SCALE times its latents have about unit
    deviation; `encode` and `decode` leave that to dataloaders=imagenet_latents.
    """

    SCALE = 0.18215

    def __init__(
        self,
        shape: tuple | list,
        weights: str | None = None,
        latent: int = 4,
        channels: tuple | list = (128, 256, 512, 512),
        blocks: int = 2,
        groups: int | None = 32,
    ):
        super().__init__(shape, latent, channels, blocks, groups)
        if weights is not None:
            restore(self, read(Path(weights)), weights)


def ours(name: str) -> str:
    """Our name of an array that diffusers calls `name`."""
    for theirs, replacement in NAMES:
        name = re.sub(theirs, replacement, name)
    return name


def read(path: Path) -> dict[str, mx.array]:
    """The weights in a file of diffusers', float32, by our names, in our layout; UsageError where it can't be read."""
    if not path.is_file():
        raise UsageError(
            f"the VAE's weights are missing: put a file in diffusers' format ({WHERE}) at {path.absolute()}."
        )
    try:
        loaded = cast(dict[str, mx.array], mx.load(str(path), format="safetensors"))
        arrays = {ours(name): array.astype(mx.float32) for name, array in loaded.items()}
        mx.eval(arrays)
    except RuntimeError as error:
        raise UsageError(
            f"{path} can't be read as a safetensors file ({error}); download it again: {WHERE}."
        ) from error
    for name in [name for name in arrays if name.endswith(("attention.q.weight", "attention.q.bias"))]:
        start, ending = name.rsplit("q.", 1)
        parts = [f"{start}{part}.{ending}" for part in "qkv"]
        if all(part in arrays for part in parts):  # else `restore` says what is missing
            arrays[f"{start}qkv.{ending}"] = mx.concatenate([arrays.pop(part) for part in parts])
    # convolutions: (outputs, inputs, height, width) -> (outputs, height, width, inputs)
    return {name: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for name, a in arrays.items()}
