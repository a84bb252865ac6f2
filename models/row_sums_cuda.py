"""Sums over the rows of an array by one CUDA kernel: the gradients of a norm's weight and bias from those of images."""

import mlx.core as mx

from runtime.cuda_launch import launch

COLUMNS, ROWS = 32, 16  # of a block

PUT = "template <typename U> __device__ inline void put(U* to, float value) { *to = U(value); }\n"

# dims: rows, columns of a half. The order of the sums is always the same.
BODY = r"""
  __shared__ float sums[ROWS][COLUMNS];
  const int lane = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS, half = dims[1];
  const int column = blockIdx.x * COLUMNS + lane;
  float total = 0.0f;
  if (column < 2 * half)
    for (int b = row; b < dims[0]; b += ROWS) total += x[size_t(b) * 2 * half + column];
  sums[row][lane] = total;
  __syncthreads();
  if (row > 0 || column >= 2 * half) return;
  for (int r = 1; r < ROWS; r++) total += sums[r][lane];
  if (column < half) put(first + column, total); else put(second + column - half, total);
"""


def halves(x: mx.array, first: mx.Dtype, second: mx.Dtype) -> list[mx.array]:
    """The sums (C,) of the first and of the other half of the columns of x (B, 2C) float32, each in its own type."""
    rows, half = x.shape[0], x.shape[1] // 2
    outputs, blocks = {"first": ((half,), first), "second": ((half,), second)}, (2 * half + COLUMNS - 1) // COLUMNS
    constants: dict = {"COLUMNS": COLUMNS, "ROWS": ROWS}
    return launch("row_sums", PUT, BODY, {"x": x}, outputs, constants, [rows, half], None, blocks, COLUMNS * ROWS)
