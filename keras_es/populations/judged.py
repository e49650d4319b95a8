"""Members that are judged by their losses alone, forward passes only."""

import tensorflow as tf

from keras_es.populations.by_gradients import Population
from keras_es.populations.member import Member


class JudgedMember(Member):
    """One set of masks on a batch: a loss, no gradient; nothing is left behind."""

    def judge(self, batch):
        """Return its fitness, and whether loss and fitness are finite."""
        p = self.population
        effective, fixed = self._effective_values()
        values = [effective[id(v)] for v in p.variables]
        said = self.called(values, fixed, batch)
        finite = tf.math.is_finite(said.loss) & tf.math.is_finite(said.fitness)
        return said.fitness, finite


class JudgedPopulation(Population):
    """Judges masks on a batch that weights have not been trained on yet.

    All members see all of it, with the same dropout noise.
    """

    def judge(self, masks, count):
        """Return [count] fitness values and whether they are finite.

        Args:
            masks: Function from an index to the unit mask of each masked weight.
            count: Number of members.
        """

        def member(index):
            before = [tf.convert_to_tensor(v.value) for v in self.metrics]
            judged = JudgedMember(self, tf.constant(0), 0, masks(index), before)
            return judged.judge(self.batch)

        # A loop: members are traced, and compiled, once.
        return tf.map_fn(
            member, tf.range(count), fn_output_signature=(tf.float32, tf.bool)
        )
