"""Forward gradients: exact derivatives along directions, by tangents."""

from keras_es.optimizers.directional.base import DirectionalDerivative
from keras_es.optimizers.registry import register
from keras_es.populations.derivatives import along_tangent


@register("forward_gradient")
class ForwardGradient(DirectionalDerivative):
    r"""Gradients without backpropagation, by tangents through one forward pass.

    With J_l the derivative of layer l, a tangent goes on as t_l = J_l t_(l-1) + (what
    v changes in layer l) next to the layer's output, and ends as c = g . v; the
    gradient is estimated by the mean of c v over k directions,

        E c v = g,    E |c v - g|**2 = (d - 1) |g|**2 / k    for signs,
                                       (d + 1) |g|**2 / k    for normal v,

    over the d coordinates. With perturb="weights" no layer's output has to be kept for
    later. d is then the number of weights, and steps have to be as small as that makes
    them. With
    perturb="outputs" d is the number of units, and the noise of an example's estimate
    is averaged over the batch; but the inputs of these layers are kept until c is
    known. If there are as many directions as layers, each moves the outputs of one
    layer: its derivative is not disturbed by what the others do, and no tangent has to
    pass the layers before. What one example tells another, as through the statistics
    of a batch (BatchNormalization), is left out.

    Recurrent layers carry (state, tangent) through their loop. Functions with a
    gradient of their own (`tf.custom_gradient`) have the tangent that belongs to it.

    Args:
        inner_optimizer: Keras optimizer that takes the steps (see
            `DirectionalDerivative`, as for all others).
        directions: k >= 1.
        law: "rademacher" or "normal".
        perturb: "weights" or "outputs".
        batch_mode: "full" or "split".
        seed: Integer seed of the directions.
        name: Name of the optimizer.
        masked_out: "rest" or "learn".

    Raises:
        ValueError: For wrong arguments; in `fit`, for a model or a loss with an
            operation that tangents cannot pass.

    Example:

    >>> ForwardGradient("sgd", directions=4, perturb="outputs").directions
    4
    >>> keras_es.optimizers.SNES(ForwardGradient("adam"), population_size=4).name
    'snes'

    References:
        Baydin, Pearlmutter, Syme, Wood, Torr 2022, Gradients without backpropagation,
        arXiv 2202.08587; Belouze 2022, Optimization without backpropagation, arXiv
        2209.06302; Ren, Kornblith, Liao, Hinton 2023, Scaling forward gradient with
        local losses, arXiv 2210.03310 (directions of activities).
    """

    calls_once = True

    def derivative(self, function, values, directions, model, alone=False):
        """Return the exact derivatives, see `DirectionalDerivative`."""
        return along_tangent(function, values, directions, model, alone)
