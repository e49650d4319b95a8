"""Evolution of the integer weights of a quantized model, with error feedback."""

from typing import Any

import keras
import tensorflow as tf

from keras_es._arguments import Argument, Refused, decay, integer, positive
from keras_es.distribution.collectives import assign_all
from keras_es.layers import tree
from keras_es.ops import fitness as shaping
from keras_es.ops import integers
from keras_es.optimizers import arguments
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.inner import NoInner


@keras.saving.register_keras_serializable(package="keras_es")
class QES(MaskOptimizer):
    """Quantized evolution strategy: int8 weights move by whole steps of their grid.

    Members are W + delta_k and W - delta_k, delta = sigma eps rounded at random so that
    it is sigma eps on average, clipped to [-127, 127]. With utilities u of the rewards

        g_t = 1/(n sigma) sum_k u_k delta_k,        a_t = alpha g_t + gamma e_{t-1},
        W <- W + round(a_t),                        e_t = a_t - round(a_t).

    Updates far smaller than a step of the grid would all be rounded away; the residual
    e gathers them until they make one. It is not stored: it is a function of the
    utilities of the last generations, whose noise is drawn again from seeds (`replay`).
    So training takes the int8 weights, `replay` * `population_size` numbers for the
    whole model, and in `evolve` a second int8 copy while members are evaluated.

    Only for `keras_es.evolve`, of a model after `model.quantize("int8")`: kernels and
    tables of embeddings move; their scales, biases and all float weights stay, and so
    do layers with `trainable = False` and those with an adapter (`enable_lora`).

    Args:
        population_size: Even integer n >= 2.
        sigma: Scale of the noise in steps of the grid, above 0. The largest weight of
            a column is 127 of them.
        step_size: alpha > 0, in steps of the grid.
        feedback: gamma in [0, 1), the share of a residual that lives on.
        replay: Generations K >= 1 from which the residual is made again. Up to
            generation K it is exact, then it lacks gamma**K of what is older.
        fitness_shaping: Name or function, see `keras_es.ops.fitness`.
        seed: Integer seed of the noise.
        name: Name of the optimizer.

    Example:

    >>> QES(population_size=32, sigma=2.0).replay
    16

    References:
        Xu, Miikkulainen, Qiu 2026, Quantized evolution strategies, arXiv 2602.03120.
    """

    inner_optimizer = Refused("it trains no float weights")
    masked_out = Refused("it moves no masks", "rest")
    evolves_weights, trains_by_gradients = True, False

    population_size: Any = Argument(integer(2), 64)
    sigma = Argument(positive, 4.0)
    step_size = Argument(positive, 4.0)
    feedback = Argument(decay, 0.9)
    replay = Argument(integer(1), 16)
    fitness_shaping = Argument(
        arguments.fitness_shaping, "standardize", serialize=arguments.serialize_shaping
    )

    def check_arguments(self):
        """Refuse members that make no pairs."""
        if self.population_size % 2:
            raise ValueError(
                "`population_size` must be even: members are antithetic pairs. "
                f"Received: population_size={self.population_size}"
            )
        self.__dict__["inner"] = NoInner(self)

    def build_search(self):
        """Create the utilities of the last generations, a row for each."""
        self._told = self.add_variable(
            (self.replay, self.population_size // 2),
            initializer="zeros",
            dtype="float32",
            name="utilities",
        )

    def population(self, model, *batch):
        """Refuse: `fit` moves float weights."""
        self.apply(None)

    def apply(self, grads, trainable_variables=None):
        """Refuse: there are no gradients of integers."""
        raise RuntimeError(
            "QES moves integers, which `fit` has no step for: call "
            "keras_es.evolve(model, reward), where `reward` may be minus a loss. "
            f"Received: optimizer={self.name!r} used in `fit`"
        )

    def loop_on(self, model):
        """Return what `evolve` asks for members and tells of rewards.

        Raises:
            ValueError: If no layer of the model is quantized to int8 and trains, or
                the state is of other weights.
        """
        weights = integer_weights(model)
        if not weights:
            raise ValueError(
                "QES moves the int8 weights of a quantized model, and there are none. "
                'Call model.quantize("int8") and then `compile`; layers stay as they '
                "are where `trainable` is False, and where they have an adapter, which "
                f"OpenES(None) evolves. Received: model={model.name!r}"
            )
        self.build(model.trainable_variables)
        loop = self.__dict__.setdefault("loop", _Loop(self, weights))
        if list(map(id, loop.weights)) != list(map(id, weights)):
            raise ValueError(
                "QES remembers what it told other weights: it was used for another "
                "model, or layers were quantized or frozen since. Call `compile` "
                f"again, with a new QES. Received: optimizer={self.name!r} of "
                f"{[w.path for w in loop.weights]}, for {[w.path for w in weights]}"
            )
        return loop


def integer_weights(model):
    """Return the int8 kernels and tables of a model's layers that train, each once."""
    found = {}
    for _, layer in tree.walk(model):
        stays = getattr(layer, "lora_enabled", False) or not layer.trainable
        if getattr(layer, "quantization_mode", None) != "int8" or stays:
            continue
        for name in ("kernel", "embeddings", "reverse_embeddings"):
            weight = getattr(layer, name, None)
            if isinstance(weight, keras.Variable) and weight.dtype == "int8":
                found[id(weight)] = weight
    return list(found.values())


class _Loop:
    """Ask and tell of integer weights.

    Args:
        strategy: Built `QES`.
        weights: List of int8 variables.
    """

    def __init__(self, strategy, weights):
        self.strategy, self.weights = strategy, weights
        self._learn = tf.function(self._tell, autograph=False)

    def member(self, index):
        """Return (variable, value) of one member; even ones are +, odd ones -."""
        generation = self.strategy.generation.value
        sign = 1.0 - 2.0 * tf.cast(index % 2, tf.float32)
        pair = tf.reshape(index // 2, (1,))
        return [
            (w, integers.moved(w.value, sign * self._noise(i, generation, pair)[0]))
            for i, w in enumerate(self.weights)
        ]

    def tell_apart(self, fitness, valid):
        """Move the weights by finite losses (see `AskTell.tell_apart`)."""
        self._learn(tf.constant(fitness, tf.float64), tf.constant(valid))

    def _noise(self, i, generation, pairs):
        s, shape = self.strategy, tuple(self.weights[i].shape)
        stream = f"integers {i}"
        return integers.rounded_noise(s.seed, stream, shape, generation, pairs, s.sigma)

    def _tell(self, fitness, valid):
        s, ok = self.strategy, tf.reduce_any(valid)
        by_rank = s.fitness_shaping in shaping.BY_RANK
        fitness = shaping.in_single_precision(fitness, by_rank)
        utilities = shaping.shaped(s.fitness_shaping, fitness, ok)
        of_pairs = utilities[0::2] - utilities[1::2]
        s.count_step(valid, ok)
        generation = s.generation.value
        told = tf.concat([_last_rows(s._told.value, generation), of_pairs[None]], 0)
        new = [
            (w, integers.moved(w.value, self._move(i, generation, told)))
            for i, w in enumerate(self.weights)
        ]
        slot = tf.cast(generation % s.replay, tf.int32)
        rows = tf.tensor_scatter_nd_update(s._told.value, [[slot]], of_pairs[None])
        assign_all([*new, (s._told, rows), (s.generation, generation + 1)])

    def _move(self, i, generation, told):
        """Return by how many steps a weight moves now."""
        s, shape = self.strategy, tuple(self.weights[i].shape)

        @tf.function(jit_compile=True, autograph=False)
        def replayed(generation, told):
            def body(k, move, residual):
                then = generation - s.replay + tf.cast(k, generation.dtype)
                gradient = integers.search_gradient(
                    lambda pairs: self._noise(i, then, pairs), told[k], shape, s.sigma
                )
                update = s.step_size * gradient
                move, residual = integers.with_feedback(update, residual, s.feedback)
                return k + 1, move, residual

            loop = (tf.constant(0), tf.zeros(shape), tf.zeros(shape))
            return tf.while_loop(lambda k, *_: k <= s.replay, body, loop)[1]

        return replayed(generation, told)


def _last_rows(rows, generation):
    """Return a ring of rows in the order of their generations, the oldest first."""
    count = rows.shape[0]
    return tf.gather(rows, (generation + tf.range(count, dtype=tf.int64)) % count)
