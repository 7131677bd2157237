"""JAX: what its CUDA plugin does from start to end, and how it runs out of its preallocated pool."""

import jax
import jax.numpy as jnp
import numpy
from jax.errors import JaxRuntimeError

from client import fill, say, steps

# Never the CPU: JAX falls back to it without a word to its caller.
(gpu,) = jax.devices()
assert gpu.platform == "gpu", gpu


def copies():
    there = numpy.arange(1000.0, dtype="f")
    assert (numpy.asarray(jax.device_put(there)) == there).all()


def kernels():
    numbers = jnp.arange(1000.0)
    jax.jit(lambda x: jnp.tanh(x) * 2 + 1)(numbers).block_until_ready()
    (jnp.ones((64, 64)) @ jnp.ones((64, 64))).block_until_ready()
    jax.random.normal(jax.random.key(0), (1000,)).block_until_ready()


def training():
    def loss(weights, data):
        return jnp.mean(jnp.tanh(data @ weights) ** 2)

    weights, data = jnp.ones((64, 64)), jnp.ones((8, 64))
    for _ in range(3):
        weights -= 0.1 * jax.jit(jax.grad(loss))(weights, data)
    weights.block_until_ready()


def preallocation():
    # JAX takes three quarters of what the device says that it has.
    limit = gpu.memory_stats()["bytes_limit"]
    say("limit", limit)


def out_of_memory():
    take = jax.jit(lambda: jnp.zeros((256 << 20,), jnp.uint8))
    told = fill(256 << 20, lambda _: take().block_until_ready(), JaxRuntimeError)
    assert "RESOURCE_EXHAUSTED" in told, told


say("device", gpu.device_kind)
steps(copies, kernels, training, preallocation, out_of_memory)
