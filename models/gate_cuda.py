"""The gate of a SwiGLU, silu(g) u, and its gradients as one CUDA kernel each, g and u in one array (N, 2, M).

    y = g s u,   s = 1 / (1 + exp(-g)),   dg = dy u s (1 + g (1 - s)),   du = dy g s

A thread takes 8 neighbouring numbers of g and of u.
"""

import mlx.core as mx

from runtime.cuda_launch import EIGHT, launch

THREADS = 256  # of a block
LIMIT = 1 << 31  # pieces of 8 numbers that an int counts

# dims: pieces of a row of y, pieces of y.
BEGIN = r"""
  const int row = dims[0], piece = blockIdx.x * 256 + threadIdx.x;
  if (piece >= dims[1]) return;
  const Eight<T>* from = reinterpret_cast<const Eight<T>*>(x) + (size_t(piece / row) * row + piece);
  const Eight<T> g = from[0], u = from[row];
"""

FORWARD = r"""
  Eight<T> out;
  for (int i = 0; i < 8; i++) {
    const float v = float(g.at[i]);
    out.at[i] = T(__fdividef(v, 1.0f + __expf(-v)) * float(u.at[i]));
  }
  reinterpret_cast<Eight<T>*>(y)[piece] = out;
"""

BACKWARD = r"""
  const Eight<T> up = reinterpret_cast<const Eight<T>*>(dy)[piece];
  Eight<T> dg, du;
  for (int i = 0; i < 8; i++) {
    const float v = float(g.at[i]), c = float(up.at[i]), s = __fdividef(1.0f, 1.0f + __expf(-v));
    dg.at[i] = T(c * float(u.at[i]) * (s * (1.0f + v * (1.0f - s))));
    du.at[i] = T(c * v * s);
  }
  Eight<T>* to = reinterpret_cast<Eight<T>*>(dx) + (size_t(piece / row) * row + piece);
  to[0] = dg;
  to[row] = du;
"""


def takes(rows: int, width: int) -> bool:
    """Whether the kernels fit (rows, 2, width)."""
    return width % 8 == 0 and rows * width // 8 < LIMIT


def run(name: str, body: str, inputs: dict, outputs: dict) -> mx.array:
    """Runs a kernel on inputs["x"] (N, 2, M)."""
    rows, _, width = inputs["x"].shape
    row, pieces = width // 8, rows * width // 8
    blocks = (pieces + THREADS - 1) // THREADS
    return launch(f"gate_{name}", EIGHT, BEGIN + body, inputs, outputs, {}, [row, pieces], None, blocks, THREADS)[0]


def forward(x: mx.array) -> mx.array:
    """x (N, 2, M) -> y (N, M)."""
    return run("forward", FORWARD, {"x": x}, {"y": (x[:, 0].shape, x.dtype)})


def backward(x: mx.array, dy: mx.array) -> mx.array:
    """The gradient by x, (N, 2, M), from the one by y."""
    return run("backward", BACKWARD, {"x": x, "dy": dy}, {"dx": (x.shape, x.dtype)})
