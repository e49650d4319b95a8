"""The functions, evaluated by evosax's code for both sides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from evosax.problems.bbob.bbob_fns import bbob_fns
from evosax.problems.bbob.meta_bbob import MetaBBOBProblem

from benchmarks.bbob.settings import SEEDS

FUNCTIONS = tuple(bbob_fns)


class Problems:
    """All functions in d dimensions, an instance for each seed.

    An instance has its own optimum and rotations; the value of the optimum is 0.

    Args:
        dimensions: d.
    """

    def __init__(self, dimensions):
        self.dimensions = dimensions
        self.meta = MetaBBOBProblem(list(FUNCTIONS), dimensions, dimensions)
        keys = jax.random.split(jax.random.key(0), SEEDS)
        instances = jax.vmap(self.meta.sample_params)(keys)
        self.instances = instances.replace(
            f_opt=jnp.zeros(SEEDS), num_dims=jnp.full(SEEDS, dimensions)
        )
        self.starts = np.random.default_rng(dimensions).uniform(
            -4.0, 4.0, (SEEDS, dimensions)
        )
        self.starts = self.starts.astype("float32")
        self._state = self.meta.init(keys[0], self.instances)

    def value(self, function, instance, members):
        """Return the values of members [n, d] in one instance.

        Args:
            function: Index in `FUNCTIONS`.
            instance: One of `instances`.
            members: Array [n, d].
        """
        # Not of the instance: then all functions would be computed for each.
        instance = instance.replace(fn_id=function)
        key = jax.random.key(0)  # of the noise, which there is none of
        return self.meta.eval(key, members, self._state, instance)[0]

    @functools.cached_property
    def values(self):
        """Function (index, members [seeds, n, d]) -> values [seeds, n], compiled."""

        def values(function, members):
            return jax.vmap(lambda i, m: self.value(function, i, m))(
                self.instances, members
            )

        return jax.jit(values)
