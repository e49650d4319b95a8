"""What an optimizer is told by objects: examples, turns, chunks, falling density."""

from keras_es import schedules
from keras_es._arguments import Argument, Option, integer, optional, share


class Sampled(Option):
    """Members see the examples of a batch that have most to say (`batch_mode=`).

    The mean is called once with the whole batch of n, and members of pure evolution
    see `count` examples of it, drawn with probabilities

        p_i = 0.8 |l_i| / sum_j |l_j| + 0.2 / n

    by the part l of the loss (or fitness) that each has, and weighted by 1/(n p_i),
    which leaves the expected losses of members as they are. What a network does well
    already then costs next to nothing: give `fit` batches of some hundred examples.
    `loss`, those of single outputs and `population_loss` are estimates for the whole
    batch, metrics are those of the mean on all of it. Losses must be means over
    examples.

    Args:
        count: k >= 1.

    Example:

    >>> Sampled(32)
    Sampled(count=32)
    """

    count = Argument(integer(1))


class Turns(Option):
    """The members of a generation take turns, some in a step (`turns=`).

    Scores and deployed masks move at the end of the generation. For a population of n
    it takes (n / members) * steps steps.

    Args:
        members: Even integer M that divides n, the members of a step; None: n, or where
            members share the batch 2 if sampling would cost more than the step does,
            which is with more than one unit for 16 weights.
        steps: H >= 1, for how many steps a pair's masks are held; None: 1, or where
            sampling is not cheap 16, 8 if the method uses dL/dm.

    Example:

    >>> Turns(2, 8)
    Turns(members=2, steps=8)
    """

    members = Argument(optional(integer(2)), None)
    steps = Argument(optional(integer(1)), None)


class Chunks(Option):
    """How many members of pure evolution are evaluated at once (`turns=`).

    Args:
        members: A divisor of the population. Without this option as many as fit the
            caches.

    Example:

    >>> Chunks(16).members
    16
    """

    members = Argument(integer(1))


class Falling(Option):
    """A search that begins dense, or whose scores follow magnitudes (`density=`).

    Args:
        schedule: A `keras_es.schedules.SparsitySchedule` of the step: more units are
            active at first, all as a rule, and fewer from generation to generation, in
            members and deployed masks alike. None: the wanted number from the first
            step.
        pull: None, or a number in [0, 1] or a schedule of the generation: at the end of
            a generation, and as long as the search does not rest, this share p of the
            way from each score s to the size z of its unit is gone,

                s <- (1 - p) s + p z,    z = (u - mean u) / std u,    u = sum |w|

            over the units of a weight, so losses correct what magnitudes say. Not for
            layers that store active blocks only.

    Example:

    >>> Falling(keras_es.schedules.PolynomialSparsity(1000), pull=0.1).pull
    0.1
    """

    schedule = Argument(
        optional(lambda n, v: schedules.get(n, v, schedules.SparsitySchedule))
    )
    pull = Argument(optional(share), None)

    def check(self):
        """Refuse an option that says nothing."""
        if self.schedule is None and self.pull is None:
            raise ValueError(
                "`Falling` must have a schedule, a pull or both; leave `density` out "
                "for the wanted sparsity from the first step. "
                "Received: schedule=None, pull=None"
            )
