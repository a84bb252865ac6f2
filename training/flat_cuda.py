"""Arrays end to end by one CUDA kernel, where mx.concatenate takes one for each array."""

import mlx.core as mx

from runtime.cuda_launch import available, launch

ALIGNMENT = 64  # every array starts at a multiple of so many numbers, as matrix products and vector loads like it
CHUNK = 1 << 14  # numbers that a block copies
THREADS = 256
MOST = 400  # arrays: their addresses must fit into the 4 KB that a kernel is called with

HEADER = r"""
struct alignas(16) Piece { unsigned int at[4]; };
"""

# table: the first block of each array and the number of blocks (N + 1), where it begins in y / 64 (N), its size (N).
BODY = r"""
  const int block = blockIdx.x;
  int k = 0;
  for (int high = N - 1; k < high;) {
    const int middle = (k + high + 1) / 2;
    if (table[middle] <= block) k = middle; else high = middle - 1;
  }
  const T* from;
  switch (k) {
%s
    default: from = x;
  }
  const int begin = (block - table[k]) * CHUNK, size = table[2 * N + 1 + k];
  const int left = size - begin, room = (size + 63) / 64 * 64 - begin;
  const int count = left < CHUNK ? left : CHUNK, filled = room < CHUNK ? room : CHUNK;
  from += begin;
  T* to = y + (size_t(table[N + 1 + k]) * 64 + begin);
  int done = 0;
  if (size_t(from) %% 16 == 0) {  // of a view it may not be
    const int pieces = count * int(sizeof(T)) / 16;
    for (int i = threadIdx.x; i < pieces; i += THREADS)
      reinterpret_cast<Piece*>(to)[i] = reinterpret_cast<const Piece*>(from)[i];
    done = pieces * 16 / int(sizeof(T));
  }
  for (int i = done + threadIdx.x; i < filled; i += THREADS) to[i] = i < count ? from[i] : T(0.0f);
"""


def takes(arrays: list[mx.array]) -> bool:
    """Whether the kernel can join these: on an NVIDIA GPU, of one floating type."""
    return len(arrays) > 1 and available(arrays[0]) and len({array.dtype for array in arrays}) == 1


def join(arrays: list[mx.array]) -> mx.array:
    """The vector (N,) of all arrays' numbers, each array from a multiple of 64 on, zeros between them."""
    parts = [_join(arrays[i : i + MOST]) for i in range(0, len(arrays), MOST)]
    return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def table(sizes: list[int]) -> tuple[list[int], int, int]:
    """What the kernel reads of arrays of these sizes, how many blocks take part, and how long the vector is."""
    firsts, starts, block, end = [], [], 0, 0
    for size in sizes:
        firsts.append(block)
        starts.append(end // ALIGNMENT)
        block, end = block + (size + CHUNK - 1) // CHUNK, end + size + -size % ALIGNMENT
    return [*firsts, block, *starts, *sizes], block, end


def _join(arrays: list[mx.array]) -> mx.array:
    words, blocks, length = table([array.size for array in arrays])
    cases = "\n".join(f"    case {i}: from = a{i}; break;" for i in range(1, len(arrays)))
    inputs = {"x": arrays[0]} | {f"a{i}": array for i, array in enumerate(arrays) if i}
    constants = {"N": len(arrays), "CHUNK": CHUNK, "THREADS": THREADS}
    inputs["table"] = mx.array(words, mx.int32)
    outputs = {"y": ((length,), arrays[0].dtype)}
    return launch("join", HEADER, BODY % cases, inputs, outputs, constants, [0], None, blocks, THREADS)[0]
