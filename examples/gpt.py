"""A small GPT on the characters of Genesis, beside counting.

python scripts/run_estimator.py run examples/gpt.py --steps 1000
"""

import math
from typing import Any

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx
import numpy as np

from dataloaders.datasets.characters import HELD_OUT, decode, encode, genesis, windows
from dataloaders.pipeline import Pipeline
from evaluation.ngram import NGram
from models.gpt import GPT
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from ops.tensor.shapes import LambdaOp
from optimizers.decays import cosine_decay
from traces.adapt.lr_scheduler import LRScheduler, WarmupScheduler
from traces.io.logger import Logger
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp


def bits(loss: mx.array) -> mx.array:
    """Nats as bits."""
    return loss / math.log(2)


def get_estimator(
    steps: int = 1000,
    batch_size: int = 32,
    context: int = 64,
    hidden: int = 128,
    depth: int = 2,
    heads: int = 4,
    learning_rate: float = 3e-3,
    log_steps: int = 100,
    text: str | None = None,
    seed: int = 0,
) -> Estimator:
    """An estimator of `steps` steps; "eval/bits" is the bits a character of the held-out end, in windows of `context`.

    The first characters of a window have little before them, so that a model reading on would do better.
    """
    mx.random.seed(seed)  # of the initial weights
    train_data, eval_data = (windows(part, context, text) for part in ("train", "eval"))
    pipeline = Pipeline(train_data=train_data, eval_data=eval_data, batch_size=batch_size, seed=seed)
    vocabulary = len(train_data.alphabet)
    model = build(
        model_fn=lambda: GPT(vocabulary=vocabulary, context=context, hidden=hidden, depth=depth, heads=heads),
        optimizer_fn="adamw",
    )
    network = Network(
        ops=[
            ModelOp(model=model, inputs="x", outputs="logits"),
            CrossEntropy(inputs=("logits", "y"), outputs="loss", from_logits=True),
            LambdaOp(fn=bits, inputs="loss", outputs="bits", mode="!infer"),
            UpdateOp(model=model, loss_name="loss", clip=1.0),
        ]
    )
    traces = [
        LRScheduler(model=model, lr_fn=lambda step: cosine_decay(step, cycle_length=steps, init_lr=learning_rate)),
        WarmupScheduler(model=model, warmup_steps=max(1, steps // 20)),
        Logger(log_steps=log_steps),
    ]
    return Estimator(pipeline, network, 1, traces, seed=seed, train_steps_per_epoch=steps, monitor_names="bits")


def written(model: Any, alphabet: str, prompt: str, count: int = 300, temperature: float = 0.8) -> str:
    """The prompt and `count` characters that the GPT draws after it."""
    model.eval()
    start = mx.array(encode(prompt, alphabet))[None]
    drawn = mx.concatenate(list(model.generate(start, count, mx.random.key(0), temperature)))
    return prompt + decode(np.array(drawn), alphabet)


def fastestimator_run(steps: int = 1000, batch_size: int = 32, context: int = 64, hidden: int = 128, depth: int = 2,
                      learning_rate: float = 3e-3, prompt: str = "And God said") -> None:  # fmt: skip
    """Trains, prints bits a character beside those of n-grams counted in the same text, and a sample."""
    estimator = get_estimator(steps, batch_size, context, hidden, depth, learning_rate=learning_rate)
    estimator.fit()
    train, held_out = genesis()[:-HELD_OUT], genesis()[-HELD_OUT:]
    alphabet = estimator.pipeline.source("train").alphabet
    for order in range(1, 8):
        print(f"{order}-gram: {NGram(train, order, alphabet).bits(held_out):.3f} bits a character")
    print(f"GPT: {estimator.summary.latest['eval/bits']:.3f} bits a character")
    print(written(estimator.network.models["model"], alphabet, prompt))


if __name__ == "__main__":
    fastestimator_run()
