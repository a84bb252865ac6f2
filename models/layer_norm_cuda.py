"""Layer norm with modulation, its gradient and its jvp as one CUDA kernel each, for (B, L, D) with affine rows.

    y = A xhat + S,   xhat = (x - mean) / std over the last axis,   A, S (B, D) float32

A warp takes a token and keeps it in registers, 8 neighbouring features a lane and chunk, so each array is read once.
"""

import mlx.core as mx

from runtime.cuda_launch import EIGHT, launch

WARPS, WIDEST = 8, 1536  # warps of a block; features
TOKENS = 32  # of a block of the gradient, all of one image

# K: chunks of 256 features. dims: all tokens, tokens of an image, features.
HEADER = (
    EIGHT
    + r"""
template <typename T, int K> __device__ inline void load(float (&to)[K][8], const T* from, int lane, int D) {
  for (int k = 0; k < K; k++) {
    const int at = 256 * k + 8 * lane;
    Eight<T> in;
    if (at < D) in = *reinterpret_cast<const Eight<T>*>(from + at);
    for (int i = 0; i < 8; i++) to[k][i] = at < D ? float(in.at[i]) : 0.0f;
  }
}

template <typename T, int K> __device__ inline void store(T* to, const float (&from)[K][8], int lane, int D) {
  for (int k = 0; k < K; k++) {
    const int at = 256 * k + 8 * lane;
    Eight<T> out;
    for (int i = 0; i < 8; i++) out.at[i] = T(from[k][i]);
    if (at < D) *reinterpret_cast<Eight<T>*>(to + at) = out;
  }
}

__device__ inline float across(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// Turns x into xhat (0 beyond D) and gives back 1 / std.
template <int K> __device__ inline float standardise(float (&x)[K][8], int lane, int D, float eps) {
  float mean = 0.0f, square = 0.0f;
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) mean += x[k][i];
  mean = across(mean) / float(D);
  for (int k = 0; k < K; k++) {
    for (int i = 0; i < 8; i++) {
      x[k][i] = 256 * k + 8 * lane < D ? x[k][i] - mean : 0.0f;
      square += x[k][i] * x[k][i];
    }
  }
  const float rstd = rsqrtf(across(square) / float(D) + eps);
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) x[k][i] *= rstd;
  return rstd;
}

// v becomes the Jacobian of xhat, which is symmetric, times v: (v - mean v - xhat mean(v xhat)) / std.
template <int K> __device__ inline void project(float (&v)[K][8], const float (&xhat)[K][8], int D, float rstd) {
  float level = 0.0f, along = 0.0f;
  for (int k = 0; k < K; k++) {
    for (int i = 0; i < 8; i++) {
      level += v[k][i];
      along += v[k][i] * xhat[k][i];
    }
  }
  level = across(level) / float(D);
  along = across(along) / float(D);
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) v[k][i] = rstd * (v[k][i] - level - xhat[k][i] * along);
}
"""
)

BEGIN = r"""
  const int L = dims[1], D = dims[2], warp = threadIdx.x / 32, lane = threadIdx.x % 32;
"""

# A warp of the last block may have no token; it leaves as a whole, and nothing here waits for a block.
TOKEN = r"""
  const int token = blockIdx.x * (blockDim.x / 32) + warp;
  if (token >= dims[0]) return;
  const size_t start = size_t(token) * D, row = size_t(token / L) * D;
"""

FORWARD = r"""
  float y_[K][8], a[K][8], s[K][8];
  load<T, K>(y_, x + start, lane, D);
  load<float, K>(a, A + row, lane, D);
  load<float, K>(s, S + row, lane, D);
  standardise<K>(y_, lane, D, eps[0]);
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) y_[k][i] = y_[k][i] * a[k][i] + s[k][i];
  store<T, K>(y + start, y_, lane, D);
"""

TANGENT = r"""
  float xhat[K][8], moved[K][8], a[K][8], s[K][8];
  load<T, K>(xhat, x + start, lane, D);
  load<T, K>(moved, t + start, lane, D);
  const float rstd = standardise<K>(xhat, lane, D, eps[0]);
  project<K>(moved, xhat, D, rstd);
  load<float, K>(a, A + row, lane, D);
  load<float, K>(s, tS + row, lane, D);
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) moved[k][i] = moved[k][i] * a[k][i] + s[k][i];
  load<float, K>(a, tA + row, lane, D);
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) moved[k][i] += a[k][i] * xhat[k][i];
  store<T, K>(ty + start, moved, lane, D);
"""

# A block takes `TOKENS` tokens of one image; its warps add up their sums one after another, so that runs are equal.
BACKWARD = r"""
  __shared__ float sums[2][256 * K];
  const int tokens = dims[3], blocks = (L + tokens - 1) / tokens, image = blockIdx.x / blocks;
  const int first = blockIdx.x % blocks * tokens, last = first + tokens < L ? first + tokens : L;
  float by_a[K][8], by_s[K][8];
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) by_a[k][i] = by_s[k][i] = 0.0f;
  for (int l = first + warp; l < last; l += blockDim.x / 32) {
    const size_t start = (size_t(image) * L + l) * D;
    float xhat[K][8], up[K][8];
    load<T, K>(xhat, x + start, lane, D);
    load<T, K>(up, g + start, lane, D);
    const float rstd = standardise<K>(xhat, lane, D, eps[0]);
    for (int k = 0; k < K; k++) {
      const int at = 256 * k + 8 * lane;
      for (int i = 0; i < 8; i++) {
        by_a[k][i] += up[k][i] * xhat[k][i];
        by_s[k][i] += up[k][i];
        up[k][i] *= at < D ? A[size_t(image) * D + at + i] : 0.0f;
      }
    }
    project<K>(up, xhat, D, rstd);
    store<T, K>(dx + start, up, lane, D);
  }
  for (int w = 0; w < int(blockDim.x) / 32; w++) {
    if (warp == w) {
      for (int k = 0; k < K; k++) {
        for (int i = 0; i < 8; i++) {
          const int at = 256 * k + 8 * lane + i;
          sums[0][at] = (w ? sums[0][at] : 0.0f) + by_a[k][i];
          sums[1][at] = (w ? sums[1][at] : 0.0f) + by_s[k][i];
        }
      }
    }
    __syncthreads();
  }
  for (int c = threadIdx.x; c < D; c += blockDim.x) {
    dA[size_t(blockIdx.x) * D + c] = sums[0][c];
    dS[size_t(blockIdx.x) * D + c] = sums[1][c];
  }
"""


def takes(width: int) -> bool:
    """Whether the kernels fit rows of `width` features."""
    return width % 8 == 0 and width <= WIDEST


def run(name: str, body: str, inputs: dict, outputs: dict, eps: float, blocks: int) -> list[mx.array]:
    """Runs a kernel on inputs["x"] (B, L, D)."""
    count, length, width = inputs["x"].shape
    dims, constants = [count * length, length, width, TOKENS], {"K": (width + 255) // 256}
    return launch(f"layer_norm_{name}", HEADER, BEGIN + body, inputs, outputs, constants, dims, eps, blocks, 32 * WARPS)


def forward(x, a, s, eps: float) -> list[mx.array]:
    """y like x (B, L, D)."""
    blocks = (x.shape[0] * x.shape[1] + WARPS - 1) // WARPS
    return run("forward", TOKEN + FORWARD, {"x": x, "A": a, "S": s}, {"y": (x.shape, x.dtype)}, eps, blocks)


def tangent(x, a, s, t, ta, ts, eps: float) -> list[mx.array]:
    """The jvp of y along (t, ta, ts)."""
    blocks = (x.shape[0] * x.shape[1] + WARPS - 1) // WARPS
    inputs = {"x": x, "t": t, "A": a, "tA": ta, "tS": ts}
    return run("tangent", TOKEN + TANGENT, inputs, {"ty": (x.shape, x.dtype)}, eps, blocks)


def backward(x, a, s, g, eps: float) -> list[mx.array]:
    """Gradients by x, a and s of the sum of g y."""
    count, length, width = x.shape
    blocks = (length + TOKENS - 1) // TOKENS
    rows = (count, blocks, width)
    outputs = {"dx": (x.shape, x.dtype), "dA": (rows, mx.float32), "dS": (rows, mx.float32)}
    dx, da, ds = run("backward", BACKWARD, {"x": x, "g": g, "A": a}, outputs, eps, count * blocks)
    return [dx, da.sum(axis=1), ds.sum(axis=1)]
