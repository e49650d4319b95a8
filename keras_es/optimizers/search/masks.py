"""`MaskSearch`: a search of mask scores, beside an optimizer of the weights."""

import tensorflow as tf
from keras import ops

from keras_es.layers import groups, tree
from keras_es.ops import fitness as shaping
from keras_es.ops import noise, search
from keras_es.optimizers import magnitudes
from keras_es.optimizers.density import unit_counts
from keras_es.optimizers.deployment import deploy_scores
from keras_es.optimizers.inner import Inner
from keras_es.optimizers.options import Chunks, Sampled
from keras_es.optimizers.search.base import Search
from keras_es.optimizers.search.turns import TurnTaking, default_turns


class MaskSearch(Search):
    """Members are masks, decoded from scores + noise; weights have an optimizer.

    Each weight with a mask is a search of its own, with Gaussian noise and exact
    top-k. Members take turns over several steps where sampling is dear.
    """

    inner = Inner

    def check(self):
        """Refuse arguments of pure evolution, and turns that do not divide."""
        s = self.strategy
        sampled = s.batch_mode if isinstance(s.batch_mode, Sampled) else None
        chunks = s.turns if isinstance(s.turns, Chunks) else None
        self.refuse(noise=s.noise, batch_mode=sampled, turns=chunks)
        members = None if s.turns is None else s.turns.members
        if members is not None and (members % 2 or s.population_size % members):
            raise ValueError(
                "`turns` must have an even number of members that divides "
                f"population_size={s.population_size}. Received: turns={s.turns!r}"
            )

    def refuse(self, **arguments):
        """Raise for an argument of pure evolution that was given."""
        cls = type(self.strategy)
        for key, value in arguments.items():
            if value is not None:
                use = "Leave it out"
                if cls.weight_search is not None:
                    use = f"It is for {cls.__name__}(None, {key}=...)"
                raise ValueError(
                    f"`{key}={value!r}` is of pure evolution, and here the weights are "
                    f"trained by gradient. {use}. Received: {key}={value!r}"
                )

    def build(self, variables):
        """Take on the scores of all masked weights."""
        self.masked = self.strategy.masked_weights
        self.variables = [m.mask_scores for m in self.masked]
        self.factors = [1.0] * len(self.variables)
        self.keys = [
            noise.stream_key(self.strategy.seed, f"{i}")
            for i in range(len(self.masked))
        ]

    def begin(self):
        """Create the state of turns, if members take any."""
        members, held = default_turns(self.strategy, self.masked)
        if members < self.strategy.population_size or held > 1:
            self.scheduled_turns = TurnTaking(self.strategy, members, held)
            self.scheduled_turns.build()

    def steps_per_generation(self, model):
        """Return how many steps of `fit` a generation takes: (n/M) * H."""
        members, held = default_turns(self.strategy, tree.masked_weights(model))
        return self.strategy.population_size // members * held

    def dimension(self, variable):
        """Return the number of units of the weight: masks are searched one by one."""
        return int(variable.shape.num_elements())

    def mean_rate(self, dimension):
        """Return min(1, 4/sqrt d), for a step that does not grow with d."""
        return search.snes_mean_learning_rate(dimension)

    def refuse_optimizers(self, names):
        """Refuse an optimizer of the mean of weights, which have their own."""
        for name in names:
            if name not in self.optimizers:
                self.refuse(**{name: getattr(self.strategy, name)})

    @property
    def optimizers(self):
        """The optimizer of the scores."""
        return {"score_optimizer": lambda: self.variables}

    def population(self, model, batch):
        """Return what evaluates the members of a step, with gradients."""
        return self.strategy.inner.population(model, *batch)

    # Members.

    def noise(self, pair):
        """Return the standard normal noise of one pair, for each weight's scores."""
        return self.draw(noise.normal, pair)

    def draw(self, distribution, pair):
        """Draw from a function of `ops.noise` for one pair, for each weight."""
        s = self.strategy
        position = s.generation.value, s.global_pair(pair)
        return [
            distribution(tuple(v.shape), noise.counter_seed(key, *position))
            for v, key in zip(self.variables, self.keys)
        ]

    def member_masks(self, pair):
        """Decode scores + scale * noise and scores - scale * noise."""
        if not self.masked:  # all of them may be frozen
            return [[], []]
        s = self.strategy
        drawn, scales, counts = self.noise(pair), s.scales(), unit_counts(s)

        def member(sign):
            scores = [
                m.mask_scores.value + sign * scale * e
                for m, scale, e in zip(self.masked, scales, drawn)
            ]
            scores = groups.agreed(self.masked, scores)
            return [m.decode(*s) for m, *s in zip(self.masked, scores, counts)]

        # A loop, for XLA takes long to compile a selection, and so does it once.
        types = [tf.bool for _ in self.masked]
        masks = tf.map_fn(member, tf.constant([1.0, -1.0]), fn_output_signature=types)
        return list(zip(*(tf.unstack(mask) for mask in masks)))

    # What members said.

    def centred(self, fitness, valid):
        """Subtract what examples did: the mean of the pair where pairs saw others."""
        shared = self.strategy.batch_mode == "split"
        return shaping.baseline(fitness, valid, shared)

    def _sums(self, first, square, said):
        def term(pair):
            noises = self.noise(pair)
            terms = [first[pair] * z for z in noises]
            if square is not None:
                terms += [square[pair] * (ops.square(z) - 1.0) for z in noises]
            return terms

        return self.sum_over_pairs(term, 1 if square is None else 2)

    def sum_over_pairs(self, term, copies=1):
        """Return the sum of `term(pair)`, a list of tensors, over the ranked pairs.

        The tensors are of the shapes of the scores, `copies` times all of them.
        """
        return self.strategy.ranking.over_all(lambda: self._own_sum(term, copies))

    def _own_sum(self, term, copies):
        pairs = self.strategy.pairs
        if pairs == 1:
            return term(0)

        def body(pair, *sums):
            return (pair + 1, *(a + b for a, b in zip(sums, term(pair))))

        # From zero: the first term alone would be traced and compiled a second time.
        zeros = [ops.zeros(v.shape, v.dtype) for v in self.variables] * copies
        sums = ops.while_loop(
            lambda pair, *_: pair < pairs, body, (ops.cast(0, "int32"), *zeros)
        )
        return list(sums[1:])

    def put_back(self, centers, ok):
        """Set new scores, drawn to magnitudes if that is wanted, and deploy."""
        scores = magnitudes.pulled(self.strategy, centers)
        deploy_scores(self.strategy, scores, ok)

    def load(self, store):
        """Load what was saved; losses of another number of replicas are left out.

        The members that they belong to then count as not evaluated.
        """
        turns, variables = self.scheduled_turns, self.strategy.variables
        if turns is None or len(store.keys()) != len(variables):
            return False
        may_differ = [id(turns.losses), id(turns.evaluations)]
        for i, variable in enumerate(variables):
            value = store[str(i)]
            same = tuple(value.shape) == tuple(variable.shape)
            if same or id(variable) not in may_differ:
                variable.assign(value)
        return True
