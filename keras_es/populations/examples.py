"""Members see the examples of a batch that have most to say.

Of a network that is right about most examples the rest decide where it goes. Whoever
evaluates hundreds of members can afford to look first: the mean is called once with
the whole batch, and members with few of its examples, drawn by their losses.
"""

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.distribution.collectives import replica_count, replica_index
from keras_es.ops import importance, noise
from keras_es.populations.evaluation import each_times, weighted_fitness


def fitness_parts(model, batch, y_pred, values=None, added=()):
    """Return the part of the fitness that hangs on each example, [examples].

    Args:
        model: Compiled model.
        batch: (x, y, sample_weight).
        y_pred: Outputs.
        values: None for the model's loss, or what a fitness function said of the
            examples, times their weights: [examples, ...], or one number for all.
        added: Losses that layers added (`add_loss`), which hang on all examples: each
            part has all of them, besides what is of its example alone.

    Returns:
        [examples] parts, or None where there are none. Without `added` their sum is
        the fitness.
    """
    x, y, sample_weight = batch
    ones = tf.ones((batch_size(x),))
    if values is not None:
        if values.shape.rank == 0:
            return None
        axes = list(range(1, values.shape.rank))
        return tf.reduce_mean(values, axis=axes) / tf.reduce_sum(ones)
    if has_one_loss_for_all(model, y, y_pred) or _divides_by_weights(model):
        return None
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(ones)
        weight = times_weights(ones, y_pred, sample_weight)
        loss = _compat.compute_loss(model, x, y, y_pred, weight)
        loss = _compat.unscale_loss_for_distribution(loss)
    # A loss is linear in the weights of its examples: sum_b w_b l_b.
    parts = tape.gradient(loss, ones)
    if parts is None or not added:
        return parts
    return parts + sum(tf.reduce_sum(tf.cast(a, parts.dtype)) for a in added)


def _divides_by_weights(model):
    """Tell whether a loss of a model is divided by the sum of the weights.

    It is not linear in them, and no sum of parts that hang on an example each.
    """
    return bool(_losses_reduced(model, "mean_with_sample_weight"))


def _losses_reduced(model, reduction):
    """Return the losses of a model with a reduction, a list."""
    losses = keras.tree.flatten(model.loss)
    return [loss for loss in losses if getattr(loss, "reduction", None) == reduction]


def has_one_loss_for_all(model, y, y_pred):
    """Tell whether a loss function of a model returns one number for all examples.

    Keras takes it, and weighs it as if each example had it.
    """
    losses, targets = keras.tree.flatten(model.loss), keras.tree.flatten(y)
    outputs = keras.tree.flatten(y_pred)
    if not len(losses) == len(targets) == len(outputs):
        return False
    of_a_user = [
        (loss.call if isinstance(loss, keras.losses.Loss) else loss, target, output)
        for loss, target, output in zip(losses, targets, outputs)
        if callable(loss) and target is not None
    ]
    # Keras brings both to floatx before it calls a loss.
    as_floats = (
        loss(*(keras.ops.cast(t, keras.config.floatx()) for t in (target, output)))
        for loss, target, output in of_a_user
    )
    return any(tf.convert_to_tensor(found).shape.rank == 0 for found in as_floats)


def batch_size(x):
    """Return the number of examples of a structure of inputs, a scalar tensor."""
    return tf.shape(first_input(x))[0]


def first_input(x):
    """Return the first tensor of a structure of inputs."""
    return next(i for i in keras.tree.flatten(x) if i is not None)


def rows_of(batch, rows):
    """Return some examples of a batch.

    Args:
        batch: Structure of tensors with a leading batch axis, or None.
        rows: [n] indices of examples.

    Raises:
        ValueError: If an input is a SparseTensor.
    """

    def chosen(t):
        if isinstance(t, tf.SparseTensor):
            raise ValueError(
                "Members share a batch, and a SparseTensor cannot be shared out: give "
                'batch_mode="full", or dense inputs. '
                f"Received: a SparseTensor of shape {tuple(t.shape)}"
            )
        return None if t is None else tf.gather(t, rows)

    return keras.tree.map_structure(chosen, batch)


def never_empty(batch):
    """Return a replica's batch, with an example of zeros if it has none.

    The last batch may leave a replica without examples, and TensorFlow's products of
    no rows for several members at once have another shape than without members.

    Args:
        batch: Structure of tensors with a leading batch axis, or None.
    """
    parts = [t for t in keras.tree.flatten(batch) if t is not None]
    dense = all(isinstance(t, tf.Tensor) for t in parts)
    if replica_count() == 1 or not dense or parts[0].shape[0] is not None:
        return batch
    missing = tf.cast(tf.shape(parts[0])[:1] == 0, tf.int32)

    def filled(t):
        zeros = tf.zeros(tf.concat([missing, tf.shape(t)[1:]], 0), t.dtype)
        return tf.ensure_shape(tf.concat([t, zeros], 0), t.shape)

    return keras.tree.map_structure(lambda t: None if t is None else filled(t), batch)


def times_weights(factors, y_pred, sample_weight):
    """Return the weights of examples times factors of theirs.

    Args:
        factors: [examples].
        y_pred: Outputs, whose structure tells that of the weights.
        sample_weight: Weights, or None.
    """
    if sample_weight is None:
        return keras.tree.map_structure(lambda p: _of_rank(factors, p), y_pred)
    return keras.tree.map_structure(
        lambda w: each_times(tf.cast(w, factors.dtype), factors), sample_weight
    )


def _of_rank(factors, y_pred):
    """Give factors of examples the rank of the losses of an output: one axis less."""
    return tf.reshape(factors, [-1] + [1] * (y_pred.shape.rank - 2))


def mean_outputs(model, x):
    """Return what the mean of the search says of a batch, as `predict` would."""
    with keras.StatelessScope(collect_losses=True):
        return _compat.forward(model, x, training=False)


def sample_examples(model, batch, y_pred):
    """Draw the examples that members see.

    Args:
        model: Compiled model, whose optimizer has `batch_mode=Sampled(...)`.
        batch: (x, y, sample_weight).
        y_pred: Outputs of the mean for them.

    Returns:
        (x, y, sample_weight) of the examples drawn, their weights times 1/(n p); the
        batch itself if it is known to be no larger than what would be drawn.

    Raises:
        ValueError: If the fitness is one number for all examples, or a loss adds
            examples up.
    """
    x, y, sample_weight = batch
    optimizer, count = model.optimizer, model.optimizer.search.sampled
    _refuse_sums(model)
    known = first_input(x).shape[0]
    if known is not None and known <= count:
        return batch
    values = None
    if optimizer.fitness is not None:
        values = weighted_fitness(optimizer.fitness, y, y_pred, sample_weight)
        if values.shape.rank == 0:
            raise ValueError(
                "`Sampled` draws examples by their own losses and weighs "
                "them: `fitness` must return a value for each example. Leave "
                "`batch_mode` out for a fitness of all examples together. "
                f"Received: batch_mode=Sampled({count}), fitness={optimizer.fitness!r}"
            )
    parts = fitness_parts(model, batch, y_pred, values)
    if parts is None:  # A loss of no examples, such as a regularizer alone.
        parts = tf.zeros((batch_size(x),))
    probability = importance.probabilities(parts)
    if known is None:  # Fewer, or none, on a replica's last batch.
        count = tf.minimum(count, batch_size(x))
    points = (tf.range(count, dtype=tf.float32) + _offset(optimizer)) / tf.cast(
        count, tf.float32
    )
    index = importance.systematic_sample(probability, points)
    drawn = rows_of(batch, index)
    y_pred = keras.tree.map_structure(lambda t: tf.gather(t, index), y_pred)
    factors = importance.weights(probability, index)
    return (*drawn[:2], times_weights(factors, y_pred, drawn[2]))


def _refuse_sums(model):
    """Raise for a loss that is less of fewer examples, however they are weighted."""
    sums = [loss.name for loss in _losses_reduced(model, "sum")]
    if sums:
        raise ValueError(
            "`Sampled` weighs a few examples so that their mean is that of the whole "
            'batch: a loss must be a mean over examples, reduction="sum_over_batch_'
            f'size". Received: reduction="sum" of {sums}'
        )


def _offset(optimizer):
    """Draw the scalar in [0, 1) that shifts the points of this generation."""
    key = noise.stream_key(optimizer.seed, "examples")
    seed = noise.counter_seed(key, optimizer.generation.value, replica_index())
    return noise.uniform((1,), seed)[0]
