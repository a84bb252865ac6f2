"""Group normalisation, its gradient and its jvp as one CUDA kernel each, for (B, H, W, C) with affine rows and SiLU.

    y = act(A xhat + D),   xhat = (x - mean) / std over a group's channels and all pixels
    A = weight (1 + scale),   D = bias (1 + scale) + shift,   modulation (B, 2C) holds scale and shift, if it is there

Weights, modulation and their gradients are read and written in their own types; everything is computed in float32.

A block takes one image and a slab of whole groups, about 64 channels; a thread takes 8 neighbouring channels and every
R-th pixel. Each kernel reads its image twice: the second time it comes from the L2 cache.
"""

import math

import mlx.core as mx

from models.column_sums_cuda import PUT, short
from runtime.cuda_launch import EIGHT, THREADS, launch

WIDTH = 8  # channels of a thread

HEADER = (
    PUT
    + EIGHT
    + r"""
__device__ inline float slope(float z, bool silu) {
  if (!silu) return 1.0f;
  float s = 1.0f / (1.0f + __expf(-z));
  return s * (1.0f + z * (1.0f - s));
}

__device__ inline float value(float z, bool silu) { return silu ? z / (1.0f + __expf(-z)) : z; }
"""
)

# What every kernel begins with. dims: P pixels, C channels, channels of a group, channels of a slab, R pixel rows.
BEGIN = r"""
  const int P = dims[0], C = dims[1], per = dims[2], slab = dims[3], R = dims[4];
  const int V = slab / 8, slabs = C / slab, groups = slab / per, vectors = per / 8;
  const int image = blockIdx.x / slabs, first = (blockIdx.x % slabs) * slab;
  const int column = threadIdx.x % V, row = threadIdx.x / V;
  const int group = column / vectors, channel = first + 8 * column;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const size_t start = size_t(image) * P * C + channel;
  const float count = float(per) * float(P);
"""

# A and D of channel c, and their tangents ta and td; with the factor of the weights: 1, or 1 + scale.
AFFINE = r"""
  const auto factor = [&](int c) { return 1.0f; };
  const auto affine = [&](int c, float& a, float& d) { a = float(weight[c]); d = float(bias[c]); };
"""
MODULATED = r"""
  const auto* scale = modulation + size_t(image) * 2 * C;
  const auto factor = [&](int c) { return 1.0f + float(scale[c]); };
  const auto affine = [&](int c, float& a, float& d) {
    a = float(weight[c]) * factor(c);
    d = float(bias[c]) * factor(c) + float(scale[C + c]);
  };
"""
WEIGHTS_MOVE = "    ta += float(tweight[c]) * factor(c); td += float(tbias[c]) * factor(c);\n"
MODULATION_MOVES = r"""
    const auto* along = tmodulation + size_t(image) * 2 * C;
    ta += float(weight[c]) * float(along[c]);
    td += float(bias[c]) * float(along[c]) + float(along[C + c]);
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
    affine(channel + i, a[i], d[i]);
    a[i] *= rstd;
    d[i] -= a[i] * mean;
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
    affine(channel + i, a[i], d[i]);
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
    const size_t at = size_t(image) * 2 * C + first + c;
    part[at] = total_a * factor(first + c);
    part[at + C] = total_d * factor(first + c);
    /*MODULATION*/
    float by, unused;
    affine(first + c, by, unused);
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
    const int c = channel + i;
    float ta = 0.0f, td = 0.0f;
    affine(c, a[i], d[i]);
    /*MOVE*/
    da[i] = ta;
    dd[i] = td;
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

BY_MODULATION = r"""
    put(dmodulation + at, total_a * float(weight[first + c]) + total_d * float(bias[first + c]));
    put(dmodulation + at + C, total_d);
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
    sizes = [x.size // (x.shape[0] * channels), channels, channels // groups, slab, rows]
    source = BEGIN + (MODULATED if "modulation" in inputs else AFFINE) + body.replace("/*REDUCE*/", REDUCE)
    blocks, threads = x.shape[0] * channels // slab, slab // WIDTH * rows
    return launch(f"group_norm_{name}", HEADER, source, inputs, outputs, {"SILU": silu}, sizes, eps, blocks, threads)


def named(weight, bias, modulation=None, prefix: str = "") -> dict[str, mx.array]:
    """Those of the three that there are, by the names that the kernels know."""
    found = {"weight": weight, "bias": bias, "modulation": modulation}
    return {prefix + name: array for name, array in found.items() if array is not None}


def forward(x, *affine, groups: int, eps: float, silu: bool) -> list[mx.array]:
    """y like x, and mean and 1 / std of every group, (B, groups, 2) float32; affine: weight, bias, any modulation."""
    outputs = {"y": (x.shape, x.dtype), "stats": ((x.shape[0], groups, 2), mx.float32)}
    return run("forward", FORWARD, {"x": x, **named(*affine)}, outputs, groups, silu, eps)


def backward(x, *rest, groups: int, silu: bool) -> list[mx.array]:
    """Gradients by x and `affine` of the sum of g y; rest: affine, the statistics, g."""
    *affine, stats, g = rest
    given = named(*affine)
    inputs = {"x": x, "g": g, **given, "stats": stats}
    outputs = {"dx": (x.shape, x.dtype), "part": ((x.shape[0], 2 * x.shape[-1]), mx.float32)}
    if "modulation" in given:
        outputs["dmodulation"] = (given["modulation"].shape, given["modulation"].dtype)
    body = BACKWARD.replace("/*MODULATION*/", BY_MODULATION if "modulation" in given else "")
    dx, part, *by_modulation = run("backward", body, inputs, outputs, groups, silu)
    return [dx, *short(part, [given["weight"].dtype, given["bias"].dtype]), *by_modulation]


def tangent(arrays: list, tangents: list, groups: int, eps: float, silu: bool) -> mx.array:
    """The jvp of y at arrays (x, weight, bias, modulation if any) along tangents, None where they don't move."""
    x, weight, bias, *modulation = arrays
    t, *along = tangents
    given, moves = {"x": x, "t": mx.zeros_like(x) if t is None else t, **named(*arrays[1:])}, ""
    if along[0] is not None or along[1] is not None:
        still = (mx.zeros_like(a) if v is None else v for a, v in zip((weight, bias), along, strict=False))
        given |= named(*still, prefix="t")
        moves += WEIGHTS_MOVE
    if modulation and along[2] is not None:
        given["tmodulation"] = along[2]
        moves += MODULATION_MOVES
    body = TANGENT.replace("/*MOVE*/", moves)
    return run("tangent", body, given, {"ty": (x.shape, x.dtype)}, groups, silu, eps)[0]
