# SPDX-License-Identifier: Apache-2.0
"""TensorFlow on a GPU against TensorFlow on the CPU: operations, and a model that is trained."""

from __future__ import annotations

import os
from typing import Any, Callable, List

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy
import tensorflow as tf

tf.config.experimental.enable_tensor_float_32_execution(False)
gpus = tf.config.list_physical_devices("GPU")
print("GPUs", len(gpus))
assert gpus

random = numpy.random.default_rng(7)
LEFT = random.standard_normal((96, 64)).astype("f4")
RIGHT = random.standard_normal((64, 80)).astype("f4")
IMAGES = (4, 16, 32, 3)
FILTERS = random.standard_normal((3, 3, 3, 8)).astype("f4")


def both(name: str, function: Callable[..., Any], tolerance: float = 1e-5) -> None:
    with tf.device("/CPU:0"):
        expected = function(tf.constant(LEFT), tf.constant(RIGHT)).numpy()
    with tf.device("/GPU:0"):
        on_gpu = function(tf.constant(LEFT), tf.constant(RIGHT))
        assert "GPU" in on_gpu.device, on_gpu.device
        got = on_gpu.numpy()
    worst = float(numpy.abs(got - expected).max() / (1 + numpy.abs(expected).max()))
    assert worst <= tolerance, (name, worst)
    print(name, "agrees", got.shape)


both("elementwise", lambda a, b: tf.sqrt(tf.abs(a)) * 2 + tf.sin(a) / (1 + a * a))
both("reduce_sum", lambda a, b: tf.reduce_sum(a, axis=0))
both("reduce_max", lambda a, b: tf.reduce_max(a, axis=1))
both("softmax", lambda a, b: tf.nn.softmax(a))
both("matmul", tf.matmul)
both("matmul of doubles", lambda a, b: tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64)))
both("transpose", lambda a, b: tf.transpose(a))
both("gather", lambda a, b: tf.gather(a, [3, 1, 2]))
both("cumsum", lambda a, b: tf.cumsum(a, axis=1), 1e-4)
both("sort", lambda a, b: tf.sort(a, axis=1))
both("convolution", lambda a, b: tf.nn.conv2d(tf.reshape(a, IMAGES), FILTERS, 1, "SAME"))


def train(device: str) -> List[float]:
    tf.keras.utils.set_random_seed(11)
    images = random_images()
    labels = images.sum(axis=1).astype("i4") % 10
    with tf.device(device):
        model = tf.keras.Sequential(
            [
                tf.keras.layers.Input((784,)),
                tf.keras.layers.Dense(64, activation="relu"),
                tf.keras.layers.Dense(10),
            ]
        )
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=tf.keras.optimizers.Adam(1e-3), loss=loss, jit_compile=False)
        history = model.fit(images, labels, batch_size=32, epochs=3, shuffle=False, verbose=0)
    return [float(value) for value in history.history["loss"]]


def random_images() -> numpy.ndarray:
    return numpy.random.default_rng(3).random((256, 784), dtype="f4")


expected, got = train("/CPU:0"), train("/GPU:0")
worst = max(abs(a - b) / abs(a) for a, b in zip(expected, got))
print("model.fit losses agree", worst < 1e-3, "and fall", got[-1] < got[0])
assert worst < 1e-3 and got[-1] < got[0], (expected, got)
