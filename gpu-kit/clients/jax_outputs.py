"""JAX: what a training and a convolution compute, to the bit. With --preallocate, that it starts as it does by default,
when it takes three quarters of the card at once."""

import argparse
import os

from kit_client import digest, missing, say, skip

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--preallocate", action="store_true")
arguments = arguments.parse_args()

# JAX reads all of these when it is imported or starts; what the environment says of the fraction would change what the
# quarters are three of.
for variable in ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_ALLOCATOR"):
    os.environ.pop(variable, None)
if not arguments.preallocate:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
# Autotuning measures which algorithm is the fastest, and so may choose another one in the next run.
flags = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()

jax = missing("jax")
jnp = missing("jax.numpy")
numpy = missing("numpy")
try:
    # By name: without it JAX falls back to the CPU without a word.
    gpu = jax.devices("gpu")[0]
except RuntimeError as error:
    skip(f"JAX finds no GPU: {error}")

random = numpy.random.default_rng(0)


def fixed(*shape):
    """Random numbers made on the CPU: the same on every card."""
    return jnp.asarray(random.standard_normal(shape, dtype=numpy.float32))


def loss(weights, data, target):
    for weight in weights[:-1]:
        data = jnp.tanh(data @ weight)
    return jnp.mean((data @ weights[-1] - target) ** 2)


@jax.jit
def step(weights, data, target):
    value, gradients = jax.value_and_grad(loss)(weights, data, target)
    return value, [weight - 0.05 * gradient for weight, gradient in zip(weights, gradients, strict=True)]


@jax.jit
def convolution(images, filters):
    return jax.lax.conv_general_dilated(images, filters, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def training():
    weights = [fixed(128, 256) * 0.1, fixed(256, 256) * 0.1, fixed(256, 10) * 0.1]
    data, target = fixed(64, 128), fixed(64, 10)
    for _ in range(20):
        value, weights = step(weights, data, target)
    return [value, *weights]


if arguments.preallocate:
    jnp.sum(jnp.ones((256, 256)) @ jnp.ones((256, 256))).block_until_ready()
else:
    results = [numpy.asarray(result) for result in (*training(), convolution(fixed(8, 32, 32, 16), fixed(3, 3, 16, 32)))]
statistics = gpu.memory_stats() or {}
say("bytes_limit", statistics.get("bytes_limit", "unknown"))
if arguments.preallocate:
    say("pool_bytes", statistics.get("pool_bytes", "unknown"))
    say("preallocated", 1)
else:
    say("hash", digest(*results))
