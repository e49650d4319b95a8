"""How many members are evaluated at once: as many as the caches hold."""

import math

import keras

from keras_es.layers import tree
from keras_es.ops.perturbation import largest_divisor

CHUNK_WEIGHTS = 2**18
"""Weights of a chunk's draws by default: what a core's cache holds."""

CHUNK_ACTIVATIONS = 2**25
"""Largest output of a layer by default, of all members of a chunk together."""


def draws_at_once(population, members, examples):
    """Return the draws of a chunk of perturbed members, a divisor of all draws.

    Args:
        population: `WeightPopulation`.
        members: Members of a chunk as the user wants them, or None.
        examples: Examples that each member sees.

    Raises:
        ValueError: If `members` does not divide the population.
    """
    noise, per_draw = population.noise, population.noise.members_per_draw
    if members is not None:
        check_divides(members, population.population_size)
        return max(1, largest_divisor(population.draws, members // per_draw))
    size = sum(math.prod(v.shape) for v in noise.variables)
    outputs = largest_output(population.model) * examples
    limit = CHUNK_WEIGHTS // max(size, 1)
    limit = min(limit, CHUNK_ACTIVATIONS // (outputs * per_draw))
    return largest_divisor(population.draws, limit)


def members_at_once(model, space, population_size, vectorize, examples):
    """Return the members of a chunk whose weights are given, a divisor of all.

    Args:
        model: Keras model.
        space: `SearchSpace` of its variables.
        population_size: n.
        vectorize: Whether members can be evaluated at once at all.
        examples: Examples that each member sees.
    """
    if not vectorize:
        return 1
    outputs = largest_output(model) * examples
    # Given weights are used once, drawn ones for each layer: four times as many.
    limit = 4 * CHUNK_WEIGHTS // max(space.size, 1)
    return largest_divisor(population_size, min(limit, CHUNK_ACTIVATIONS // outputs))


def check_divides(members, population_size):
    """Raise if chunks of so many members do not make up a population."""
    if members < 1 or population_size % members:
        raise ValueError(
            "`members_per_chunk` must divide the population. Received: "
            f"members_per_chunk={members}, population_size={population_size}"
        )


def largest_output(model):
    """Return the size of the largest output of a layer for one example, if known."""
    sizes = [1]
    for _, layer in tree.walk(model):
        try:
            outputs = keras.tree.flatten(layer.output)
        except (AttributeError, ValueError):
            continue  # Called within a composite, or more than once.
        sizes += [math.prod(d or 1 for d in o.shape[1:]) for o in outputs]
    return max(sizes)
