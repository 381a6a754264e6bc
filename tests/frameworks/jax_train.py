# SPDX-License-Identifier: Apache-2.0
"""JAX on a GPU against JAX on the CPU: jit, grad, matmul, sort, training of a small network."""

from __future__ import annotations

from typing import Any, Callable, List

import jax
import jax.numpy as jnp
import numpy

jax.config.update("jax_default_matmul_precision", "highest")
GPU, CPU = jax.devices("gpu")[0], jax.devices("cpu")[0]
print("GPUs", len(jax.devices("gpu")))

random = numpy.random.default_rng(7)
LEFT = random.standard_normal((96, 64)).astype("f4")
RIGHT = random.standard_normal((64, 80)).astype("f4")


def both(name: str, function: Callable[..., Any], tolerance: float = 1e-5) -> None:
    compiled = jax.jit(function)
    with jax.default_device(CPU):
        expected = numpy.asarray(compiled(LEFT, RIGHT))
    with jax.default_device(GPU):
        on_gpu = compiled(LEFT, RIGHT)
        assert on_gpu.devices() == {GPU}, on_gpu.devices()
    got = numpy.asarray(on_gpu)
    worst = float(numpy.abs(got - expected).max() / (1 + numpy.abs(expected).max()))
    assert worst <= tolerance, (name, worst)
    print(name, "agrees", got.shape)


both("elementwise", lambda a, b: jnp.sqrt(jnp.abs(a)) * 2 + jnp.sin(a) / (1 + a * a))
both("sum", lambda a, b: a.sum(axis=0))
both("softmax", lambda a, b: jax.nn.softmax(a))
both("matmul", lambda a, b: a @ b)
both("grad", lambda a, b: jax.grad(lambda w: jnp.tanh(w @ b).sum())(a))
both("sort", lambda a, b: jnp.sort(a, axis=1))
both("scan", lambda a, b: jnp.cumsum(a, axis=1), 1e-4)
both("convolution", lambda a, b: jnp.convolve(a[0], b[0]))


def loss(weights: List[Any], x: Any, y: Any) -> Any:
    hidden = jax.nn.relu(x @ weights[0])
    return ((hidden @ weights[1] - y) ** 2).mean()


def train(device: Any) -> List[float]:
    step = jax.jit(jax.value_and_grad(loss))
    with jax.default_device(device):
        rng = numpy.random.default_rng(1)
        weights = [
            jnp.asarray(rng.standard_normal(s).astype("f4") * 0.1) for s in ((64, 32), (32, 1))
        ]
        x, y = jnp.asarray(LEFT), jnp.asarray(LEFT.sum(axis=1, keepdims=True))
        losses = []
        for _ in range(20):
            value, gradient = step(weights, x, y)
            weights = [w - 0.02 * g for w, g in zip(weights, gradient)]
            losses.append(float(value))
    return losses


expected, got = train(CPU), train(GPU)
worst = max(abs(a - b) / abs(a) for a, b in zip(expected, got))
assert worst < 1e-3 and got[-1] < got[0], (expected, got)
print("training losses agree", worst < 1e-3, "and fall", got[-1] < got[0])
