"""An MLP that is an optimizer, meta-trained on Fashion-MNIST in 8 x 8.

The inner network is an MLP 64-32-32-10 with ReLU, trained for 1,000 steps of batch 32.
What is learned is an MLP of two layers of 32 from the features of a parameter (its
value, its gradient and the sign of it, three momenta, the root mean square, the time)
to its step; it begins as momentum over the root mean square with a rate of 0.001. L_t
is the loss of the batch of step t, W = 1.
"""

import math
import time

import numpy as np

from benchmarks.unrolled import report as tables

SEEDS = 1
T, BATCH, SIZES, HIDDEN, SIGMA = 1000, 32, (64, 32, 32, 10), 32, 0.01
PARTICLES, UPDATES, RATE, POINTS = 30, 4000, 1e-3, 10
DECAYS = (0.5, 0.9, 0.99)
RATES = tuple(10.0 ** (-1.0 - 0.375 * i) for i in range(9))
CASES = ("Adam", "NRES", "PES")


def images(name):
    """Return (x [n, 64], y [n]) of a data set, averaged to 8 x 8."""
    import tensorflow as tf

    from keras_es import datasets

    loaded = datasets.load(name)
    x, y = np.asarray(loaded.x_train), np.asarray(loaded.y_train)
    x = tf.image.resize(x[..., None] if x.ndim == 3 else x, (8, 8), "area")
    x = np.asarray(x, "float32").reshape(len(x), 64)
    x = (x - x.mean()) / x.std()
    return x, y.astype("int32")


def make_task(data, rule):
    """Return the inner training as a task; `rule` is "learned" or "adam"."""
    import keras
    import tensorflow as tf

    from keras_es import unrolled

    x_all, y_all = (tf.constant(a) for a in data)
    shapes = [(a, b) for a, b in zip(SIZES, SIZES[1:])]
    count = sum((a + 1) * b for a, b in shapes)

    def split(flat):
        parts = tf.split(flat, [(a + 1) * b for a, b in shapes])
        return [tf.reshape(p, (a + 1, b)) for p, (a, b) in zip(parts, shapes)]

    def loss_and_gradient(flat, x, labels):
        """Cross entropy and its gradient by hand: one pass there and back."""
        kernels, inputs = split(flat), []
        h = x
        for i, kernel in enumerate(kernels):
            h = tf.concat([h, tf.ones((BATCH, 1))], axis=1)
            inputs.append(h)
            h = h @ kernel
            if i < len(kernels) - 1:
                h = tf.nn.relu(h)
        hot = tf.one_hot(labels, SIZES[-1])
        logs = tf.nn.log_softmax(h)
        loss = -tf.reduce_mean(tf.reduce_sum(hot * logs, axis=1))
        back, gradients = (tf.exp(logs) - hot) / BATCH, []
        for i in reversed(range(len(kernels))):
            gradients.insert(0, tf.reshape(tf.transpose(inputs[i]) @ back, [-1]))
            if i:
                alive = tf.cast(inputs[i][:, :-1] > 0.0, tf.float32)
                back = (back @ tf.transpose(kernels[i][:-1])) * alive
        return loss, tf.concat(gradients, axis=0)

    class Inner(unrolled.Task):
        horizon = T

        def build(self):
            if rule == "adam":
                start = keras.initializers.Constant(math.log(1e-3))
                self.log_rate = self.add_weight(shape=(), initializer=start)
                return
            sizes = (2 + 2 * len(DECAYS), HIDDEN, HIDDEN, 2)
            self.kernels = [
                self.add_weight(
                    # Zeros where it ends, for what it begins as is no noise.
                    shape=(a, b),
                    initializer="lecun_normal" if i < 2 else "zeros",
                    name=f"kernel{i}",
                )
                for i, (a, b) in enumerate(zip(sizes, sizes[1:]))
            ]
            self.biases = [
                self.add_weight(shape=(b,), initializer="zeros", name=f"bias{i}")
                for i, b in enumerate(sizes[1:])
            ]

        def initial_state(self, seed, data=None):
            scales = [np.full((a + 1) * b, (2.0 / a) ** 0.5) for a, b in shapes]
            for scale, (_, b) in zip(scales, shapes):
                scale[-b:] = 0.0
            scale = tf.constant(np.concatenate(scales), tf.float32)
            return {
                "w": scale * unrolled.normal((count,), seed),
                "m": tf.zeros((len(DECAYS), count)),
                "v": tf.zeros((count,)),
            }

        def step(self, state, t, seed, data=None):
            u = unrolled.uniform((BATCH,), seed)
            index = tf.cast(u * len(data_y), tf.int32)
            x, labels = tf.gather(x_all, index), tf.gather(y_all, index)
            loss, g = loss_and_gradient(state["w"], x, labels)
            decay = tf.constant(DECAYS)[:, None]
            m = decay * state["m"] + (1.0 - decay) * g
            v = 0.999 * state["v"] + 0.001 * tf.square(g)
            now = tf.cast(t + 1, tf.float32)
            root = tf.sqrt(v / (1.0 - 0.999**now)) + 1e-8
            if rule == "adam":
                mean = m[1] / (1.0 - DECAYS[1] ** now)
                w = state["w"] - tf.exp(self.log_rate) * mean / root
            else:
                w = state["w"] - self.learned(state["w"], g, m, root, now)
            return {"w": w, "m": m, "v": v}, tf.minimum(loss, 10.0)

        def learned(self, w, g, m, root, now):
            """Return the step of each parameter."""
            relative = tf.clip_by_value(m / root, -3.0, 3.0)
            time = tf.fill((count,), tf.math.log(now) / 7.0)
            features = [w, tf.clip_by_value(g / root, -3.0, 3.0)]
            features += tf.unstack(relative)
            features += [tf.clip_by_value(tf.math.log(root) / 10.0, -2.0, 0.0), time]
            features += [tf.sign(g)]
            h = tf.stack(features, axis=1)
            for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases)):
                h = h @ kernel + bias
                if i < 2:
                    h = tf.nn.relu(h)
            # Begins as momentum over the root mean square, with a rate of 0.001.
            return 1e-3 * (relative[1] + h[:, 0]) * tf.exp(2.0 * h[:, 1])

    data_y = data[1]
    return Inner()


def curve_of(model, episodes=4):
    """Return a function that gives the losses of each step, the mean of some episodes.

    It reads the model's weights when it is called, and is compiled once.
    """
    import tensorflow as tf

    from keras_es.unrolled import draws

    members = model.task.members(model.trainable_variables)
    key = draws.stream_key(0, "curve")
    ids = tf.range(episodes)

    @tf.function(autograph=False, jit_compile=True)
    def losses():
        position = draws.episode_position(key, ids, tf.zeros_like(ids))
        weights = [
            tf.broadcast_to(v.value, (episodes, *v.shape)) for v in members.variables
        ]
        state = members.initial_state(weights, draws.seeds(position), None)
        kept = tf.TensorArray(tf.float32, T, element_shape=(episodes,))

        def body(t, state, kept):
            now = tf.fill([episodes], t)
            state, loss, _, _ = members.step(
                weights, state, now, draws.seeds(position, now), None
            )
            return t + 1, state, kept.write(t, loss)

        return tf.while_loop(lambda t, *_: t < T, body, (0, state, kept))[2].stack()

    return lambda: losses().numpy().mean(axis=1)


def smooth(losses, width=20):
    """Return [step, loss] of means over some steps each."""
    means = np.reshape(losses, (-1, width)).mean(axis=1)
    return [[float((i + 1) * width), float(v)] for i, v in enumerate(means)]


def run(case, seed):
    """Tune Adam, or meta-train; return the row with curves on both data sets."""
    import keras

    from keras_es import unrolled

    keras.utils.set_random_seed(seed)
    names = ("fashion_mnist", "mnist")
    data = {name: images(name) for name in names}
    rule = "adam" if case == "Adam" else "learned"
    models = {}
    for name in names:
        models[name] = unrolled.UnrolledModel(make_task(data[name], rule))
        cls = unrolled.PES if case == "PES" else unrolled.NRES
        rate = keras.optimizers.schedules.CosineDecay(RATE, UPDATES)
        models[name].compile(
            cls(
                keras.optimizers.Adam(rate, clipnorm=1.0), particles=PARTICLES,
                unroll_length=1, sigma=SIGMA, seed=seed,
            ),
            steps_per_execution=50,
        )  # fmt: skip
    begun, cpu = time.perf_counter(), time.process_time()
    found, meta = {}, []
    curves = {name: curve_of(model) for name, model in models.items()}
    if case == "Adam":
        for name, model in models.items():  # Tuned on each: what is hardest to beat.
            tried = []
            for rate in RATES:
                model.task.log_rate.assign(math.log(rate))
                tried.append((float(curves[name]().mean()), rate))
            found[f"{name}_rate"] = min(tried)[1]
            model.task.log_rate.assign(math.log(min(tried)[1]))
    else:
        model = models[names[0]]
        meta.append((0, float(curves[names[0]]().mean())))
        found["loss_at_first"] = meta[0][1]
        for part in range(POINTS):
            model.fit(steps_per_epoch=UPDATES // POINTS, verbose=0)
            meta.append(
                ((part + 1) * UPDATES // POINTS, float(curves[names[0]]().mean()))
            )
        for mine, theirs in zip(
            models[names[1]].trainable_variables, model.trainable_variables
        ):
            mine.assign(theirs)
    for name in names:
        losses = curves[name]()
        found[name] = {"mean": float(losses.mean()), "end": float(losses[-50:].mean())}
        found[name]["curve"] = smooth(losses)
    found |= {"particles": PARTICLES, "updates": UPDATES if meta else 0}
    found |= {"seconds": time.perf_counter() - begun}
    return found | {"cpu_seconds": time.process_time() - cpu, "curve": meta}


def report(rows, path):
    """Draw the curves and return the lines of the table."""
    lines = [
        "| optimizer | Fashion-MNIST: mean loss of 1,000 steps | of the last 50 "
        "| MNIST, never seen: mean | last 50 | CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    by_case = tables.by_case(rows, CASES)
    names = ("fashion_mnist", "mnist")
    for case, mine in by_case.items():
        cells = [
            tables.spread([r[n][k] for r in mine])
            for n in names
            for k in ("mean", "end")
        ]
        cells.append(tables.spread([r["cpu_seconds"] for r in mine], "{:.0f}"))
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    figure, panels = tables.make_figure(3)
    for color, (case, mine) in tables.colored(by_case):
        for axes, name in zip(panels, names):
            tables.band(axes, [r[name]["curve"] for r in mine], case, color)
            axes.set(xlabel="inner step", ylabel="loss", title=name, yscale="log")
        if mine[0]["curve"]:
            tables.band(panels[2], [r["curve"] for r in mine], case, color)
    panels[2].set(xlabel="outer update", ylabel="mean loss", title="meta-training")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return lines
