"""A small language model learns which of its habits is wanted, by rewards of its text.

    python -m benchmarks.adapters

A transformer of two blocks is trained by gradients on a corpus that answers a word
with its letters sorted, turned round, or copied, as chance has it. Then its weights are
frozen, products of the blocks get adapters of rank 2, and evolution makes it sort: by a
Python function that reads the most likely answer and is 1 or 0. Results go to
docs/results/adapters.json and adapters.png.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.command import RESULTS, make_parser, require_positive, stoppable

OUTPUT = RESULTS / "adapters.json"
LETTERS, WORD = "abcdef", 3
VOCABULARY = LETTERS + "="
HABITS = {"sorted": 0.2, "turned round": 0.4, "copied": 0.4}
START, LENGTH = WORD + 1, 2 * WORD + 1  # word, "=", answer
WIDTH, HEADS, BLOCKS, RANK = 32, 4, 2, 2
MEMBERS, SIGMA, RATE, PROMPTS = 30, 0.05, 0.02, 64
STEPS, BATCH, ENOUGH = 2500, 128, 0.95


def words(random, count):
    """Return random words, [count, WORD] of numbers of letters."""
    return random.integers(len(LETTERS), size=(count, WORD)).astype("int32")


def corpus(random, count):
    """Return words with "=" and an answer each, [count, LENGTH]."""
    found = words(random, count)
    answers = np.stack([np.sort(found, axis=1), found[:, ::-1], found])
    habit = random.choice(len(HABITS), size=count, p=list(HABITS.values()))
    equals = np.full((count, 1), VOCABULARY.index("="), "int32")
    return np.concatenate([found, equals, answers[habit, np.arange(count)]], axis=1)


def texts(numbers):
    """Return the texts of numbers, [texts, length]."""
    return ["".join(VOCABULARY[i] for i in row) for row in np.asarray(numbers)]


def reward(word, answer):
    """Return 1 if the answer is the word, sorted, else 0."""
    return float(answer == "".join(sorted(word)))


def network():
    """Return a causal transformer [batch, LENGTH - 1] -> logits, and its blocks."""
    import keras

    ids = keras.Input((LENGTH - 1,), dtype="int32")
    positions = keras.ops.arange(LENGTH - 1)
    table = keras.layers.Embedding(len(VOCABULARY), WIDTH)
    x = table(ids) + keras.layers.Embedding(LENGTH - 1, WIDTH)(positions)
    inside = []
    for _ in range(BLOCKS):
        attention = keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
        up = keras.layers.Dense(4 * WIDTH, activation="gelu")
        down = keras.layers.Dense(WIDTH)
        y = keras.layers.LayerNormalization()(x)
        x = x + attention(y, y, use_causal_mask=True)
        x = x + down(up(keras.layers.LayerNormalization()(x)))
        inside += [attention.query_dense, attention.value_dense, up, down]
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(ids, keras.layers.Dense(len(VOCABULARY))(x)), inside


def train(model, random, steps):
    """Teach the habits by gradients."""
    import keras

    x = corpus(random, steps * BATCH)
    weights = np.zeros((len(x), LENGTH - 1))
    weights[:, -WORD:] = 1.0  # The words are random: there is nothing to learn.
    rate = keras.optimizers.schedules.CosineDecay(0.003, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit(x[:, :-1], x[:, 1:], BATCH, 1, sample_weight=weights, verbose=0)


def adapt(inside, model):
    """Freeze a model and put adapters into its blocks."""
    for variable in model.variables:
        variable.trainable = False
    for layer in inside:
        layer.enable_lora(RANK)


class Writer:
    """Draws answers to words, a batch of them in one compiled call.

    Made after `enable_lora`: what was traced before knows nothing of adapters.

    Args:
        model: The network.
    """

    def __init__(self, model):
        import tensorflow as tf

        def write(found, seed, temperature):
            count = found.shape[0]
            equals = tf.fill((count, 1), VOCABULARY.index("="))
            ids = tf.concat([found, equals], axis=1)
            uniform = tf.random.stateless_uniform(
                (WORD, count, len(VOCABULARY)), seed, 1e-6, 1.0, alg="philox"
            )
            for i in range(WORD):  # Causal: what follows may be anything.
                rest = LENGTH - 1 - START - i
                logits = model(tf.pad(ids, ((0, 0), (0, rest))))[:, START + i - 1]
                gumbel = -tf.math.log(-tf.math.log(uniform[i]))
                chosen = tf.argmax(logits + temperature * gumbel, -1, tf.int32)
                ids = tf.concat([ids, chosen[:, None]], axis=1)
            return ids[:, START:]

        self._write = tf.function(write, autograph=False)

    def rewards(self, found, seed, temperature=0.0):
        """Return the reward of one answer to each word; 0.0 is the most likely one."""
        import tensorflow as tf

        found = tf.constant(found)
        answers = self._write(found, tf.constant(seed), tf.constant(temperature))
        return [reward(*pair) for pair in zip(texts(found), texts(answers))]


def measure(seed, generations, steps):
    """Return a row: rewards before, over the generations, and after."""
    import keras

    import keras_es

    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    start = time.process_time()
    model, inside = network()
    train(model, random, steps)
    trained = time.process_time()
    test = words(np.random.default_rng(10_000 + seed), 512)

    def of_test(writer, temperature=0.0):
        return float(np.mean(writer.rewards(test, [seed, -1], temperature)))

    first = Writer(model)
    before, drawn = of_test(first), of_test(first, 1.0)
    adapt(inside, model)
    writer = Writer(model)
    model.compile(
        keras_es.optimizers.OpenES(
            None, MEMBERS, sigma=SIGMA, fitness_shaping="standardize", seed=seed,
            mean_optimizer=keras.optimizers.Adam(RATE),
        )
    )  # fmt: skip
    frozen = [w.numpy() for w in model.non_trainable_variables]

    def by_text(model, generation):
        # One draw for a generation, the same for all members.
        found = words(np.random.default_rng([seed, generation]), PROMPTS)
        return writer.rewards(found, [seed, generation])

    curve = [(0, before)]

    def callback(generation, logs):
        if (generation + 1) % 10 == 0:
            curve.append((generation + 1, of_test(writer)))
            print(f"adapters: seed {seed}, {curve[-1]}", flush=True)
        return curve[-1][1] >= ENOUGH

    history = keras_es.evolve(
        model, by_text, generations=generations, callback=callback, verbose=0
    )
    same = all(
        np.array_equal(a, b) for a, b in zip(frozen, model.non_trainable_variables)
    )
    return {
        "seed": seed,
        "weights": model.count_params(),
        "adapters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "reward_before": before,
        "reward_after": of_test(writer),
        "drawn_answers_before": drawn,
        "drawn_answers_after": of_test(writer, 1.0),
        "curve": curve,
        "population": history.history["reward"],
        "frozen_unchanged": same,
        "seconds_of_gradients": trained - start,
        "seconds_of_evolution": time.process_time() - trained,
    }


def draw(rows, path):
    """Draw the rewards over the generations."""
    from matplotlib.figure import Figure

    from benchmarks.picture import COLORS

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    for color, row in zip(COLORS, rows):
        curve = np.array(row["curve"])
        axes.plot(row["population"], color=color, lw=0.6, alpha=0.5)
        axes.plot(*curve.T, color=color, lw=1.8, label=f"seed {row['seed']}")
    axes.set(
        xlabel=f"generation ({MEMBERS} members, {PROMPTS} prompts each)",
        ylabel="reward", ylim=(0, 1.02),
        title="Adapters by rewards of text: 512 new prompts (thick), population (thin)",
    )  # fmt: skip
    axes.legend()
    figure.savefig(path, dpi=110)


def parse(argv):
    """Return the flags."""
    parser = make_parser("adapters", __doc__)
    parser.add_argument("--seeds", type=int, default=1, help="number of runs")
    parser.add_argument("--generations", type=int, default=120, help="at most")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps by gradients")
    parser.add_argument("--output", default=str(OUTPUT), help="JSON; a PNG beside it")
    flags = parser.parse_args(argv)
    require_positive(parser, flags, "seeds", "generations", "steps")
    return flags


def main(argv=None):
    """Run, write JSON and picture, and print what came out."""
    flags = parse(argv)
    output = Path(flags.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = [measure(s, flags.generations, flags.steps) for s in range(flags.seeds)]
    output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    draw(rows, output.with_suffix(".png"))
    for row in rows:
        print(
            f"seed {row['seed']}: {row['reward_before']:.3f} -> "
            f"{row['reward_after']:.3f} in {row['seconds_of_evolution']:.0f} s"
        )


if __name__ == "__main__":
    sys.exit(stoppable("adapters", main))
