"""Noise on the outputs of layers, which says more of their weights than noise on these.

A dense layer y = x W + b with d inputs has d + 1 weights for each output. Losses under
noise on the weights have to tell them all apart; under noise on y the unknowns are the
outputs of each example, and what they say of W and b is linear algebra:

    c_k+ - c_k- = 2 sigma delta_k . dc/dy + O(sigma**3)        of each example,
    dc/dy  ~  sum_k (c_k+ - c_k-) delta_k / (2 K sigma),
    dc/dW  =  x^T dc/dy,

K pairs with random signs delta. The same holds for convolutions, with one unknown for
each position. No operation of the model is differentiated but the product with W
itself, by W.

References:
    Widrow, Lehr 1990, 30 years of adaptive neural networks (MADALINE rule III).
    Ren, Kornblith, Liao, Hinton 2023, Scaling forward gradient with local losses,
    arXiv 2210.03310 (the variance of noise on activities and on weights).
    Spall 1992, Multivariate stochastic approximation (random signs).
"""

import dataclasses
import math

import tensorflow as tf

from keras_es.noise import layer_calls
from keras_es.ops import noise, philox

ADVANTAGE = 4
"""An output must have this many times as many weights as there are positions.

As many unknowns on either side are no gain, for noise on outputs disturbs what follows:
a convolution with 200 weights for an output at 196 positions learned worse with it.
"""


@dataclasses.dataclass(frozen=True)
class OutputNoise:
    """What noise on outputs is like.

    Args:
        seed: Integer.
        sigma: Scale, a scalar tensor.
    """

    seed: int
    sigma: object


def perturbed_outputs(output_noise, calls):
    """Choose the layers with far fewer positions than weights for an output.

    Args:
        output_noise: `OutputNoise`, or None for no layers.
        calls: Dict from key to (layer, list of the (x, x W) of its calls).

    Returns:
        `PerturbedOutputs`.
    """
    if output_noise is None:
        return PerturbedOutputs([], 0.0)
    chosen = []
    for index, (key, (layer, products)) in enumerate(calls.items()):
        if len(products) != 1 or not _is_simple(layer):
            continue
        ((x, y),) = products
        positions, fan_in = y.shape[1:-1], math.prod(layer.kernel.shape[:-1])
        if None not in positions and ADVANTAGE * math.prod(positions) <= fan_in:
            stream = noise.stream_key(output_noise.seed, f"outputs {index}")
            chosen.append(_Output(key, layer, x, y, stream))
    return PerturbedOutputs(chosen, output_noise.sigma)


def _is_simple(layer):
    """Tell whether nothing but the outputs depends on the layer's weights."""
    names = ("kernel_regularizer", "bias_regularizer")
    return all(getattr(layer, name, None) is None for name in names)


@dataclasses.dataclass(frozen=True)
class _Output:
    """A layer, its input and product under the mean's weights, its noise's stream."""

    key: int
    layer: object
    x: object
    y: object
    stream: int

    @property
    def variables(self):
        bias = layer_calls.bias_of(self.layer)
        return [self.layer.kernel] if bias is None else [self.layer.kernel, bias]


class PerturbedOutputs:
    """Layers with noise on their outputs, in the evaluation of one batch.

    Args:
        outputs: List of `_Output`.
        sigma: Scalar tensor.

    Attributes:
        variables: Kernels and biases of these layers.
        keys: Set of the layers' keys.
    """

    def __init__(self, outputs, sigma):
        self.outputs, self.sigma = outputs, sigma
        self.variables = [v for output in outputs for v in output.variables]
        self.keys = {output.key for output in outputs}

    def draw(self, generation, draws):
        """Return signs [draws, *outputs of the batch] for each layer.

        Args:
            generation: Integer scalar.
            draws: [draws] integers.
        """
        return [
            _signs(output.y, philox.stream(output.stream, generation, draws))
            for output in self.outputs
        ]

    def calls(self, signs, multipliers, shared):
        """Return a scope in which the layers' outputs are those of a member.

        Args:
            signs: Of one draw, for each layer.
            multipliers: Dict from key to the member's multiplier, scalar or [columns].
            shared: What `shared_products.find_shared` found.
        """
        added = {
            o.key: tf.cast(self.sigma * multipliers[o.key] * sign, o.y.dtype)
            for o, sign in zip(self.outputs, signs)
        }
        layers = {o.key: o.layer for o in self.outputs}
        return layer_calls.noisy_calls(layers, added, shared)

    def zeros(self):
        """Return the sums before the first member."""
        return [
            tf.ensure_shape(tf.zeros(tf.shape(o.y)), o.y.shape) for o in self.outputs
        ]

    def add(self, sums, signs, multipliers, contributions):
        """Add sum_k (c_k+ - c_k-) / 2 * delta_k of some draws.

        Args:
            sums: For each layer, of the shape of its output.
            signs: [draws, *output] for each layer.
            multipliers: Dict from key to [draws, members] or [draws, members, columns],
                the two of a pair side by side.
            contributions: [draws * members, examples]: the part of each member's
                fitness that hangs on an example's outputs.
        """
        added = []
        for o, sign, total in zip(self.outputs, signs, sums):
            draws, members = multipliers[o.key].shape[:2]
            examples = tf.shape(contributions)[-1]
            c = tf.reshape(contributions, (draws, members, examples))
            half = 0.5 * (c[:, 0::2] - c[:, 1::2])
            half = tf.where(tf.math.is_finite(half), half, 0.0)  # a member failed
            first = multipliers[o.key][:, 0::2]
            first = first[..., None] if first.shape.rank == 2 else first
            weight = tf.einsum("dgb,dgc->dbc", half, first)
            axes = [1] * (o.y.shape.rank - 2)
            shape = tf.concat(
                [tf.shape(weight)[:2], axes, tf.shape(weight)[2:]], axis=0
            )
            term = tf.reduce_sum(tf.reshape(weight, shape) * sign, axis=0)
            added.append(tf.ensure_shape(total + term, o.y.shape))
        return added

    def gradients(self, sums, pairs):
        """Return the estimates of the fitness's gradient for each of `variables`.

        Args:
            sums: What `add` returned at last.
            pairs: K.
        """
        safe = tf.where(self.sigma > 0, self.sigma, 1.0)
        factor = tf.where(self.sigma > 0, 1.0 / (pairs * safe), 0.0)
        found = []
        for o, total in zip(self.outputs, sums):
            by_output = tf.cast(total * factor, o.y.dtype)
            found.append(self._of_kernel(o, by_output))
            if len(o.variables) > 1:
                axes = list(range(by_output.shape.rank - 1))
                found.append(tf.reduce_sum(by_output, axis=axes))
        return [tf.cast(g, tf.float32) for g in found]

    def _of_kernel(self, output, by_output):
        """Return the adjoint of W -> x W, a linear function, at `by_output`."""
        kernel = tf.cast(
            tf.convert_to_tensor(output.layer.kernel.value), output.x.dtype
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernel)
            y = layer_calls.product(output.layer, output.x, kernel)
        return tape.gradient(y, kernel, output_gradients=by_output)


def _signs(y, position):
    """Draw +1 and -1 of the shape [draws, *shape of y]."""
    signs = philox.packed_signs(tf.shape(y), position)
    return tf.ensure_shape(signs, (position[0].shape[0], *y.shape))
