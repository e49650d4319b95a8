"""Our side: strategies by ask and tell, those of all seeds in one compiled program."""

import keras
import numpy as np
import tensorflow as tf

from benchmarks.bbob.settings import GENERATIONS, SEEDS


class Ours:
    """An algorithm of ours on the functions of one number of dimensions.

    Args:
        algorithm: `Algorithm`.
        problems: `Problems`.
    """

    def __init__(self, algorithm, problems):
        self.problems = problems
        self.means = [keras.Variable(start) for start in problems.starts]
        self.strategies = [algorithm.ours(seed) for seed in range(SEEDS)]
        for strategy, mean in zip(self.strategies, self.means):
            strategy.build([mean])
        state = [v for s in self.strategies for v in s.variables]
        self.begin = [(v, v.numpy()) for v in [*self.means, *state]]
        self.ask = tf.function(self._ask, autograph=False)
        self.tell_and_ask = tf.function(
            self._tell_and_ask, autograph=False, jit_compile=True
        )

    def _ask(self):
        return tf.stack([s.ask()[0] for s in self.strategies])

    def _tell_and_ask(self, values):
        for strategy, mine in zip(self.strategies, tf.unstack(values)):
            strategy.tell(mine)
        return self._ask()

    def best(self, function):
        """Return the lowest value that each seed has seen, [seeds].

        Args:
            function: Index of the function.
        """
        for variable, value in self.begin:
            variable.assign(value)
        lowest, members = np.full(SEEDS, np.inf), self.ask()
        for _ in range(GENERATIONS):
            values = np.asarray(self.problems.values(function, members.numpy()))
            lowest = np.fmin(lowest, values.min(axis=1))
            members = self.tell_and_ask(tf.constant(values))
        return lowest
