from keras import ops

from keras_es.ops.fitness import recombination
from keras_es.optimizers import EvolutionStrategy, register


@register("cross_entropy")
class CrossEntropy(EvolutionStrategy):
    mask_search, mirrored, separable = None, False, True

    def build_search(self):
        self.stds = self.search.add("std", self.initial_stds())

    def scales(self):
        return [std.value for std in self.stds]

    def estimate(self, fitness, valid, said):
        best = recombination(ops.where(valid, fitness, float("inf")))
        return self.search.noise_sums(best, best)

    def update(self, estimate, ok):
        centers, stds = [], []
        for c, s, z, v in zip(self.search.centers(), self.stds, *estimate):
            centers.append(c + s * z)
            stds.append((s, s * ops.sqrt(ops.maximum(1.0 + v, 0.1))))
        return centers, stds
