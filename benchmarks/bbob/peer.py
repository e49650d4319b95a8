"""evosax's side: the whole search of all seeds under `jax.jit`."""

import jax
import jax.numpy as jnp
import numpy as np
from evosax import algorithms

from benchmarks.bbob.settings import GENERATIONS, MEMBERS, SEEDS


class Peer:
    """An algorithm of evosax on the functions of one number of dimensions.

    Args:
        algorithm: `Algorithm`.
        problems: `Problems`.
    """

    def __init__(self, algorithm, problems):
        arguments, changed = algorithm.theirs()
        self.problems = problems
        self.algorithm = getattr(algorithms, algorithm.peer)(
            population_size=MEMBERS,
            solution=jnp.zeros(problems.dimensions),
            **arguments,
        )
        changed = {name: jnp.asarray(value) for name, value in changed.items()}
        self.params = self.algorithm.default_params.replace(**changed)
        self.search = jax.jit(self._search)

    def _search(self, function, keys):
        def generation(carry, key):
            state, instance = carry
            first, second = jax.random.split(key)
            members, state = self.algorithm.ask(first, state, self.params)
            values = self.problems.value(function, instance, members)
            state, _ = self.algorithm.tell(second, members, values, state, self.params)
            return (state, instance), None

        def one(key, start, instance):
            state = self.algorithm.init(key, start, self.params)
            keys = jax.random.split(key, GENERATIONS)
            (state, _), _ = jax.lax.scan(generation, (state, instance), keys)
            return state.best_fitness

        starts = jnp.asarray(self.problems.starts)
        return jax.vmap(one)(keys, starts, self.problems.instances)

    def best(self, function):
        """Return the lowest value that each seed has seen, [seeds].

        Args:
            function: Index of the function.
        """
        keys = jax.random.split(jax.random.key(1), SEEDS)
        return np.asarray(self.search(function, keys))
