"""Residual and RMS norm, and its gradient, as one CUDA kernel each, for (B, T, D) along the tokens or the features.

    s = x + r,   f = 1 / sqrt(mean s^2 + eps),   y = s f,   dx = dr = f (dy - y (mean(y dy) + f df / n))

The means are over the n = T tokens or D features. f is kept in float32 for the gradient, and has one of its own, df,
that is 0 but in second derivatives; s isn't kept. Each array is read once and stays in registers, 8 neighbouring
features in one piece. Along the tokens a block takes 64 features of one image and a thread every 32nd token; along the
features a warp takes a token.
"""

import mlx.core as mx

from models import layer_norm_cuda
from runtime.cuda_launch import launch

WARPS = 8  # of a block
COLUMNS, ROWS = 8, 32  # threads of a block along the features and the tokens
LONGEST = 4 * ROWS  # tokens

# A thread's tokens are row, row + 32, ...; K of them at most. dims: T, D.
TOKENS = r"""
  __shared__ float sums[8][64], totals[64];
  const int T_ = dims[0], D = dims[1], slabs = (D + 63) / 64;
  const int image = blockIdx.x / slabs, column = threadIdx.x % 8, row = threadIdx.x / 8;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, feature = blockIdx.x % slabs * 64 + 8 * column;
  const bool inside = feature < D;
  const size_t start = size_t(image) * T_ * D + feature;
  float mine[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
"""

# The sums of `mine` over all tokens, into `mine`. A warp holds four rows of the eight columns.
OVER_TOKENS = r"""
  for (int i = 0; i < 8; i++) {
    for (int step = 8; step < 32; step *= 2) mine[i] += __shfl_xor_sync(0xffffffffu, mine[i], step);
    if (lane < 8) sums[warp][8 * column + i] = mine[i];
  }
  __syncthreads();
  if (threadIdx.x < 64) {
    float total = 0.0f;
    for (int w = 0; w < 8; w++) total += sums[w][threadIdx.x];
    totals[threadIdx.x] = total;
  }
  __syncthreads();
  for (int i = 0; i < 8; i++) mine[i] = totals[8 * column + i] / float(T_);
"""

# All loads come before the first sum, so that they are under way together.
LOAD_TOKENS = r"""
  Eight<T> a[K], b[K];
#pragma unroll
  for (int k = 0; k < K; k++) {
    const int token = row + 32 * k;
    if (inside && token < T_) {
      a[k] = *reinterpret_cast<const Eight<T>*>(x + start + size_t(token) * D);
      b[k] = *reinterpret_cast<const Eight<T>*>(/*SECOND*/ + start + size_t(token) * D);
    } else {
      for (int i = 0; i < 8; i++) a[k].at[i] = b[k].at[i] = T(0.0f);
    }
  }
"""

FORWARD_TOKENS = r"""
  float s[K][8];
#pragma unroll
  for (int k = 0; k < K; k++) {
    for (int i = 0; i < 8; i++) {
      s[k][i] = float(a[k].at[i]) + float(b[k].at[i]);
      mine[i] += s[k][i] * s[k][i];
    }
  }
  /*OVER_TOKENS*/
  for (int i = 0; i < 8; i++) mine[i] = rsqrtf(mine[i] + eps[0]);
#pragma unroll
  for (int k = 0; k < K; k++) {
    const int token = row + 32 * k;
    for (int i = 0; i < 8; i++) a[k].at[i] = T(s[k][i] * mine[i]);
    if (inside && token < T_) *reinterpret_cast<Eight<T>*>(y + start + size_t(token) * D) = a[k];
  }
  if (inside && row == 0) {
    Eight<float> out;
    for (int i = 0; i < 8; i++) out.at[i] = mine[i];
    *reinterpret_cast<Eight<float>*>(f + size_t(image) * D + feature) = out;
  }
"""

BACKWARD_TOKENS = r"""
  Eight<float> by = {}, along = {};
  if (inside) {
    by = *reinterpret_cast<const Eight<float>*>(f + size_t(image) * D + feature);
    along = *reinterpret_cast<const Eight<float>*>(df + size_t(image) * D + feature);
  }
#pragma unroll
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) mine[i] += float(a[k].at[i]) * float(b[k].at[i]);
  /*OVER_TOKENS*/
  for (int i = 0; i < 8; i++) mine[i] += by.at[i] * along.at[i] / float(T_);
#pragma unroll
  for (int k = 0; k < K; k++) {
    const int token = row + 32 * k;
    for (int i = 0; i < 8; i++) a[k].at[i] = T(by.at[i] * (float(a[k].at[i]) - float(b[k].at[i]) * mine[i]));
    if (inside && token < T_) *reinterpret_cast<Eight<T>*>(dx + start + size_t(token) * D) = a[k];
  }
"""

# A warp of the last block may have no token; it leaves as a whole. dims: all tokens, D. K: chunks of 256 features.
FEATURES = r"""
  const int D = dims[1], warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int token = blockIdx.x * 8 + warp;
  if (token >= dims[0]) return;
  const size_t start = size_t(token) * D;
  float a[K][8], b[K][8], mean = 0.0f;
  load<T, K>(a, x + start, lane, D);
  load<T, K>(b, /*SECOND*/ + start, lane, D);
"""

FORWARD_FEATURES = r"""
  for (int k = 0; k < K; k++) {
    for (int i = 0; i < 8; i++) {
      a[k][i] += b[k][i];
      mean += a[k][i] * a[k][i];
    }
  }
  const float factor = rsqrtf(across(mean) / float(D) + eps[0]);
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) a[k][i] *= factor;
  store<T, K>(y + start, a, lane, D);
  if (lane == 0) f[token] = factor;
"""

BACKWARD_FEATURES = r"""
  const float factor = f[token], along = df[token];
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) mean += a[k][i] * b[k][i];
  mean = (across(mean) + factor * along) / float(D);
  for (int k = 0; k < K; k++)
    for (int i = 0; i < 8; i++) a[k][i] = factor * (a[k][i] - b[k][i] * mean);
  store<T, K>(dx + start, a, lane, D);
"""


def takes(tokens: int, width: int, axis: int) -> bool:
    """Whether the kernels fit (B, tokens, width), normalised along axis 1 or 2."""
    return layer_norm_cuda.takes(width) and (axis == 2 or tokens <= LONGEST)


def run(name: str, bodies: tuple[str, str], inputs: dict, outputs: dict, axis: int, eps: float | None):
    """Runs a kernel on inputs["x"] (B, T, D); bodies: along the tokens, along the features."""
    count, tokens, width = inputs["x"].shape
    if axis == 1:
        body = TOKENS + LOAD_TOKENS + bodies[0].replace("/*OVER_TOKENS*/", OVER_TOKENS)
        blocks, chunks, dims = count * -(-width // (8 * COLUMNS)), -(-tokens // ROWS), [tokens, width]
    else:
        body = FEATURES + bodies[1]
        blocks, chunks, dims = -(-count * tokens // WARPS), -(-width // 256), [count * tokens, width]
    body = body.replace("/*SECOND*/", "y" if "y" in inputs else "r")
    along = ("tokens", "features")[axis - 1]
    name, header, constants = f"residual_norm_{along}_{name}", layer_norm_cuda.HEADER, {"K": chunks}
    return launch(name, header, body, inputs, outputs, constants, dims, eps, blocks, 32 * WARPS)


def forward(x, r, axis: int, eps: float) -> list[mx.array]:
    """y like x (B, T, D), and f, float32: (B, 1, D) along axis 1, (B, T, 1) along axis 2."""
    kept = tuple(1 if i == axis else size for i, size in enumerate(x.shape))
    outputs = {"y": (x.shape, x.dtype), "f": (kept, mx.float32)}
    return run("forward", (FORWARD_TOKENS, FORWARD_FEATURES), {"x": x, "r": r}, outputs, axis, eps)


def backward(dy, df, y, f, axis: int) -> mx.array:
    """The gradient by x, which is that by r, (B, T, D), from those by y and by f."""
    inputs, outputs = {"x": dy, "y": y, "f": f, "df": df}, {"dx": (y.shape, y.dtype)}
    return run("backward", (BACKWARD_TOKENS, BACKWARD_FEATURES), inputs, outputs, axis, None)[0]
