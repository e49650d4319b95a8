"""A linear policy for Swimmer-v5 by NRES and by FullES."""

import functools
import time

import numpy as np

from benchmarks.unrolled import report as tables

SEEDS = 3
T, W, PARTICLES, SIGMA, RATE = 1000, 100, 30, 0.3, 3.0

# As many steps of the environment for each, those of NRES's burn-in counted.
STEPS, ENOUGH = 240_000, 300.0

# Environment, sizes, estimator, and updates from point to point of the curve.
CASES = {
    "Swimmer NRES": ("Swimmer-v5", (8, 2), "NRES", 10),
    "Swimmer FullES": ("Swimmer-v5", (8, 2), "FullES", 1),
}


@functools.cache
def counted_task():
    """Return a `GymnasiumTask` that counts the steps of its environments."""
    from keras_es import unrolled

    class Counted(unrolled.GymnasiumTask):
        taken = 0

        def host_step(self, state, inputs, t, seeds):
            self.taken += int(np.sum(~state["over"]))
            return super().host_step(state, inputs, t, seeds)

    return Counted


def run(case, seed):
    """Train and return the row."""
    import keras

    from keras_es import unrolled

    env_id, (observations, actions), kind, every = CASES[case]
    policy = keras.Sequential(
        [
            keras.Input((observations,)),
            keras.layers.Dense(actions, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    task = counted_task()(env_id, policy)
    model = unrolled.UnrolledModel(task)
    common = dict(particles=PARTICLES, sigma=SIGMA, seed=seed)
    sgd = keras.optimizers.SGD(RATE)
    if kind == "NRES":
        model.compile(unrolled.NRES(sgd, unroll_length=W, **common))
    else:
        model.compile(unrolled.FullES(sgd, **common))
    to_next = 2 * PARTICLES * every * (W if kind == "NRES" else T)
    curve, updates = [(0, mean_return(env_id, policy))], 0
    begun, cpu = time.perf_counter(), time.process_time()
    while task.taken + to_next <= STEPS:
        model.fit(steps_per_epoch=every, verbose=0)
        updates += every
        curve.append((task.taken, mean_return(env_id, policy)))
    returns = [value for _, value in curve]
    found = {"final_return": returns[-1], "best_return": max(returns)}
    found |= {"updates": updates, "environment_steps": task.taken}
    found |= {"seconds": time.perf_counter() - begun}
    found |= {"cpu_seconds": time.process_time() - cpu}
    return found | {"curve": [[float(v) for v in row] for row in curve]}


def mean_return(env_id, policy, episodes=3):
    """Return the mean return of the policy's kernel over episodes."""
    import gymnasium

    env, total = gymnasium.make(env_id), 0.0
    kernel = policy.layers[-1].kernel.numpy()
    for seed in range(episodes):
        observation, _ = env.reset(seed=1000 + seed)
        over = False
        while not over:
            action = np.clip(observation @ kernel, -1.0, 1.0)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + reward, terminated or truncated
    return total / episodes


def report(rows, path):
    """Draw the curves and return the lines of the table."""
    lines = [
        f"| | steps to a return of {ENOUGH:.0f} | return after {STEPS:,} steps "
        "| mean of the last half | CPU seconds for 100,000 steps |",
        "|---|---|---|---|---|",
    ]
    by_case = tables.by_case(rows, CASES)
    figure, (axes,) = tables.make_figure(1)
    for color, (case, mine) in tables.colored(by_case):
        # Some runs were longer.
        curves = [[p for p in r["curve"] if p[0] <= STEPS] for r in mine]
        tables.band(axes, curves, case, color)
        reached = [next((s for s, v in c if v > ENOUGH), None) for c in curves]
        known = [s for s in reached if s is not None]
        count = f" ({len(known)} of {len(mine)})" if len(known) < len(mine) else ""
        late = [np.mean([v for s, v in c if s > STEPS / 2]) for c in curves]
        speed = [1e5 * r["cpu_seconds"] / r["environment_steps"] for r in mine]
        cells = (
            tables.spread(known, "{:,.0f}") + count,
            tables.spread([c[-1][1] for c in curves], "{:.0f}"),
            tables.spread(late, "{:.0f}"),
            tables.spread(speed, "{:.0f}"),
        )
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    axes.set(
        xlabel="steps of the environment, with burn-in",
        ylabel="return of the mean policy",
    )
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return lines
