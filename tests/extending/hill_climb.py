from keras import ops

from keras_es.optimizers import EvolutionStrategy, register


@register("hill_climb")
class HillClimb(EvolutionStrategy):
    def estimate(self, fitness, valid, said):
        sign = ops.where(fitness[0] < fitness[1], 1.0, -1.0)
        return [sign * s * z for s, z in zip(self.scales(), self.search.noise(0))]

    def update(self, estimate, ok):
        return [c + g for c, g in zip(self.search.centers(), estimate)], []
