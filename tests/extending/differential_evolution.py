from keras import ops

from keras_es.ops import noise
from keras_es.optimizers import EvolutionStrategy, register
from keras_es.optimizers.search.weights import ValueSearch


@register("differential_evolution")
class DifferentialEvolution(EvolutionStrategy):
    mask_search, weight_search, mirrored = None, ValueSearch, False

    def draw(self, shape, *position):
        return noise.uniform(shape, noise.counter_seed(self.seed, *position))

    def build_search(self):
        n, start = self.population_size, self.search.centers()
        self.losses = self.search.add_one("loss", (n,), float("inf"))
        self.parents = self.search.add("parent", copies=(n,))
        for i, (p, c, s) in enumerate(zip(self.parents, start, self.scales())):
            p.assign(c + s * (2.0 * self.draw(tuple(p.shape), i, 1) - 1.0))

    def member_values(self):
        n = self.population_size
        shifts = ops.cast(n * self.draw((3,), self.generation.value, 0), "int32")
        rows = lambda p, i: [ops.take(p, (i + shifts[k]) % n, 0) for k in range(3)]  # noqa: E731
        trial = lambda a, b, c: a + 0.7 * (b - c)  # noqa: E731
        return lambda indices: [trial(*rows(p, indices)) for p in self.parents]

    def estimate(self, fitness, valid, said):
        return ops.where(valid, fitness, float("inf"))

    def update(self, estimate, ok):
        better, losses = estimate < self.losses, ops.minimum(estimate, self.losses)
        trials = self.member_values()(ops.arange(self.population_size))
        wider = [ops.reshape(better, (-1, *[1] * (p.ndim - 1))) for p in self.parents]
        new = [ops.where(*each) for each in zip(wider, trials, self.parents)]
        return [p[ops.argmin(losses)] for p in new], [
            (self.losses, losses), *zip(self.parents, new)
        ]  # fmt: skip
