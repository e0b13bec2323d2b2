"""Steps of an extractor at the paper's width, in the original's Keras or in this package.

    python original_steps.py {original,jetatag} EXTRACTOR {train,infer}

computes a step for every line of its input, and prints the seconds that it took: `bench.py
--original` runs two of these in turns, since TensorFlow and torch do not go together in one
process. A training step ends with Adam; the loss is the mean square of the features.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

BATCH, WIDTH, RATE = 4, 128, 1e-4


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (BATCH, *shape)).astype(np.float32)


def original(name: str, mode: str) -> Callable[[], object]:
    import tensorflow as tf
    import tf_keras as keras
    from saved_models import ENCODERS

    make, shape = ENCODERS[name]
    model, waveform = make(WIDTH), tf.constant(noise(*shape))
    optimizer = keras.optimizers.Adam(RATE)

    @tf.function
    def train() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(waveform, training=True)))
        weights = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    return train if mode == "train" else tf.function(lambda: model(waveform, training=False))


def jetatag(name: str, mode: str) -> Callable[[], object]:
    import torch
    from torch import nn

    from jetatag.config import RunConfig
    from jetatag.extractors import build_extractor
    from jetatag.training import processes
    from jetatag.training.optimizers import PUBLISHED

    config = RunConfig(extractor=name, width=WIDTH, batch_size=BATCH, device="cpu")
    fabric, extractor = processes.launch(config), build_extractor(name, width=WIDTH)
    processes.place(nn.ModuleDict({"extractor": extractor}), config, fabric)
    waveform = torch.from_numpy(noise(config.crop_samples))
    optimizer = PUBLISHED["adam"](extractor.parameters(), lr=RATE)

    def train() -> None:
        optimizer.zero_grad()
        extractor(waveform).square().mean().backward()
        optimizer.step()

    if mode == "train":
        return train
    model = processes.folded(extractor, config, fabric)
    return torch.inference_mode()(lambda: model(waveform))


if __name__ == "__main__":
    step = {"original": original, "jetatag": jetatag}[sys.argv[1]](*sys.argv[2:])
    for _ in sys.stdin:
        begun = time.perf_counter()
        step()
        print(time.perf_counter() - begun, flush=True)
