"""What becomes of masked-out weights in a step: they rest, or they learn."""

import math

import tensorflow as tf

from keras_es.optimizers.density import refuse_block_sparse


class Resting:
    """Masked-out weights keep their values, and their slots, to the bit.

    Args:
        optimizer: The `MaskOptimizer`.
    """

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def build(self):
        """Do nothing: any layer can do that."""

    @property
    def resets_slots(self):
        """Whether the slots of weights that come back start anew."""
        return self.optimizer.resets_slots

    @property
    def grows_from_zero(self):
        """Whether weights that come back start at zero, else where they were."""
        return self.optimizer.grows_from_zero

    def reached(self, active):
        """Return where a member's gradient reaches a weight that is `active` there."""
        return active

    def allowed(self, active, ok):
        """Return where the inner optimizer may act, for weights and their slots.

        Args:
            active: Boolean union of the members' masks for each masked weight.
            ok: Boolean scalar; if False nothing may change.

        Returns:
            Dict from id of a variable to a boolean tensor, and to the share of their
            update that weights get elsewhere (see `guarded_apply`).
        """
        allowed, slots = {}, self.optimizer.inner.slots
        for masked, mask in zip(self.optimizer.masked_weights, active):
            mask = tf.logical_and(mask, ok)
            for variable in (masked.kernel, *slots.get(id(masked.kernel), ())):
                allowed[id(variable)] = mask
        return allowed, {}


class Learning(Resting):
    r"""Masked-out weights learn, straight through the mask.

    The gradient g at the effective kernel is known at every weight, active or not.
    With U(g) what the inner optimizer would do and m the mask,

        w <- w + U(g) (m + theta (1 - m)),    theta = s**(-p/2),

    s the number of weights of a unit, and p = 1, or min(1, t / T) in step t where the
    optimizer has `explore_until` T. Of the update and not of the gradient, since Adam
    cancels a factor there. With theta = 1 the weights of a large unit would run off
    together: Adam moves each by a whole step however small its gradient, and the
    unit's magnitude grows by the sum of them. Signs that agree by chance only give
    sqrt(s) of it, hence the rule; a single weight learns like any other. While masks
    are still looked for, that units overtake each other is just what is wanted, hence
    the smaller p at first. Slots are those of the dense gradient.

    References:
        Jayakumar et al. 2021, Top-KAST, arXiv 2106.03517; Vanholder 2022, ST-3, arXiv
        2212.01076; Glandorf et al. 2023, Feather, arXiv 2310.02448.
    """

    resets_slots = False
    grows_from_zero = False

    def build(self):
        """Refuse layers that store no masked-out weight."""
        refuse_block_sparse(
            self.optimizer,
            'lets masked-out weights learn (masked_out="learn"), and a block-sparse '
            "layer has none",
        )

    def reached(self, active):
        """Return True: the gradient reaches every weight."""
        return tf.constant(True)

    def allowed(self, active, ok):
        """Return the shares of inactive weights; slots live everywhere."""
        allowed, shares = {}, {}
        for masked, mask in zip(self.optimizer.masked_weights, active):
            if masked.units == masked.size:
                continue  # theta is 1: a weight learns as if there were no mask
            allowed[id(masked.kernel)] = tf.logical_and(mask, ok)
            share = self._share(masked.size / masked.units)
            # Where the step is void nothing moves, active or not.
            shares[id(masked.kernel)] = tf.where(ok, share, 0.0)
        return allowed, shares

    def _share(self, size):
        """Return theta of units of so many weights."""
        until = self.optimizer.explore_until
        if until is None:
            return 1.0 / math.sqrt(size)
        step = tf.cast(self.optimizer.generation.value, tf.float32)
        return tf.pow(size, -0.5 * tf.minimum(1.0, step / until))


KINDS = {"rest": Resting, "learn": Learning}
"""What `masked_out` may be."""
