"""A small GPT on the characters of Genesis, beside counting.

python scripts/run_estimator.py run examples/gpt.py --steps 1000
"""

import math
from typing import Any

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx
import numpy as np

from dataloaders.datasets.characters import CharacterDataset, decode, encode, genesis
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

HELD_OUT = 20_000  # characters at the end


def get_estimator(
    steps: int = 1000,
    batch_size: int = 32,
    context: int = 64,
    hidden: int = 128,
    depth: int = 2,
    heads: int = 4,
    learning_rate: float = 3e-3,
    text: str | None = None,
) -> Estimator:
    """An estimator of `steps` steps; "eval/bits" is the bits a character of the held-out end, in windows of `context`.

    The first characters of a window have little before them, so that a model reading on would do better.
    """
    text = genesis() if text is None else text
    alphabet = "".join(sorted(set(text)))
    pipeline = Pipeline(
        train_data=CharacterDataset(text[:-HELD_OUT], context, alphabet),
        eval_data=CharacterDataset(text[-HELD_OUT:], context, alphabet, stride=context),
        batch_size=batch_size,
    )
    model = build(
        model_fn=lambda: GPT(vocabulary=len(alphabet), context=context, hidden=hidden, depth=depth, heads=heads),
        optimizer_fn="adamw",
    )
    network = Network(
        ops=[
            ModelOp(model=model, inputs="x", outputs="logits"),
            CrossEntropy(inputs=("logits", "y"), outputs="ce", from_logits=True),
            LambdaOp(fn=lambda ce: ce / math.log(2), inputs="ce", outputs="bits", mode="!infer"),
            UpdateOp(model=model, loss_name="ce", clip=1.0),
        ]
    )
    traces = [
        LRScheduler(model=model, lr_fn=lambda step: cosine_decay(step, cycle_length=steps, init_lr=learning_rate)),
        WarmupScheduler(model=model, warmup_steps=max(1, steps // 20)),
        Logger(),
    ]
    return Estimator(
        pipeline=pipeline, network=network, epochs=1, traces=traces, train_steps_per_epoch=steps, monitor_names="bits"
    )


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
    text = genesis()
    alphabet = "".join(sorted(set(text)))
    for order in range(1, 8):
        print(f"{order}-gram: {NGram(text[:-HELD_OUT], order, alphabet).bits(text[-HELD_OUT:]):.3f} bits a character")
    print(f"GPT: {estimator.summary.latest['eval/bits']:.3f} bits a character")
    print(written(estimator.network.models["model"], alphabet, prompt))


if __name__ == "__main__":
    fastestimator_run()
