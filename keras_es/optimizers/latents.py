"""What becomes of masked-out weights in a step: they rest, or they learn."""

import math

import tensorflow as tf

from keras_es.optimizers.density import refuse_block_sparse, unit_counts

CROWD = 20.0
"""So many masked-out weights for each active one, and masks move as they want to."""

CALMEST = 0.1
"""Least q, that of a sparsity of 99.5 %, the highest that was measured."""


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
            Dict from id of a variable to a boolean tensor, and to how much of their
            update weights get there and elsewhere (see `guarded_apply`).
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

        w <- w + U(g) (m / sqrt(q) + sqrt(q) theta (1 - m)),    theta = s**(-p/2),

    s the number of weights of a unit, and p = 1, or min(1, t / T) in step t where the
    optimizer has `explore_until` T. Of the update and not of the gradient, since Adam
    cancels a factor there. With theta = 1 the weights of a large unit would run off
    together: Adam moves each by a whole step however small its gradient, and the
    unit's magnitude grows by the sum of them. Signs that agree by chance only give
    sqrt(s) of it, hence the rule; a single weight learns like any other (theta = q =
    1). While masks are still looked for, that units overtake each other is just what is
    wanted, hence the smaller p at first. Slots are those of the dense gradient.

    q = 20 n_1 / n_0 within [0.1, 1], with n_1 active weights for n_0 masked-out ones in
    units of several: 1 up to a sparsity of 95.2 %, 0.41 at 98 and 0.20 at 99 %. Where
    so many units wait for each active one, some of them always overtake it, and few
    weights want larger steps than many: so the first get less and the others more.

    References:
        Jayakumar et al. 2021, Top-KAST, arXiv 2106.03517; Vanholder 2022, ST-3, arXiv
        2212.01076; Glandorf et al. 2023, Feather, arXiv 2310.02448; for larger steps
        of fewer weights, Dey et al. 2024, Sparse maximal update parameterization,
        arXiv 2405.15743. What q does is measured in docs/notes.
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
        """Return the shares of weights of coarse units; slots live everywhere."""
        allowed, shares = {}, {}
        more, less = self._crowded()
        for masked, mask in zip(self.optimizer.masked_weights, active):
            if not _is_coarse(masked):
                continue  # a weight learns as if there were no mask
            allowed[id(masked.kernel)] = tf.logical_and(mask, ok)
            share = less * self._share(masked.size / masked.units)
            # Where the step is void nothing moves, active or not.
            shares[id(masked.kernel)] = more, tf.where(ok, share, 0.0)
        return allowed, shares

    def _crowded(self):
        """Return 1/sqrt(q) and sqrt(q); None and 1 where q is 1 at all times."""
        weights = [m for m in self.optimizer.masked_weights if _is_coarse(m)]
        total = sum(m.size for m in weights)
        least = sum(m.nnz for m in weights)
        if CROWD * least >= total - least:
            return None, 1.0
        counts = zip(self.optimizer.masked_weights, unit_counts(self.optimizer))
        active = tf.add_n([
            tf.cast(m.unit_count if count is None else count, tf.float32)
            * (m.size // m.units)
            for m, count in counts
            if _is_coarse(m)
        ])  # fmt: skip
        q = tf.clip_by_value(CROWD * active / (total - active), CALMEST, 1.0)
        root = tf.sqrt(q)
        return 1.0 / root, root

    def _share(self, size):
        """Return theta of units of so many weights."""
        until = self.optimizer.explore_until
        if until is None:
            return 1.0 / math.sqrt(size)
        step = tf.cast(self.optimizer.generation.value, tf.float32)
        return tf.pow(size, -0.5 * tf.minimum(1.0, step / until))


def _is_coarse(masked):
    """Tell whether a unit has several weights."""
    return masked.units < masked.size


KINDS = {"rest": Resting, "learn": Learning}
"""What `masked_out` may be."""
