"""Members whose gradients come from derivatives along random directions.

No backward pass runs through the model. The derivative of the loss along a direction v
of the weights is one number c, and c v estimates the gradient (`ops.directional`).
Directions of layers' outputs y are drawn for each example, whose own loss tells c: c v
estimates its gradient by y, and that of the kernel is linear algebra, x^T (c v).
"""

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.distribution import collectives
from keras_es.layers.masked_weight import effective_weights
from keras_es.noise.directions import (
    Directions,
    layers_with_directions,
    moved_outputs,
    recorded_outputs,
)
from keras_es.noise.layerwise import shares
from keras_es.ops import directional
from keras_es.ops.perturbation import largest_divisor
from keras_es.populations.by_gradients import Population
from keras_es.populations.evaluation import each_times
from keras_es.populations.examples import fitness_parts, rows_of
from keras_es.populations.mapping import map_members, members_can_be_vectorized
from keras_es.populations.member import Member
from keras_es.populations.model_state import refuse_fixed_batch
from keras_es.populations.perturbed import has_loops

CHUNK = 2**25
"""Numbers of the directions that are held at once, 128 MiB; others take turns."""


class TangentMember(Member):
    """A member whose gradients are estimated along directions."""

    def differentiated(self, values, fixed, batch):
        """Return what the model says, and estimates of the gradients."""
        p = self.population
        if p.said_by_direction:
            sums = _Sums(self, values, fixed, batch, [])
            found = sums.means()
            said = sums.said
        else:
            with recorded_outputs(p.layers) as outputs:
                said = self.called(values, fixed, batch)
            sums = _Sums(self, values, fixed, batch, outputs)
            found = sums.means()
        ok = sums.any_known
        gradients = [
            tf.cast(found[id(v)], value.dtype) for v, value in zip(p.variables, values)
        ]
        # Where nothing is known a scaled loss shows it to its optimizer.
        return said, gradients, tf.constant(True) if p.optimizer.scales_loss else ok

    def seen(self, y_pred):
        """Return outputs for fitness and metrics, which tangents need not pass."""
        outputs = keras.tree.map_structure(tf.stop_gradient, y_pred)
        _compat.set_output_masks(outputs, _compat.output_masks(y_pred))
        return outputs

    def where_wanted(self):
        """Return where directions are wanted, a dict from a variable's id to a mask.

        Not at weights that rest, unless the method asks what the gradient is there.
        """
        p = self.population
        if p.optimizer.needs_guidance:
            return {}
        return {
            id(masked.kernel): p.optimizer.latents.reached(masked.active(units))
            for masked, units in zip(p.masked, self.masks)
        }

    @property
    def first_direction(self):
        """Index of the first direction, of all replicas and members one each."""
        p = self.population
        pair = p.optimizer.global_step_pair(self.pair)
        member = pair * p.optimizer.members_per_pair + self.sign
        return tf.cast(member, tf.int32) * p.rule.directions


class TangentPopulation(Population):
    """Evaluates the members of a step on a batch, without a backward pass.

    Args:
        rule: The `DirectionalDerivative` that says how.
        model: See `Population`, as all others.
        x: Inputs.
        y: Targets, or None.
        sample_weight: Weights, or None.

    Raises:
        ValueError: If directions cannot be as the rule wants them.
    """

    member = TangentMember

    def __init__(self, rule, model, x, y, sample_weight):
        super().__init__(model, x, y, sample_weight)
        self.rule, self.layers = rule, []
        if rule.shares_batch:
            refuse_fixed_batch(model, 'directions share one: give batch_mode="full"')
        if rule.perturb == "outputs" and self.variables:
            self.layers = layers_with_directions(model, x)
            if not self.layers:
                raise ValueError(
                    '`perturb="outputs"` is for dense layers and convolutions without '
                    "regularizers, with at most as many positions as weights for an "
                    "output, whose weights no other layer reads. Take "
                    'perturb="weights" for this model. '
                    f"Received: perturb='outputs', model={model.name!r}"
                )
        # The only pass through the model is then that of its direction.
        self.said_by_direction = (
            rule.calls_once
            and rule.directions == 1
            and not self.layers
            and bool(self.variables)
        )


@dataclasses.dataclass(frozen=True)
class _Group:
    """Directions that move the same things.

    Attributes:
        places: Indices of what they move among the centers.
        first: Index of the first of them.
        count: How many there are.
    """

    places: list
    first: int
    count: int


class _Sums:
    """What all directions of a member say, added up.

    `said` is what the model says where the only direction's pass is the only one.

    Directions of outputs take turns: each moves those of one layer, for as many of
    them the derivative is not disturbed by what others do, and what comes before the
    layer carries no tangent.
    """

    def __init__(self, member, values, fixed, batch, outputs):
        self.member, self.fixed, self.batch = member, fixed, batch
        self.outputs, self.values = outputs, values
        self.said: Any = None
        self.p = member.population
        self.rule = self.p.rule
        of_outputs = {id(v) for o in outputs for v in o.variables}
        self.moving = [v for v in self.p.variables if id(v) not in of_outputs]
        by_id = dict(zip(map(id, self.p.variables), values))
        self.centers = [by_id[id(v)] for v in self.moving]
        self.centers += [tf.zeros_like(o.y) for o in outputs]
        step = self.p.optimizer.steps_done()
        self.directions = Directions(self.rule.seed, self.rule.law, step)
        self.wanted = member.where_wanted()
        self.any_known = tf.constant(not self.centers)  # Nothing is to be known.

    def means(self):
        """Return the estimate for each variable, a dict from its id."""
        found: dict[int, Any] = {}
        for group in self._groups():
            count, sums = self._over(group)
            self.any_known |= count > 0.0
            # NaN where none is finite, for a scaled loss; else the member has failed.
            count = count if self.p.optimizer.scales_loss else tf.maximum(count, 1.0)
            for place, total in zip(group.places, sums):
                mean = total / tf.cast(count, total.dtype)
                self._put(found, place, mean)
        return found

    def _put(self, found, place, mean):
        if place < len(self.moving):
            found[id(self.moving[place])] = mean
            return
        output = self.outputs[place - len(self.moving)]
        for variable, gradient in zip(output.variables, output.gradients(mean)):
            # A layer that is called twice has what both calls say.
            before = found.get(id(variable))
            found[id(variable)] = gradient if before is None else before + gradient

    def _groups(self):
        """Divide the directions: one layer's outputs each, if there are enough."""
        count, weights = self.rule.directions, len(self.moving)
        if not self.centers:
            return []
        places = [[i] for i in range(weights, len(self.centers))]
        sizes = [math.sqrt(math.prod(o.y.shape[1:])) for o in self.outputs]
        if weights and places:
            places.append(list(range(weights)))
            sizes.append(math.sqrt(sum(math.prod(v.shape) for v in self.moving)))
        if len(places) < 2 or count < len(places):
            return [_Group(list(range(len(self.centers))), 0, count)]
        groups, first = [], 0
        for own, share in zip(places, shares(sizes, count)):
            groups.append(_Group(own, first, share))
            first += share
        return groups

    def _over(self, group):
        """Return (number of finite directions, sums of c v for each place)."""
        size = sum(
            math.prod(self.moving[i].shape)
            for i in group.places
            if i < len(self.moving)
        )
        chunk = largest_divisor(group.count, CHUNK // max(size, 1))
        first = self.member.first_direction + group.first
        sums = self._chunk(group, first, chunk)
        if chunk == group.count:
            return sums

        def add(i, sums):
            more = self._chunk(group, first + i * chunk, chunk)
            return i + 1, tf.nest.map_structure(tf.add, sums, more)

        turns = group.count // chunk
        return tf.while_loop(lambda i, _: i < turns, add, (tf.constant(1), sums))[1]

    def _chunk(self, group, first, chunk):
        draws = first + tf.range(chunk)
        drawn = self._drawn(group.places, draws)
        elements = [*drawn]
        if self.rule.shares_batch:
            elements.append(self._rows(draws))
        derivative, parts = self._derivatives(group.places, elements, chunk)
        ok = directional.known([d for d in (derivative, parts) if d is not None])
        derivative, sums = tf.where(ok, derivative, 0.0), []
        if parts is not None:
            parts = tf.where(ok[:, None], parts, 0.0)
        for place, v in zip(group.places, drawn):
            if place < len(self.moving):
                c = tf.cast(derivative, v.dtype)
                sums.append(directional.weighted_directions(c, v))
                continue
            c = tf.cast(parts, v.dtype)
            total = sum(each_times(v[k], c[k]) for k in range(chunk))
            reached = self.outputs[place - len(self.moving)].reached
            sums.append(tf.where(reached, total, tf.zeros_like(total)))
        return tf.reduce_sum(tf.cast(ok, tf.float32)), sums

    def _drawn(self, places, draws):
        """Return directions [draws, *shape] of variables and of outputs."""
        own = {i: self.moving[i].shape for i in places if i < len(self.moving)}
        found = self.directions.of_weights(own, draws) if own else []
        for place, (i, drawn) in enumerate(zip(own, found)):
            mask = self.wanted.get(id(self.moving[i]))
            drawn = drawn if mask is None else tf.where(mask, drawn, 0.0)
            found[place] = tf.cast(drawn, self.moving[i].dtype)
        for i in (i - len(self.moving) for i in places[len(own) :]):
            y = self.outputs[i].y
            found.append(tf.cast(self.directions.of_output(i, y, draws), y.dtype))
        return found

    def _rows(self, draws):
        """Return which examples each direction sees, [draws, B/K].

        They begin at a place that is drawn for each step, so that all are seen in the
        end where a batch does not divide.
        """
        size, count = tf.maximum(self.p.batch_size, 1), self.rule.directions
        share = tf.maximum(size // count, 1)
        start = self.directions.place(size)
        first = start + (draws % count)[:, None] * share
        return (first + tf.range(share)) % size

    def _derivatives(self, places, elements, chunk):
        """Return the derivatives along each direction: [k] and [k, examples]."""

        def one(element):
            element = list(element)
            rows = element.pop() if self.rule.shares_batch else None
            by_example = places[-1] >= len(self.moving)

            def call(values):
                return self._call(dict(zip(places, values)), rows, by_example)

            centers = [self.centers[place] for place in places]
            found, parts = self.rule.derivative(
                call, centers, element, self.p.model, self.p.said_by_direction
            )
            found = tf.cast(found, tf.float32)
            return [found] if parts is None else [found, tf.cast(parts, tf.float32)]

        vectorize = chunk > 1 and not has_loops(self.p.model)
        vectorize = vectorize and members_can_be_vectorized(one, elements)
        found = map_members(one, elements, vectorize)
        return found if len(found) > 1 else (found[0], None)

    def _call(self, moved, rows, by_example):
        """Return the scaled loss with some centers moved, and that of examples."""
        p, count = self.p, len(self.moving)
        values = dict(zip(map(id, p.variables), self.values))
        values |= {id(self.moving[i]): v for i, v in moved.items() if i < count}
        changes = [moved.get(i) for i in range(count, len(self.centers))]
        if p.said_by_direction:
            seen = [values[id(v)] for v in p.variables]
            self.said = self.member.called(seen, self.fixed, self.batch)
            return self.said.scaled, None
        x, y, sample_weight = batch = self._examples(rows)
        scope = keras.StatelessScope(
            state_mapping=[*((v, values[id(v)]) for v in p.variables), *self.fixed],
            collect_losses=True,
        )
        with scope, effective_weights(), moved_outputs(p.layers, changes):
            y_pred = _compat.forward(p.model, x, training=True)
            loss = _compat.compute_loss(p.model, x, y, y_pred, sample_weight)
        parts = self._parts(batch, y_pred, scope.losses) if by_example else None
        return p.optimizer.scale_loss(loss), parts

    def _examples(self, rows):
        if rows is None:
            return self.batch
        return rows_of(self.batch, rows)

    def _parts(self, batch, y_pred, added):
        """Return [examples], the part of the scaled loss that is of each."""
        parts = fitness_parts(self.p.model, batch, y_pred, added=added)
        if parts is None:
            raise ValueError(
                '`perturb="outputs"` needs the loss of each example, and this model '
                "has none, one number for all, or a mean that is divided by the sum of "
                "the weights. Let the loss return a value for each example, and have "
                'the reduction "sum_over_batch_size", or take perturb="weights". '
                f"Received: model={self.p.model.name!r}"
            )
        scale = tf.cast(self.p.optimizer.scale_loss(1.0), tf.float32)
        # Keras shares the loss out over the replicas.
        return parts * scale / collectives.replica_count()
