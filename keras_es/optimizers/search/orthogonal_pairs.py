"""Strategies whose pairs may have noise that is orthogonal to each other."""

from keras_es.noise.orthogonal import OrthogonalNoise


class OrthogonalPairs:
    """Mixin for strategies with Gaussian noise; goes before `EvolvesWeights`.

    Args:
        inner_optimizer: None for pure evolution, which alone has orthogonal noise.
        orthogonal: Whether the noise of all pairs of a generation (of d, if there
            are more than d numbers to search) is orthogonal, so that no two of them
            ask the same. Each member's own noise is Gaussian as before and estimates
            stay unbiased. For a linear function and n <= d pairs the variance falls by
            the share (n - 1)/(d + 1): nearly all of it for n = d, next to nothing for
            the weights of a network. All noise of a generation is made at once, n d
            numbers at a cost of 2 d n**2. (Members that are not mirrored count as
            pairs.) Not together with `rank` or `pairs_per_draw`.
        **kwargs: See the other base class.

    References:
        See `keras_es.ops.orthogonal.orthogonal_rows`.
    """

    def __init__(self, inner_optimizer, *, orthogonal=False, **kwargs):
        super().__init__(inner_optimizer, **kwargs)
        self.orthogonal = bool(orthogonal)
        if not self.pure:
            self.refuse_in_hybrid({"orthogonal": orthogonal or None})
        if self.pairs_per_draw > 1:
            self.refuse_with_orthogonal("pairs_per_draw", self.pairs_per_draw)
        self.refuse_with_orthogonal("rank", self.rank)

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions (see `minimize`)."""
        return {
            "population_size": population_size, "sigma": sigma, "orthogonal": True
        }  # fmt: skip

    def refuse_with_orthogonal(self, name, value):
        """Raise for an argument that shapes noise in another way."""
        if self.orthogonal and value:
            raise ValueError(
                f"`orthogonal` noise is of full rank and on all weights at once: leave "
                f"`{name}` out, or `orthogonal`. Received: orthogonal=True, "
                f"{name}={value!r}"
            )

    def make_noise(self):
        """Return the noise of the searched variables."""
        if not self.orthogonal:
            return super().make_noise()
        return OrthogonalNoise(
            self.space.variables, self.seed, self.pairs, self.mirrored, self.separable
        )

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), "orthogonal": self.orthogonal}
