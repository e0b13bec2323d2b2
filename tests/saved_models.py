"""The original's networks in Keras 2 with random weights, saved as its code saves them.

A script for test_import_original.py, in a process without torch: `python saved_models.py FOLDER
NAME…` saves the networks NAME under FOLDER, and in `<encoder>-answers.npz` their outputs for the
waveforms (clip, sample) and labels (clip, tag) in FOLDER's `given.npz`.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

WIDTH, DIM = 4, 8


def sample_cnn(width: int, residual: bool, activation: str = "relu") -> keras.Model:
    """Sample-CNN, functional; the residual shortcut is made before its block's convolutions."""
    waveform = x = layers.Input((3**10, 1))
    x = layers.Conv1D(width, 3, strides=3)(x)
    x = layers.Activation(activation)(layers.BatchNormalization()(x))
    outputs = []
    for n_channels in (width * times for times in (1, 1, 2, 2, 2, 2, 2, 2, 4)):
        x = residual_block(x, n_channels) if residual else basic_block(x, n_channels)
        outputs.append(layers.GlobalMaxPool1D()(x))
    x = layers.Concatenate()(outputs[-3:])
    x = layers.BatchNormalization()(layers.Dense(8 * width)(x))
    return keras.Model(waveform, layers.Activation("relu")(x))


def basic_block(x, n_channels: int):
    x = layers.BatchNormalization()(layers.Conv1D(n_channels, 3, padding="same")(x))
    return layers.MaxPool1D(3)(layers.Activation("relu")(x))


def residual_block(x, n_channels: int):
    shortcut = x
    if n_channels != x.shape[-1]:
        shortcut = layers.BatchNormalization()(layers.Conv1D(n_channels, 1)(x))
    x = layers.BatchNormalization()(layers.Conv1D(n_channels, 3, padding="same")(x))
    x = layers.Dropout(0.2)(layers.Activation("relu")(x))
    x = layers.BatchNormalization()(layers.Conv1D(n_channels, 3, padding="same")(x))
    return layers.MaxPool1D(3)(layers.Activation("relu")(layers.Add()([shortcut, x])))


class HarmonicSTFT(layers.Layer):
    """(batch, sample) → (batch, level, frame, 6) in dB, with the code's order of the filters."""

    def __init__(self):
        super().__init__()
        self.quality = tf.Variable([1.3])  # named Variable:0
        notes = np.arange(24, 88, 0.5)
        self.centres = np.outer(np.arange(1, 7), 440 * 2 ** ((notes - 69) / 12)).ravel()
        self.bins = np.linspace(0, 8000, 257)[:, None]

    def call(self, waveform):
        frames = tf.signal.frame(tf.pad(waveform, [[0, 0], [256, 0]]), 512, 256)
        spectrum = tf.abs(tf.signal.rfft(frames * tf.signal.hann_window(512)))
        bandwidth = (0.1079 * self.centres + 24.7).astype(np.float32) / self.quality
        distance = np.abs(self.bins - self.centres).astype(np.float32)
        energy = spectrum @ tf.maximum(0.0, 1 - 2 * distance / bandwidth)
        energy = tf.reshape(energy, [-1, energy.shape[1], 128, 6])
        level = 10 / np.log(10) * tf.math.log(tf.maximum(energy, 1e-5))
        level = tf.maximum(level, tf.reduce_max(level, [1, 2, 3], keepdims=True) - 80)
        return tf.transpose(level, [0, 2, 1, 3])


class Conv3_2d(layers.Layer):
    def __init__(self, n_channels, pool):
        super().__init__()
        self.conv = layers.Conv2D(n_channels, 3, padding="same")
        self.bn = layers.BatchNormalization()
        self.pool = layers.MaxPooling2D(pool)

    def call(self, x, training=False):
        return self.pool(tf.nn.relu(self.bn(self.conv(x), training=training)))


class Conv3_2d_resmp(layers.Layer):
    def __init__(self, n_channels, pool):
        super().__init__()
        self.conv_1 = layers.Conv2D(n_channels, 3, padding="same")
        self.bn_1 = layers.BatchNormalization()
        self.conv_2 = layers.Conv2D(n_channels, 3, padding="same")
        self.bn_2 = layers.BatchNormalization()
        self.pool = layers.MaxPooling2D(pool)

    def call(self, x, training=False):
        residual = tf.nn.relu(self.bn_1(self.conv_1(x), training=training))
        residual = self.bn_2(self.conv_2(residual), training=training)
        return self.pool(tf.nn.relu(x + residual))


class Wave_ResNet(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.res1 = Conv3_2d(width, 2)
        self.res2 = Conv3_2d_resmp(width, 2)
        self.res3 = Conv3_2d_resmp(width, 2)
        self.res4 = Conv3_2d(2 * width, 2)
        self.res5 = Conv3_2d_resmp(2 * width, 2)
        self.res6 = Conv3_2d_resmp(2 * width, (2, 3))
        self.res7 = Conv3_2d(4 * width, (2, 3))

    def call(self, x, training=False):
        outputs = []
        for i in range(1, 8):
            x = getattr(self, f"res{i}")(x, training=training)
            outputs.append(tf.reduce_max(x, [1, 2]))
        return tf.concat(outputs[-3:], axis=1)


class HarmonicCNN(keras.Model):
    def __init__(self, width):
        super().__init__()
        self.hstft = HarmonicSTFT()
        self.hstft_bn = layers.BatchNormalization()
        self.conv_2d = Wave_ResNet(width)

    def call(self, x, training=False):
        return self.conv_2d(self.hstft_bn(self.hstft(x), training=training), training=training)


class DenseLeakyReluLayer(layers.Layer):
    def __init__(self, n):
        super().__init__()
        self.dense = layers.Dense(n)
        self.norm = layers.BatchNormalization()  # made and never called, as in the original
        self.lrelu = layers.LeakyReLU(alpha=0.3)

    def call(self, x):
        return self.lrelu(self.dense(x))


class Head(keras.Model):
    """`n_hidden` dense layers of `n`; unit norm where asked; a last layer where it has a size."""

    def __init__(self, n, n_hidden=2, unit=True, n_out=0, activation="sigmoid"):
        super().__init__(name="")
        self.hidden = [DenseLeakyReluLayer(n) for _ in range(n_hidden)]
        self.unit = unit
        self.dropout = layers.Dropout(0.5)
        self.last = layers.Dense(n_out, activation=activation) if n_out else None

    def call(self, x, training=False):
        for layer in self.hidden:
            x = layer(x)
        x = x / tf.norm(x, axis=1, keepdims=True) if self.unit else x
        return self.last(self.dropout(x, training=training)) if self.last else x


def draw_weights(model: keras.Model) -> keras.Model:
    """Random weights and moving statistics that preserve the scale of the signal."""
    rng = np.random.default_rng(len(model.weights))
    for weight in model.weights:
        leaf, shape = weight.name.split("/")[-1].split(":")[0], tuple(weight.shape)
        if leaf == "kernel":
            weight.assign(rng.standard_normal(shape) * (2 / np.prod(shape[:-1])) ** 0.5)
        elif leaf in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.7, 1.3, shape))
        elif leaf in ("bias", "beta", "moving_mean"):
            weight.assign(rng.uniform(-0.2, 0.2, shape))
    return model


def built(model: keras.Model, *shape: int) -> keras.Model:
    """`model`, built by an input row of `shape`, with random weights."""
    model(np.full((1, *shape), 0.1, np.float32))
    return draw_weights(model)


ENCODERS = {
    "harmonic_cnn": (HarmonicCNN, (80_000,)),
    "sample_cnn": (partial(sample_cnn, residual=False), (3**10, 1)),
    "sample_cnn_res": (partial(sample_cnn, residual=True), (3**10, 1)),
}
"""Makers, which take the width, and the shape of a waveform."""


def make_heads(n_tags: int) -> dict[str, keras.Model]:
    return {
        "projector": built(Head(DIM), 8 * WIDTH),
        "tag_encoder": built(Head(DIM), n_tags),
        "tag_decoder": built(Head(DIM, n_hidden=1, unit=False, n_out=n_tags), DIM),
        "classifier": built(Head(256, n_out=n_tags), 8 * WIDTH),
    }


def answer(h: np.ndarray, labels: np.ndarray, heads: dict) -> dict[str, np.ndarray]:
    """The heads' outputs for features and labels, by our names."""
    z_tag = heads["tag_encoder"](labels)
    answers = {"h": h, "probs": heads["classifier"](h), "z_audio": heads["projector"](h)}
    answers |= {"z_tag": z_tag, "decoded": heads["tag_decoder"](z_tag)}
    return {name: np.asarray(values) for name, values in answers.items()}


def main(folder: str, *names: str) -> None:
    tf.get_logger().setLevel("ERROR")  # no warnings of layers that are never called
    given = np.load(Path(folder) / "given.npz")
    models = heads = make_heads(given["labels"].shape[1])
    for name in set(names) & set(ENCODERS):
        make, shape = ENCODERS[name]
        encoder = built(make(WIDTH), *shape)
        models = models | {name: encoder}
        h = encoder(given["waveform"][:, : shape[0]].reshape(-1, *shape))
        np.savez(Path(folder) / f"{name}-answers.npz", **answer(h, given["labels"], heads))
    for name in names:
        models[name].save(Path(folder) / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
