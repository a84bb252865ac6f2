"""Made images in Fashion-MNIST's files, so that examples run without it."""

import struct

import mlx.core as mx
import numpy as np

from runtime.op import Context
from runtime.seed import step_key
from runtime.upload import to_device


def clothes(folder, train=64, test=32):
    """IDX files of noisy images (28, 28) in ten classes, each bright in a strip of its own; returns the folder.

    Seeds the initial weights of what is built next, too.
    """
    mx.random.seed(0)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 7] += 180
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())
    return str(folder)


def steps(estimator, count, fetch=()):
    """The batches of the first steps and what each returned, as NumPy; weights move as in a fit."""
    batches = [to_device(batch) for batch in estimator.pipeline.get_results(num_steps=count)]
    keys = [step_key(estimator.seed, i, 0) for i in range(count)]
    outs = [estimator.train_step(batch, key, fetch) for batch, key in zip(batches, keys, strict=True)]
    return batches, [{name: np.array(value) for name, value in out.items()} for out in outs]


def context(key=None):
    """What an op that is called alone gets."""
    return Context("train", mx.random.key(0) if key is None else key, mx.array(0), mx.array(0))
