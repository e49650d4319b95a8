"""What noise the members of pure evolution have: the values of `noise=`.

`Full`, `LowRank` and `Orthogonal` say how noise on weights is drawn; `Outputs`,
`Layerwise` and `Active` are put around one of them, the first two around each other
as well, and say where it is.
"""

from keras_es._arguments import Argument, Option, instance, integer, schedule
from keras_es.noise.orthogonal import OrthogonalNoise
from keras_es.noise.weights import WeightNoise


class Noise(Option):
    """Base of the values of `noise=`.

    Attributes:
        pairs_per_draw: How many pairs share a draw.
        output_sigma: Scale of noise on outputs of layers, None for none there.
        apart: Whether each pair has noise on the weights of one layer alone.
        resting: Whether masks rest, and active weights alone are searched.
    """

    pairs_per_draw: object = 1
    output_sigma: object = None
    apart: object = False
    resting: object = False

    def make(self, variables, seed, pairs, mirrored, separable):
        """Return the `WeightNoise` of some variables.

        Args:
            variables: List of float weights.
            seed: Integer.
            pairs: Number of pairs in a generation.
            mirrored: See `WeightNoise`.
            separable: See `WeightNoise`.
        """
        raise NotImplementedError


class Full(Noise):
    """Independent normal noise on every weight.

    Args:
        pairs_per_draw: g >= 1 pairs share their noise up to random signs of its
            columns, which is faster; the estimate stays unbiased, and its variance
            grows by about the share g / columns.

    Example:

    >>> Full(pairs_per_draw=4)
    Full(pairs_per_draw=4)

    References:
        Wen et al. 2018, Flipout, arXiv 1803.04386.
    """

    pairs_per_draw = Argument(integer(1), 1)

    def make(self, variables, seed, pairs, mirrored, separable):
        """Return the `WeightNoise` of some variables."""
        return WeightNoise(
            variables, seed, None, self.pairs_per_draw, mirrored, separable
        )


class LowRank(Noise):
    r"""Noise A B^T / sqrt r on every matrix, which is drawn and multiplied faster.

    Args:
        rank: r >= 1; A has r columns, as has B, both standard normal.
        pairs_per_draw: See `Full`.

    Example:

    >>> LowRank(1).rank
    1

    References:
        Sarkar et al. 2025, Evolution strategies at the hyperscale (EGGROLL).
    """

    rank = Argument(integer(1))
    pairs_per_draw = Argument(integer(1), 1)

    def make(self, variables, seed, pairs, mirrored, separable):
        """Return the `WeightNoise` of some variables."""
        return WeightNoise(
            variables, seed, self.rank, self.pairs_per_draw, mirrored, separable
        )


class Orthogonal(Noise):
    """Noise of all pairs of a generation that is orthogonal to each other.

    No two of them ask the same (of d pairs, if there are more than d numbers to
    search). Each member's own noise is Gaussian as before and estimates stay
    unbiased. For a linear function and n <= d pairs the variance falls by the share
    (n - 1)/(d + 1): nearly all of it for n = d, next to nothing for the weights of a
    network. All noise of a generation is made at once, n d numbers at a cost of
    2 d n**2. (Members that are not mirrored count as pairs.)

    Example:

    >>> Orthogonal()
    Orthogonal()

    References:
        See `keras_es.ops.orthogonal.orthogonal_rows`.
    """

    def make(self, variables, seed, pairs, mirrored, separable):
        """Return the `OrthogonalNoise` of some variables."""
        return OrthogonalNoise(variables, seed, pairs, mirrored, separable)


_noise = instance(Noise, "an object of keras_es.noise, such as LowRank(1)")


class _Around(Noise):
    """Base of what says where noise is; how it is drawn says what it is put around."""

    noise: object

    @property
    def pairs_per_draw(self):
        """How many pairs share a draw."""
        return self.noise.pairs_per_draw

    @property
    def output_sigma(self):
        """Scale of noise on outputs of layers, None for none there."""
        return self.noise.output_sigma

    @property
    def apart(self):
        """Whether each pair has noise on the weights of one layer alone."""
        return self.noise.apart

    def check(self):
        """Refuse noise that has to be on all weights at once, and the same twice."""
        if isinstance(self.noise, (Orthogonal, Active, type(self))):
            why = "is on all weights at once"
            if isinstance(self.noise, type(self)):
                why = "is so already"
            raise ValueError(
                f"`noise` of {type(self).__name__} must be drawn for each layer by "
                f"itself, and {type(self.noise).__name__} {why}: give Full() or "
                f"LowRank(r). Received: noise={self.noise!r}"
            )

    def make(self, variables, seed, pairs, mirrored, separable):
        """Return the noise of some variables, as what is inside draws it."""
        return self.noise.make(variables, seed, pairs, mirrored, separable)


class Outputs(_Around):
    """Noise on the outputs x W of dense layers and convolutions, not on their weights.

    Chosen are layers with at least four times as many weights for an output as
    positions where it is computed (a dense layer has one). Their kernels and biases
    have no noise then; what losses say of them is

        dc/dy ~ sum_k (c_k+ - c_k-) delta_k / (2 K sigma),    dc/dW = x^T dc/dy

    with the part c of the fitness that hangs on one example, random signs delta for
    each example and output, K pairs, and x of the mean: unknown are then a few outputs
    instead of all weights, so far fewer evaluations do. The rest has `noise` of the
    strategy's sigma. An example's part is taken to depend on its own outputs alone, so
    not for models whose examples see each other in training (BatchNormalization), nor
    where only all together have a fitness. Layers of your own take part through a
    method `kernel_product` (docs/pure_es.md).

    Args:
        sigma: Scale of the noise on outputs, a number of at least 0 or a
            `LearningRateSchedule` of the generation.
        noise: Noise of all other weights: `Full`, `LowRank` or `Layerwise`.

    Example:

    >>> Outputs(0.3, LowRank(1)).output_sigma
    0.3

    References:
        Widrow, Lehr 1990, 30 years of adaptive neural networks (MADALINE rule III);
        Ren et al. 2023, Scaling forward gradient with local losses, arXiv 2210.03310.
    """

    sigma = Argument(schedule)
    noise = Argument(_noise, Full())

    @property
    def output_sigma(self):
        """Scale of noise on outputs of layers."""
        return self.sigma

    def check(self):
        """Refuse what cannot be inside, and outputs twice."""
        super().check()
        if self.noise.output_sigma is not None:
            raise ValueError(
                "Noise on outputs must be given once. "
                f"Received: noise={self.noise!r} within Outputs"
            )


class Layerwise(_Around):
    """Each pair has noise on the weights of one layer alone.

    Pairs are divided in proportion to the square root of the number of a layer's
    weights. What lies before that layer is computed once for all its members:
    convolutions cost a fraction. `population_size` must be large enough for a draw for
    each layer. Around or within `Outputs` the noise on outputs is in all pairs.

    Args:
        noise: How the noise is drawn: `Full`, `LowRank` or `Outputs`.

    Example:

    >>> Layerwise(Outputs(0.3)).apart
    True
    """

    noise = Argument(_noise, Full())

    @property
    def apart(self):
        """True."""
        return True

    def check(self):
        """Refuse what cannot be inside, and layers apart twice."""
        super().check()
        if self.noise.apart:
            raise ValueError(
                "Layers must be taken apart once. "
                f"Received: noise={self.noise!r} within Layerwise"
            )


class Active(_Around):
    """Noise on active weights alone, whose masks rest: nothing else is searched.

    Each masked weight is searched as the shorter vector of its active entries: noise,
    state and updates have the length of what is left. An entry has the noise of its
    position among all weights, so that the search differs from that of the whole
    weights by what is left out alone. Weights without a mask are searched whole.

    Args:
        noise: How the noise is drawn: `Full()` or `Orthogonal()`, in which each weight
            has noise of its own.

    Example:

    >>> Active(Orthogonal()).resting
    True

    References:
        Lange, Sprekeler 2023, Lottery tickets in evolutionary optimization,
        arXiv 2306.00045.
    """

    noise = Argument(_noise, Full())

    @property
    def resting(self):
        """True."""
        return True

    def check(self):
        """Refuse noise that single weights cannot have."""
        if not (
            isinstance(self.noise, Full | Orthogonal) and self.noise.pairs_per_draw == 1
        ):
            raise ValueError(
                "`noise` of Active must be noise of single weights: give Full() or "
                f"Orthogonal(). Received: noise={self.noise!r}"
            )
