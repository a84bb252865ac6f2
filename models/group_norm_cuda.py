"""Group normalisation, its gradient and its jvp as one CUDA kernel each, for (B, H, W, C) with affine rows and SiLU.

    y = act(A xhat + D),   xhat = (x - mean) / std over a group's channels and all pixels,   A, D float32

A and D are (B, C), or (1, C) for all images alike.

A block takes one image and a slab of whole groups, about 64 channels; a thread takes 8 neighbouring channels and every
R-th pixel. Each kernel reads its image twice: the second time it comes from the L2 cache.
"""

import math

import mlx.core as mx

from runtime.cuda_launch import THREADS, launch

WIDTH = 8  # channels of a thread

HEADER = r"""
template <typename T> struct alignas(16) Eight { T at[8]; };

__device__ inline float slope(float z, bool silu) {
  if (!silu) return 1.0f;
  float s = 1.0f / (1.0f + __expf(-z));
  return s * (1.0f + z * (1.0f - s));
}

__device__ inline float value(float z, bool silu) { return silu ? z / (1.0f + __expf(-z)) : z; }
"""

# What every kernel begins with. dims: P pixels, C channels, channels of a group, channels of a slab, R pixel rows, and
# the distance between the rows of A (and D) for two images, C or 0.
BEGIN = r"""
  const int P = dims[0], C = dims[1], per = dims[2], slab = dims[3], R = dims[4], lead = dims[5];
  const int V = slab / 8, slabs = C / slab, groups = slab / per, vectors = per / 8;
  const int image = blockIdx.x / slabs, first = (blockIdx.x % slabs) * slab;
  const int column = threadIdx.x % V, row = threadIdx.x / V;
  const int group = column / vectors, channel = first + 8 * column;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const size_t start = size_t(image) * P * C + channel;
  const float count = float(per) * float(P);
"""

# Sums `N` numbers of each thread over the threads of its group, into totals[N][32]; afterwards all threads see them.
REDUCE = r"""
  for (int n = 0; n < N; n++) sums[n][threadIdx.x] = mine[n];
  __syncthreads();
  for (int j = warp; j < groups; j += warps) {
    for (int n = 0; n < N; n++) {
      float total = 0.0f;
      for (int i = lane; i < vectors * R; i += 32)
        total += sums[n][(i / vectors) * V + j * vectors + i % vectors];
      for (int step = 16; step > 0; step /= 2) total += __shfl_down_sync(0xffffffffu, total, step);
      if (lane == 0) totals[n][j] = total;
    }
  }
  __syncthreads();
"""

FORWARD = r"""
  constexpr int N = 2;
  __shared__ float sums[N][512], totals[N][32];
  const float origin = float(x[size_t(image) * P * C + first + group * per]);  // keeps the sums of squares small
  float mine[N] = {0.0f, 0.0f};
  for (int p = row; p < P; p += R) {
    Eight<T> in = *reinterpret_cast<const Eight<T>*>(x + start + size_t(p) * C);
    for (int i = 0; i < 8; i++) {
      float u = float(in.at[i]) - origin;
      mine[0] += u;
      mine[1] += u * u;
    }
  }
  /*REDUCE*/
  const float shift = totals[0][group] / count;
  const float mean = origin + shift;
  const float rstd = rsqrtf(fmaxf(totals[1][group] / count - shift * shift, 0.0f) + eps[0]);
  float a[8], d[8];
  for (int i = 0; i < 8; i++) {
    a[i] = A[size_t(image) * lead + channel + i] * rstd;
    d[i] = D[size_t(image) * lead + channel + i] - a[i] * mean;
  }
  for (int p = row; p < P; p += R) {
    Eight<T> in = *reinterpret_cast<const Eight<T>*>(x + start + size_t(p) * C), out;
    for (int i = 0; i < 8; i++) out.at[i] = T(value(float(in.at[i]) * a[i] + d[i], SILU));
    *reinterpret_cast<Eight<T>*>(y + start + size_t(p) * C) = out;
  }
  if (row == 0 && column % vectors == 0) {
    float* to = stats + 2 * (size_t(image) * (C / per) + channel / per);
    to[0] = mean;
    to[1] = rstd;
  }
"""

BACKWARD = r"""
  __shared__ float sums[2][512 * 8], totals[2][256];
  const float* of = stats + 2 * (size_t(image) * (C / per) + channel / per);
  const float mean = of[0], rstd = of[1];
  float a[8], d[8], by_a[8], by_d[8];
  for (int i = 0; i < 8; i++) {
    a[i] = A[size_t(image) * lead + channel + i];
    d[i] = D[size_t(image) * lead + channel + i];
    by_a[i] = by_d[i] = 0.0f;
  }
  for (int p = row; p < P; p += R) {
    Eight<T> in = *reinterpret_cast<const Eight<T>*>(x + start + size_t(p) * C);
    Eight<T> up = *reinterpret_cast<const Eight<T>*>(g + start + size_t(p) * C);
    for (int i = 0; i < 8; i++) {
      float xhat = (float(in.at[i]) - mean) * rstd;
      float gz = float(up.at[i]) * slope(a[i] * xhat + d[i], SILU);
      by_a[i] += gz * xhat;
      by_d[i] += gz;
    }
  }
  for (int i = 0; i < 8; i++) {
    sums[0][row * slab + 8 * column + i] = by_a[i];
    sums[1][row * slab + 8 * column + i] = by_d[i];
  }
  __syncthreads();
  for (int c = threadIdx.x; c < slab; c += blockDim.x) {
    float total_a = 0.0f, total_d = 0.0f;
    for (int r = 0; r < R; r++) {
      total_a += sums[0][r * slab + c];
      total_d += sums[1][r * slab + c];
    }
    const size_t at = size_t(image) * C + first + c;
    dA[at] = total_a;
    dD[at] = total_d;
    const float by = A[size_t(image) * lead + first + c];
    totals[0][c] = by * total_a;
    totals[1][c] = by * total_d;
  }
  __syncthreads();
  float along = 0.0f, level = 0.0f;  // means over the group of gz A xhat and of gz A
  for (int c = group * per; c < (group + 1) * per; c++) {
    along += totals[0][c];
    level += totals[1][c];
  }
  along /= count;
  level /= count;
  for (int p = row; p < P; p += R) {
    Eight<T> in = *reinterpret_cast<const Eight<T>*>(x + start + size_t(p) * C), out;
    Eight<T> up = *reinterpret_cast<const Eight<T>*>(g + start + size_t(p) * C);
    for (int i = 0; i < 8; i++) {
      float xhat = (float(in.at[i]) - mean) * rstd;
      float gz = float(up.at[i]) * slope(a[i] * xhat + d[i], SILU);
      out.at[i] = T(rstd * (gz * a[i] - level - xhat * along));
    }
    *reinterpret_cast<Eight<T>*>(dx + start + size_t(p) * C) = out;
  }
"""

TANGENT = r"""
  constexpr int N = 4;
  __shared__ float sums[N][512], totals[N][32];
  const float origin = float(x[size_t(image) * P * C + first + group * per]);
  float mine[N] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int p = row; p < P; p += R) {
    Eight<T> in = *reinterpret_cast<const Eight<T>*>(x + start + size_t(p) * C);
    Eight<T> by = *reinterpret_cast<const Eight<T>*>(t + start + size_t(p) * C);
    for (int i = 0; i < 8; i++) {
      float u = float(in.at[i]) - origin, v = float(by.at[i]);
      mine[0] += u;
      mine[1] += u * u;
      mine[2] += v;
      mine[3] += v * u;
    }
  }
  /*REDUCE*/
  const float shift = totals[0][group] / count;
  const float mean = origin + shift, level = totals[2][group] / count;
  const float rstd = rsqrtf(fmaxf(totals[1][group] / count - shift * shift, 0.0f) + eps[0]);
  const float along = (totals[3][group] / count - shift * level) * rstd;  // mean of t xhat
  float a[8], d[8], da[8], dd[8];
  for (int i = 0; i < 8; i++) {
    const size_t at = size_t(image) * lead + channel + i;
    a[i] = A[at];
    d[i] = D[at];
    da[i] = tA[at];
    dd[i] = tD[at];
  }
  for (int p = row; p < P; p += R) {
    Eight<T> in = *reinterpret_cast<const Eight<T>*>(x + start + size_t(p) * C), out;
    Eight<T> by = *reinterpret_cast<const Eight<T>*>(t + start + size_t(p) * C);
    for (int i = 0; i < 8; i++) {
      float xhat = (float(in.at[i]) - mean) * rstd;
      float moved = rstd * (float(by.at[i]) - level - xhat * along);
      out.at[i] = T(slope(a[i] * xhat + d[i], SILU) * (a[i] * moved + da[i] * xhat + dd[i]));
    }
    *reinterpret_cast<Eight<T>*>(ty + start + size_t(p) * C) = out;
  }
"""


def slab_of(channels: int, groups: int) -> int | None:
    """Channels of a block: whole groups, at least 64 channels or all; None where the kernels don't fit."""
    per = channels // groups
    if per % WIDTH:
        return None
    sizes = [per * n for n in range(1, groups + 1) if groups % n == 0 and (per * n >= 64 or n == groups)]
    return sizes[0] if sizes[0] <= 256 else None


def rows_of(slab: int) -> int:
    """Pixels that a block reads at once, so that its threads are whole warps, at most 512."""
    vectors = slab // WIDTH
    step = 32 // math.gcd(vectors, 32)
    return max(step, THREADS // vectors // step * step)


def run(
    name: str, body: str, inputs: dict, outputs: dict, groups: int, silu: bool, eps: float | None = None
) -> list[mx.array]:
    """Runs a kernel over every image and slab; outputs: name to (shape, dtype)."""
    x = inputs["x"]
    channels = x.shape[-1]
    slab = slab_of(channels, groups)
    assert slab is not None
    rows = rows_of(slab)
    lead = channels if len(inputs["A"]) == x.shape[0] else 0
    sizes = [x.size // (x.shape[0] * channels), channels, channels // groups, slab, rows, lead]
    source = BEGIN + body.replace("/*REDUCE*/", REDUCE)
    blocks, threads = x.shape[0] * channels // slab, slab // WIDTH * rows
    return launch(f"group_norm_{name}", HEADER, source, inputs, outputs, {"SILU": silu}, sizes, eps, blocks, threads)


def forward(x, a, d, groups: int, eps: float, silu: bool) -> list[mx.array]:
    """y like x, and mean and 1 / std of every group, (B, groups, 2) float32."""
    inputs = {"x": x, "A": a, "D": d}
    outputs = {"y": (x.shape, x.dtype), "stats": ((x.shape[0], groups, 2), mx.float32)}
    return run("forward", FORWARD, inputs, outputs, groups, silu, eps)


def backward(x, a, d, stats, g, groups: int, silu: bool) -> list[mx.array]:
    """Gradients by x, a and d of the sum of g y."""
    inputs = {"x": x, "g": g, "A": a, "D": d, "stats": stats}
    rows = (x.shape[0], x.shape[-1])
    outputs = {"dx": (x.shape, x.dtype), "dA": (rows, mx.float32), "dD": (rows, mx.float32)}
    dx, da, dd = run("backward", BACKWARD, inputs, outputs, groups, silu)
    return [dx, *(v if v.shape == a.shape else v.sum(axis=0, keepdims=True) for v in (da, dd))]


def tangent(x, a, d, t, ta, td, groups: int, eps: float, silu: bool) -> mx.array:
    """The jvp of y along (t, ta, td)."""
    inputs = {"x": x, "t": t, "A": a, "D": d, "tA": ta, "tD": td}
    return run("tangent", TANGENT, inputs, {"ty": (x.shape, x.dtype)}, groups, silu, eps)[0]
