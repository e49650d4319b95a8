"""Central differences along random directions, for losses that jump as well."""

from keras_es._arguments import Argument, positive
from keras_es.optimizers.directional.base import DirectionalDerivative
from keras_es.optimizers.registry import register
from keras_es.populations.derivatives import along_difference


@register("finite_difference")
class FiniteDifference(DirectionalDerivative):
    r"""Gradients by central differences along random directions.

        c = (f(w + h v) - f(w - h v)) / 2h = g . v + O(h**2),

    and the gradient is estimated by the mean of c v over k directions. As h goes to 0
    it is that of `ForwardGradient`. Model and loss need no derivative: for binary and
    quantized networks h is as large as what makes their weights flip, and the estimate
    is of the gradient of the loss smoothed along v. Two forward passes for each
    direction, and one for the metrics.

    This is simultaneous perturbation (SPSA) with signs. Unlike `OpenES` it has no
    population, ranks nothing and takes a step of any Keras optimizer; the weights'
    masks may be moved by another method.

    Args:
        inner_optimizer: Keras optimizer that takes the steps (see
            `DirectionalDerivative`, as for all others not named here).
        step: h > 0, in units of the weights or outputs; more than their rounding
            swallows, which is a percent of them in bfloat16.
        directions: k >= 1.
        law: "rademacher" or "normal".
        perturb: "weights" or "outputs".
        batch_mode: "full" or "split".
        seed: Integer seed of the directions.
        name: Name of the optimizer.
        masked_out: "rest" or "learn".

    Raises:
        ValueError: For wrong arguments.

    Example:

    >>> FiniteDifference("sgd", step=0.01).step
    0.01

    References:
        Spall 1992, Multivariate stochastic approximation using a simultaneous
        perturbation gradient approximation; Widrow, Lehr 1990, 30 years of adaptive
        neural networks (MADALINE rule III, which moves outputs).
    """

    step = Argument(positive, 1e-3, keyword=True)

    def derivative(self, function, values, directions, model, alone=False):
        """Return central differences, see `DirectionalDerivative`."""
        return along_difference(function, values, directions, self.step)
