"""The same estimator written plainly in JAX: NRES on the Lorenz task, jit and scan.

    python jax_lorenz.py < requests > seconds

One line in, the number of windows; one line out, the seconds they took. It imports
nothing of this project, so that any Python with JAX can run it.
"""

import sys
import time

import jax
import jax.numpy as jnp

T, W, N, SIGMA, DT, RATE = 2000, 100, 200, 0.04, 0.005, 1e-5


def moved(s, a, r):
    x, y, z = s
    change = (a * (y - x), x * (r - z) - y, x * y - 8.0 / 3.0 * z)
    return tuple(u + DT * c for u, c in zip(s, change))


def begun(keys):
    x = jnp.array([1.2, 1.3, 1.6])
    s = x + jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)
    return s[:, 0], s[:, 1], s[:, 2]


def window(theta, carry):
    """Reset what has ended, unroll W steps of all pairs, return the mean gradient."""
    t, true, plus, minus, eps, key = carry
    key, noise_key, state_key = jax.random.split(key, 3)
    over = (t >= T)[:, None]
    fresh = begun(jax.random.split(state_key, N))
    true, plus, minus = (
        tuple(jnp.where(t >= T, a, b) for a, b in zip(fresh, s))
        for s in (true, plus, minus)
    )
    eps = jnp.where(over, SIGMA * jax.random.normal(noise_key, (N, 2)), eps)
    t = jnp.where(t >= T, 0, t)
    up, down = jnp.exp(theta + eps), jnp.exp(theta - eps)

    def step(states, _):
        true, plus, minus, total = states
        true = moved(true, 10.0, 28.0)
        plus = moved(plus, up[:, 0], up[:, 1])
        minus = moved(minus, down[:, 0], down[:, 1])
        z = true[2]
        total += (plus[2] - z) ** 2 - (minus[2] - z) ** 2
        return (true, plus, minus, total), None

    start = (true, plus, minus, jnp.zeros(N))
    (true, plus, minus, total), _ = jax.lax.scan(step, start, None, length=W)
    gradient = jnp.mean(total[:, None] * eps, axis=0) / (2.0 * SIGMA**2 * W)
    return gradient, (t + W, true, plus, minus, eps, key)


@jax.jit
def update(theta, carry):
    gradient, carry = window(theta, carry)
    return theta - RATE * gradient, carry


@jax.jit
def updates(theta, carry):
    """A hundred updates in one call, as `steps_per_execution=100` of the other side."""
    return jax.lax.fori_loop(0, 100, lambda _, c: update(*c), (theta, carry))


def main():
    theta = jnp.array([3.116, 3.7])
    keys = jax.random.split(jax.random.key(0), 4)
    eps = SIGMA * jax.random.normal(keys[0], (N, 2))
    x = begun(jax.random.split(keys[1], N))
    t = jax.random.randint(keys[2], (N,), 0, T // W) * W
    carry = (t, x, x, x, eps, keys[3])
    for line in sys.stdin:
        count = int(line)
        begin = time.perf_counter(), time.process_time()
        for _ in range(count // 100):
            theta, carry = updates(theta, carry)
        theta.block_until_ready()
        seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
        print(*seconds, flush=True)


if __name__ == "__main__":
    main()
