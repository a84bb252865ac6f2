"""Affine maps of images without aliasing: twice the pixels by a wavelet filter, bilinear samples, half the pixels."""

import numpy as np

# Low-pass filter of the symlet of order 6 (Daubechies, Ten Lectures on Wavelets, 1992, table 6.3). It is orthogonal to
# its own even shifts, so that doubling and halving alone give the image back.
SYM6 = np.array([
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
])  # fmt: skip
EDGE = len(SYM6) // 4  # pixels computed beyond each side, so that the halving has neighbours
CHUNK = 16  # images warped at a time: their samples stay in the cache
ONE_THREAD = 2**18  # multiplications up to which OpenBLAS keeps a product in the calling thread


def reflected(length: int, before: int, after: int) -> np.ndarray:
    """Which pixel of a row lies at each place (before + length + after,) of it extended by mirror images of itself."""
    places = np.arange(-before, length + after)
    period = max(2 * length - 2, 1)
    return length - 1 - np.abs(length - 1 - places % period)


def doubling(length: int, before: int, after: int) -> np.ndarray:
    """(2 (length + before + after), length) float32: extends a row of pixels by reflection and doubles its rate."""
    wide = length + before + after
    taps = len(SYM6) // 2 - 1 + np.arange(2 * wide)[:, None] - 2 * np.arange(wide)
    upsampled = np.where((taps >= 0) & (taps < len(SYM6)), SYM6[np.clip(taps, 0, len(SYM6) - 1)], 0)
    matrix = np.zeros((2 * wide, length))
    np.add.at(matrix.T, reflected(length, before, after), upsampled.T)
    return matrix.astype(np.float32)


def halving(length: int) -> np.ndarray:
    """(length, 2 (length + 2 EDGE)) float32: back from twice the rate, the extra edge cut off."""
    taps = np.arange(2 * (length + 2 * EDGE)) - 2 * np.arange(length)[:, None] - 1
    return np.where((taps >= 0) & (taps < len(SYM6)), SYM6[np.clip(taps, 0, len(SYM6) - 1)], 0).astype(np.float32)


def margins(inverse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels (4,) at left, top, right and bottom that images must be extended by, for inverse maps (B, 3, 3)."""
    reach = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], np.float32) * [*reach, 1]
    mapped = (inverse @ corners.T.astype(np.float32))[:, :2].transpose(1, 0, 2).reshape(2, -1)
    outside = np.concatenate([-mapped, mapped]).max(axis=1) + 2 * EDGE - np.tile(reach, 2)
    return np.ceil(np.clip(outside, 0, np.tile(2 * reach, 2))).astype(int)


def warped(images: np.ndarray, inverse: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Images (B, H, W, C) moved by affine maps, given from result to source: inverse (B, 3, 3) in pixels about the
    centre, x to the right and y down. margin: what `margins` says."""
    _, height, width, _ = images.shape
    left, top, right, bottom = margin
    rows, columns = doubling(height, top, bottom), doubling(width, left, right)
    back = halving(height), halving(width)
    inverse = inverse.astype(np.float32)
    inverse[:, :2, 2] += np.array([(left - right) / 2, (top - bottom) / 2], np.float32)
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        sampled = bilinear(spread(planes[part], rows, columns), inverse[part], back[0].shape[1], back[1].shape[1])
        planes[part] = spread(sampled, *back)
    return planes.transpose(0, 2, 3, 1)


def spread(planes: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A linear map of rows (h, H) and one of columns (w, W) applied to (B, C, H, W) -> (B, C, h, w).

    In products too small for OpenBLAS's threads, which cost more than they give where loaders have threads themselves.
    """
    wide = planes @ columns.T
    blocks = np.array_split(rows, -(-rows.size * len(columns) // ONE_THREAD))
    return np.concatenate([block @ wide for block in blocks], axis=2)


def bilinear(planes: np.ndarray, inverse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Samples (B, C, height, width) of planes (B, C, H, W) at twice the rate; beyond their edge they are 0."""
    count, channels, tall, wide = planes.shape
    # Pixel k of a doubled row of n lies at (k + 1 - n / 2) / 2 about its centre: the filter delays by half a pixel.
    x = (np.arange(width, dtype=np.float32) + 1 - width / 2) / 2
    y = (np.arange(height, dtype=np.float32) + 1 - height / 2) / 2
    m = inverse[:, :2, :, None, None]
    places = m[:, :, 0] * x + m[:, :, 1] * y[:, None] + m[:, :, 2]  # (B, 2, height, width)
    u, v = 2 * places[:, 0] - 1 + wide / 2, 2 * places[:, 1] - 1 + tall / 2
    left, top = np.floor(u), np.floor(v)
    across, down = u - left, v - top
    ringed = np.zeros((channels, count, tall + 2, wide + 2), np.float32)
    ringed[..., 1:-1, 1:-1] = planes.transpose(1, 0, 2, 3)
    first = (np.arange(count, dtype=np.int32) * (tall + 2) * (wide + 2))[:, None, None]
    columns = [np.clip(left + 1 + k, 0, wide + 1).astype(np.int32) for k in (0, 1)]
    rows = [np.clip(top + 1 + k, 0, tall + 1).astype(np.int32) * (wide + 2) + first for k in (0, 1)]
    corners = [[row + column for column in columns] for row in rows]
    result = np.empty((count, channels, height, width), np.float32)
    for channel, flat in enumerate(ringed.reshape(channels, -1)):
        high, low = (mixed(flat.take(a), flat.take(b), across) for a, b in corners)
        result[:, channel] = mixed(high, low, down)
    return result


def mixed(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """a at share 0, b at share 1, all of one shape; b is overwritten."""
    b -= a
    b *= share
    b += a
    return b
