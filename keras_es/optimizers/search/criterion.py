"""`CriterionSearch`: a search of the criterion that masks are chosen by."""

import tensorflow as tf

from keras_es.distribution.collectives import assign_all
from keras_es.layers import groups
from keras_es.ops import noise
from keras_es.optimizers.decoding import Decoding, decoded_near
from keras_es.optimizers.search.allocation import whole_shares
from keras_es.optimizers.search.costs import Costs
from keras_es.patterns import Pattern

SMALL = 1e-30
"""Added where sizes are divided by."""

LIMIT = 2.0
"""Bound of |a|: two weights stay within a factor of 55 of what was asked of them."""

LONGEST = 2.0
"""Bound of a step in units of what differences of losses are like."""


class CriterionSearch:
    """Two genes for each weight: how many units it has, and which are its best.

    Weight l has its k_l largest units i by

        c_i = sum |w| (v + eps)**(gamma_l / 2),    k_l = x exp(a_l) k0_l,

    with w the weights of a unit, v Adam's second moment, k0_l as many units as the
    allocation asks for, and x such that all k_l together are as many as all k0_l. Each
    k_l is rounded, and at least 1 and at most all of its units.

    A first form compared exp(a_l) c_i / t_l across weights, t_l the k0_l-th largest c.
    Many masked-out weights that learn wait just below the threshold: at a sparsity of
    99 % a difference of 0.2 moved a third of the units from layer to layer, and one
    of 0.4 ended with a layer at an eighth of its own.

    Weights whose units are of one size share units with each other, so that the number
    of non-zeros is exact; others, and those with as many units in each group (`NByM`),
    keep to the allocation. With `costs` units of any size are exchanged at their
    prices, the cost of their weights, and x is such that all together cost no more
    than what the allocation asks for.

    Args:
        optimizer: The `MaskOptimizer`.
        moments: Whether gamma is searched.
    """

    def __init__(self, optimizer, moments):
        self.optimizer, self.moments = optimizer, moments

    def build(self):
        """Create genes and thresholds."""
        weights = self.optimizer.masked_weights
        rules, self.costs, self.prices = self.optimizer.costs, None, None
        if rules is not None:
            self.costs = Costs(rules, weights, self.optimizer.model())
            self.prices = [self.costs.of(m) * (m.size // m.units) for m in weights]
        self.groups = _groups(weights, self.prices)
        self.seconds = [self._second_moment(m) for m in weights]
        shared = {"dtype": "float32", "aggregation": "only_first_replica"}
        add, count = self.optimizer.add_variable, len(weights)
        self.genes = add((2, count), name="criterion", **shared)
        self.scale = add((), name="fitness_scale", **shared)
        self.starts = add((count, 2), name="thresholds", **shared)
        free = [any(i in g and len(g) > 1 for g in self.groups) for i in range(count)]
        known = [s is not None and self.moments for s in self.seconds]
        self.free = tf.constant([free, known])
        self.is_empty = not any(free + known)

    def _second_moment(self, masked):
        """Return the slot with the mean square gradient of a weight, or None."""
        slots = self.optimizer.inner.slots.get(id(masked.kernel), ())
        found = [s for s in slots if s.path.endswith("velocity")]
        return found[0] if found else None

    def noise(self, pair):
        """Return the noise of one pair, [2, weights]: 0 for what is not searched."""
        o = self.optimizer
        key = noise.stream_key(o.seed, "criterion")
        position = noise.counter_seed(key, o.generation.value, o.global_pair(pair))
        drawn = noise.normal(tuple(self.genes.shape), position)
        return tf.where(self.free, drawn, 0.0)

    def decode(self, genes, counts):
        """Return sizes and masks of units, and where thresholds are.

        Args:
            genes: [2, weights], a and gamma.
            counts: How many units of each weight the allocation asks for.

        Returns:
            (sizes, units, state): two lists, and a list of (variable, new value).
        """
        weights, starts = self.optimizer.masked_weights, tf.unstack(self.starts.value)
        found = [self._sizes(i, m, genes[1, i]) for i, m in enumerate(weights)]
        sizes, counts = groups.agreed(weights, found), self.shared_out(genes[0], counts)
        units, ends = decoded_near(weights, sizes, counts, starts)
        return sizes, units, [(self.starts, tf.stack(ends))] if ends else []

    def shared_out(self, offsets, counts):
        """Return how many units each weight has, at offsets a."""
        found = list(counts)
        for group in self.groups:
            if len(group) == 1:
                continue
            asked = tf.stack([tf.cast(counts[i], tf.int64) for i in group])
            units = [self.optimizer.masked_weights[i].units for i in group]
            factors = tf.exp(tf.cast(tf.gather(offsets, group), tf.float64))
            least, total = tf.minimum(asked, 1), tf.reduce_sum(asked)
            wanted = tf.maximum(factors * tf.cast(asked, tf.float64), SMALL)
            prices = self.prices and [self.prices[i] for i in group]
            if prices:
                total = tf.reduce_sum(prices * tf.cast(asked, tf.float64))
            shares = whole_shares(wanted, least, units, total, prices)
            for i, share in zip(group, tf.unstack(shares)):
                found[i] = share
        return found

    def _sizes(self, index, masked, gamma):
        w = tf.abs(tf.convert_to_tensor(masked.kernel.value))
        second = self.seconds[index]
        if self.moments and second is not None:
            v = tf.cast(tf.convert_to_tensor(second.value), w.dtype)
            gamma = tf.cast(gamma, w.dtype)
            # Relative to their mean, for it says nothing within a weight.
            v = v / tf.maximum(tf.reduce_mean(v), SMALL)
            w = w * tf.pow(v + 1e-6, gamma / 2.0)
        return tf.cast(masked.reduce(w), tf.float32)

    def member(self, index):
        """Return the unit masks of a member that is judged: genes +-sigma z."""
        o = self.optimizer
        sign = 1.0 - 2.0 * tf.cast(index % 2, tf.float32)
        step = sign * o.current(o.sigma) * self.noise(index // 2)
        counts = o.active_units.now()
        return self.decode(self.genes.value + step, counts)[1]

    def estimate(self, fitness, valid):
        """Return mean d z over pairs [2, weights] and mean d**2, d = (f+ - f-)/2.

        Args:
            fitness: [2 n] losses of the members.
            valid: [2 n] booleans; a pair with a member that failed says nothing.
        """
        both = tf.reduce_all(tf.reshape(valid, (-1, 2)), axis=1)
        losses = tf.where(valid, fitness, 0.0)
        d = tf.where(both, losses[0::2] - losses[1::2], 0.0) / 2.0
        noises = tf.stack([self.noise(pair) for pair in range(d.shape[0])])
        return tf.reduce_mean(d[:, None, None] * noises, 0), tf.reduce_mean(d * d)

    def move(self, estimate, square):
        """Go a step, in units of what differences are like, and back to the start."""
        o, old = self.optimizer, self.scale.value
        known = tf.where(old > 0.0, 0.95 * old + 0.05 * square, square)
        step = estimate * tf.math.rsqrt(tf.maximum(known, SMALL))
        step = o.current(o.mean_learning_rate) * tf.clip_by_value(
            step, -LONGEST, LONGEST
        )
        # Without a rate there is nothing to pull against: a search that has ended.
        pull = tf.where(tf.equal(o.current(o.mean_learning_rate), 0.0), 0.0, o.pull)
        genes = (1.0 - pull) * self.genes.value - step
        genes = tf.clip_by_value(genes, [[-LIMIT], [-1.0]], [[LIMIT], [2.0]])
        assign_all([(self.genes, genes), (self.scale, known)])


class ByCriterion(Decoding):
    """The best units of each weight, as many as the criterion that was found says."""

    def decode(self, scores, counts):
        """Return c as scores, unit masks, and thresholds; what `scores` are is new."""
        return self.optimizer.search.decode(self.optimizer.search.genes.value, counts)

    def totals(self, counts):
        """Return how many units the weights of each group have together.

        With prices, of those that exchange, what they cost: in shares of what may be
        spent in the end, and 1 for less, for rounding leaves something of it.
        """
        search = self.optimizer.search
        found = []
        for group in search.groups:
            total = sum(counts[i] for i in group)
            if search.prices and len(group) > 1:
                last = [m.unit_count for m in self.optimizer.masked_weights]
                cost, budget = (
                    sum(search.prices[i] * of[i] for i in group)
                    for of in (counts, last)
                )
                total = max(1.0, round(cost / budget, 9))
            found.append(total)
        return found


def _comparable(masked):
    """Tell whether a weight may exchange units with others.

    Its pattern chooses the best of all its units, and no other weight has its mask.
    """
    alone = masked.pattern.group is None
    return alone and type(masked.pattern).decode is Pattern.decode


def _groups(weights, prices):
    """Return lists of indices of the weights that share units."""
    groups: dict = {}
    for i, masked in enumerate(weights):
        size = 0 if prices else masked.size // masked.units
        key = size if _comparable(masked) else ("alone", i)
        groups.setdefault(key, []).append(i)
    return list(groups.values())
