"""A linear policy for Swimmer-v5 (and HalfCheetah-v5) by NRES and by FullES."""

import time

import numpy as np

from benchmarks.unrolled import report as tables

SEEDS = 3
T, W, PARTICLES, SIGMA, RATE, UPDATES = 1000, 100, 30, 0.3, 3.0, 200

# Environment, sizes, estimator, updates. As many steps of the environment each.
CASES = {
    "Swimmer NRES": ("Swimmer-v5", (8, 2), "NRES", UPDATES),
    "Swimmer FullES": ("Swimmer-v5", (8, 2), "FullES", UPDATES * W // T),
}


def run(case, seed):
    """Train and return the row."""
    import keras

    from keras_es import unrolled

    env_id, (observations, actions), kind, updates = CASES[case]
    policy = keras.Sequential(
        [
            keras.Input((observations,)),
            keras.layers.Dense(actions, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    model = unrolled.UnrolledModel(unrolled.GymnasiumTask(env_id, policy))
    common = dict(particles=PARTICLES, sigma=SIGMA, seed=seed)
    sgd = keras.optimizers.SGD(RATE)
    if kind == "NRES":
        model.compile(unrolled.NRES(sgd, unroll_length=W, **common))
    else:
        model.compile(unrolled.FullES(sgd, **common))
    every = max(1, updates // 20)
    curve = [(0, mean_return(env_id, policy))]
    begun, cpu = time.perf_counter(), time.process_time()
    while len(curve) <= updates // every:
        model.fit(steps_per_epoch=every, verbose=0)
        steps = 2 * PARTICLES * (W if kind == "NRES" else T) * every * len(curve)
        curve.append((steps, mean_return(env_id, policy)))
    returns = [value for _, value in curve]
    found = {"final_return": returns[-1], "best_return": max(returns)}
    found |= {"updates": updates, "environment_steps": curve[-1][0]}
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
        "| | steps of the environment | return at the end | best | CPU seconds |",
        "|---|---|---|---|---|",
    ]
    by_case = tables.by_case(rows, CASES)
    for case, mine in by_case.items():
        cells = (
            tables.spread([r["environment_steps"] for r in mine[:1]], "{:,.0f}"),
            tables.spread([r["final_return"] for r in mine], "{:.0f}"),
            tables.spread([r["best_return"] for r in mine], "{:.0f}"),
            tables.spread([r["cpu_seconds"] for r in mine], "{:.0f}"),
        )
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    figure, (axes,) = tables.make_figure(1)
    for color, (case, mine) in tables.colored(by_case):
        tables.band(axes, [r["curve"] for r in mine], case, color)
    axes.set(xlabel="steps of the environment", ylabel="return of the mean policy")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return lines
