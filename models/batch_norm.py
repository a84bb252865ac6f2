"""Batch normalisation that keeps the dtype of what it is given; its statistics are taken and kept in float32."""

import mlx.core as mx
import mlx.nn as nn


class BatchNorm(nn.BatchNorm):
    """nn.BatchNorm over all axes but the last (arXiv 1502.03167), in bf16 too.

    momentum: share of a batch in the running statistics (0.1 as PyTorch has it); their variance is the unbiased one.
    In training mode the batch is normalised by its own statistics, else by the running ones.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ..., C) -> (B, ..., C) in x's dtype."""
        if self.training:
            wide = x.astype(mx.float32)
            axes = tuple(range(x.ndim - 1))
            mean, var = wide.mean(axis=axes), wide.var(axis=axes)
            count = x.size // x.shape[-1]
            keep, share = 1 - self.momentum, self.momentum
            self.running_mean = keep * self.running_mean + share * mean
            self.running_var = keep * self.running_var + share * count / max(count - 1, 1) * var
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * mx.rsqrt(var + self.eps)
        return ((x - mean) * scale + self.bias).astype(x.dtype)
