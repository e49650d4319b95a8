"""What optimizers by derivatives along random directions share."""

from keras_es._arguments import Argument, choice, integer
from keras_es.ops import directional
from keras_es.optimizers import arguments
from keras_es.optimizers.base import MaskOptimizer


class DirectionalDerivative(MaskOptimizer):
    r"""Train weights by the mean of k estimates c v of the gradient, c = g . v.

    v is random with E v v^T = I, and c the derivative of the loss along it, one number
    that takes no backward pass: E c v = g. Masks stay as they are, and a masked-out
    weight has no part in v. Given to another optimizer of masks in place of a Keras
    optimizer, as in `SNES(ForwardGradient("adam"))`, it trains the weights of each of
    its members.

    Directions are a function of (seed, step, replica, member, index). Those whose
    derivative is not finite contribute nothing. Override `derivative`.

    Args:
        inner_optimizer: Keras optimizer that takes the steps, its name or config; not
            with `gradient_accumulation_steps`: take more directions.
        directions: k >= 1, directions in each step.
        law: "rademacher", independent signs, or "normal", standard normal numbers.
        perturb: "weights": v has a number for each weight. "outputs": of dense layers
            and convolutions with at most as many positions as weights for an output, v
            has a number for each example's outputs before the activation; all other
            weights have their own. The loss has to return a value for each example.
        batch_mode: "full": each direction sees all examples; "split", for directions
            of weights: a k-th of them each, from a place that is drawn for each step.
        seed: Integer seed of the directions.
        name: Name of the optimizer.
        masked_out: "rest" or "learn" (see `MaskOptimizer`).
    """

    calls_once = False
    """Whether `derivative` calls the function once, at the values themselves."""

    inner_optimizer = Argument(arguments.optimizer_along_directions)
    directions = Argument(integer(1), 1)
    law = Argument(choice(*directional.LAWS), "rademacher")
    perturb = Argument(choice("weights", "outputs"), "weights")
    batch_mode = Argument(choice("full", "split"), "full")

    def check_arguments(self):
        """Refuse to share out examples that have directions of their own."""
        if self.perturb == "outputs" and self.batch_mode == "split":
            raise ValueError(
                'With perturb="outputs" each example has directions of its own, and '
                'there is nothing to share out: leave batch_mode at "full". '
                "Received: perturb='outputs', batch_mode='split'"
            )

    @property
    def shares_batch(self):
        """Whether the directions share the batch out."""
        return self.batch_mode == "split" and self.directions > 1

    def derivative(self, function, values, directions, model, alone=False):
        """Return the derivatives of a function along one direction.

        Args:
            function: Of a list of tensors; returns (scalar, [n] tensor or None).
            values: Where, a list of tensors.
            directions: Along what, a list of tensors of the same shapes.
            model: The model that it calls.
            alone: Whether nothing else evaluates the function there.

        Returns:
            (derivative of the scalar, those of [n] or None).
        """
        raise NotImplementedError
