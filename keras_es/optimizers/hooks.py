"""What a method that moves masks may override."""

from typing import Any

import tensorflow as tf

from keras_es.optimizers import magnitudes


class MaskHooks:
    """Class attributes and hooks of a method, with what they are by default."""

    population_size: Any = 1
    """Members evaluated in one step; 1 is the deployed mask itself."""

    batch_mode: Any = "full"
    """"split": members share the batch out; "full": each sees all of it."""

    fitness: Any = None
    """None for the model's loss, or a function (y, y_pred) -> per-example values."""

    taking_turns = None
    """`TurnTaking` if a generation takes several steps."""

    sparsity_schedule: Any = None
    """A `SparsitySchedule` if the number of active units falls along one."""

    active_units = None
    """`ActiveUnits` if there is such a schedule."""

    magnitude_pull = None
    """Share of the way to the magnitudes of units that scores go in a generation."""

    needs_guidance = False
    """Whether `search_gradient` or `move_masks` wants `unit_guidance`."""

    scheduled = False
    """Whether masks move by `move_masks`, after the steps that `move_is_due` says."""

    resets_slots = False
    """Whether the slots of weights that come back start anew."""

    grows_from_zero = False
    """Whether weights that come back start at zero, else where they were."""

    ranked_together = False
    """Whether the members of several replicas are one population."""

    compiled_together = True
    """Whether XLA may compile members and updates as one program."""

    pure = False
    """Whether weights are evolved, and no gradient is taken."""

    evolves_weights = False
    """Whether `inner_optimizer` may be None (see `EvolvesWeights`)."""

    def build_search(self):
        """Create the state of the search, for `self.masked_weights`."""

    def first_scores(self):
        """Return the scores with which a falling number of active units begins."""
        if self.magnitude_pull is not None:
            return magnitudes.standardized(self.masked_weights)
        return [tf.convert_to_tensor(m.mask_scores.value) for m in self.masked_weights]

    def pruning_scores(self):
        """Return the scores by which masks are pruned if a schedule left them dense."""
        return [tf.convert_to_tensor(m.mask_scores.value) for m in self.masked_weights]

    def member_masks(self, pair):
        """Return the masks of the members of one pair.

        Args:
            pair: Index of the pair, int32 scalar tensor.

        Returns:
            List with one entry for each member of the pair (two, or one if
            `population_size` is 1), each the list of boolean unit masks of
            `self.masked_weights`; None stands for the deployed mask.
        """
        return [[None for _ in self.masked_weights]]

    def search_gradient(self, fitness, valid, guidance):
        """Return what `update_masks` needs, a list of tensors (pure).

        Args:
            fitness: [population_size] losses, lower is better.
            valid: [population_size] booleans, False where not finite.
            guidance: List of mean `unit_guidance`, or None; in pure evolution what
                `evaluate_members` found besides the fitness.
        """
        return []

    def unit_guidance(self, masked, gradient, value, units):
        """Return what is wanted of the gradient g at an effective kernel (pure).

        Asked for if `needs_guidance`, for each member; the mean over members goes on.
        By default dL/dm of each unit, the sum of g * w over it.

        Args:
            masked: The masked weight.
            gradient: g, of the kernel's shape, at active and inactive weights.
            value: w, the latent kernel.
            units: Boolean unit mask of the member, None for the deployed one.
        """
        return masked.unit_gradient(gradient, value, units)

    def search_rests(self):
        """Return whether the members of a step are equal: False or a boolean scalar."""
        return False

    def move_is_due(self):
        """Tell whether masks move after this step, a function of the state alone."""
        raise NotImplementedError

    def move_masks(self, guidance, ok):
        """Move masks by the weights after this step.

        Args:
            guidance: List of mean `unit_guidance` over members and replicas, or [].
            ok: Boolean scalar; if False nothing may change.
        """

    def update_masks(self, search_gradient, ok):
        """Move scores and search distribution.

        Args:
            search_gradient: What the hook of that name returned.
            ok: Boolean scalar; if False nothing may change.

        Returns:
            List of new score tensors, or None if scores did not move.
        """
        return None

    def masks_decoded(self, scores, units, ok):
        """Follow the new scores and the deployed unit masks, for each weight.

        Args:
            scores: List of score tensors.
            units: List of boolean unit masks.
            ok: Boolean scalar; if False nothing may change.
        """
