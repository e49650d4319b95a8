"""What all masked layers share: the mask enters through one property."""

import contextlib
import math
import zlib
from typing import Any

import keras

from keras_es import _compat, patterns
from keras_es.layers.brought import Count
from keras_es.layers.masked_weight import (
    EffectiveConstraint,
    EffectiveRegularizer,
    InitialMask,
    MaskedWeight,
    apply_mask,
)
from keras_es.layers.sparse_layer import SparseLayer, check_sparsity, per_weight


@contextlib.contextmanager
def named_in_errors(layer, name, shape):
    """Say of which weight a `ValueError` in the block speaks."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"Layer {layer.path or layer.name!r}, weight {name!r} of shape {shape}: "
            f"{error}"
        ) from None


def latent_of(layer, name):
    """Return the latent variable of a weight, masked or not; None before `build`."""
    found = vars(layer).get(name)
    return vars(layer).get("_" + name) if found is None else found


class MaskedLayer(SparseLayer):
    """Mixin that multiplies the weights of a plain layer by masks.

    Put it before the plain layer: `class MaskedDense(MaskedLayer, Dense)` and say in
    `masked_attributes` which weights are masked and in `input_axes` how many leading
    axes of each are inputs. The effective weight is

        kernel = latent_kernel * kernel_mask,  kernel_mask = decode(mask_scores).

    Args:
        *args: Arguments of the plain layer.
        sparsity: Share of zeros in [0, 1), or a dict from weight name to it; at least
            one unit of each weight stays. Left out
            it is 0, or 1 - n/m under `NByM(n, m)`.
        pattern: A `keras_es.patterns.Pattern` or a dict from weight name to one;
            default `Unstructured()`, of embeddings `Rows()`.
        mask_seed: Integer seed of the first scores; default from Keras's global seed.
        **kwargs: Arguments of the plain layer.
    """

    family = "Masked"
    instead_of_plain = (
        ", but into the plain model, which `keras_es.sparsify` then turns into this one"
    )
    mask_arguments = {"sparsity": None, "pattern": None, "mask_seed": None}
    masked_attributes: tuple[str, ...] = ("kernel",)
    default_pattern: patterns.Pattern = patterns.Unstructured()
    only_if_asked = False
    """Whether `sparsify` masks the plain layer only if `include_embeddings=True`."""

    def __init__(self, *args, sparsity=None, pattern=None, mask_seed=None, **kwargs):
        super().__init__(*args, **kwargs)
        self._configure_masks(sparsity, pattern, mask_seed)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give twins a property for each masked weight."""
        super().__init_subclass__(**kwargs)
        for name in cls.masked_attributes:
            setattr(cls, name, _masked_property(name))

    def _configure_masks(self, sparsity, pattern, mask_seed):
        names = self.masked_attributes
        sparsities = per_weight(sparsity, names, "sparsity", self.name)
        chosen = per_weight(pattern, names, "pattern", self.name)
        # Straight into __dict__: neither Keras nor TensorFlow shall wrap and track it.
        self.__dict__["mask_patterns"] = {
            name: self.default_pattern if value is None else patterns.get(value)
            for name, value in chosen.items()
        }
        self.__dict__["mask_sparsities"] = {}
        for name, value in sparsities.items():
            if value is None:
                value = getattr(self.mask_patterns[name], "sparsity", 0.0)
            where = f"layer {self.name!r}"
            self.mask_sparsities[name] = check_sparsity(value, where)
        self._set_mask_seed(mask_seed)

    @classmethod
    def input_axes(cls, layer, shape, pattern):
        """Return how many leading axes of a weight are inputs (default: all but 1).

        Args:
            layer: A layer of this class, or a built plain one.
            shape: Shape of the weight.
            pattern: Its `Pattern`.

        Raises:
            ValueError: If inputs do not lead; the weight then has no matrix form.
        """
        return len(shape) - 1

    @classmethod
    def matrix_and_units(cls, layer, shape, pattern):
        """Return the shape of a weight as a matrix, and that of its units.

        Args:
            layer: A layer of this class, or a built plain one.
            shape: Shape of the weight.
            pattern: Its `Pattern`.

        Raises:
            ValueError: If the pattern does not divide the weight.
        """
        lead = cls.input_axes(layer, shape, pattern)
        matrix_shape = math.prod(shape[:lead]), math.prod(shape[lead:])
        return matrix_shape, pattern.units_shape(matrix_shape)

    def latent(self, name):
        """Return the latent variable of a masked weight, None before `build`."""
        return latent_of(self, name)

    def build(self, input_shape):
        """Build the plain layer, then create masks and scores."""
        super().build(input_shape)
        self._build_masks()

    def _build_masks(self):
        if self.masked_weights:
            return
        self.refuse_quantized()
        made = [self._build_mask(i, n) for i, n in enumerate(self.masked_attributes)]
        self.__dict__["_masked_weights"] = tuple(made)

    def _build_mask(self, index, name):
        latent = self.latent(name)
        shape = tuple(latent.shape)
        pattern, sparsity = self.mask_patterns[name], self.mask_sparsities[name]
        with named_in_errors(self, name, shape):
            matrix_shape, units_shape = self.matrix_and_units(self, shape, pattern)
            count = pattern.unit_count(sparsity, matrix_shape)
        prefix = name.removesuffix("kernel")
        seed = self.mask_seed + 7919 * index
        if pattern.group is not None:  # The layers of a group begin alike.
            seed = zlib.crc32(pattern.group.encode())
        initial = InitialMask(pattern, count, matrix_shape, units_shape, seed)
        with _compat.add_weights_to_built_layer(self):
            scores = self.add_weight(
                name=f"{prefix}mask_scores",
                shape=units_shape,
                dtype="float32",
                initializer=initial.scores,
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
            )
            kernel_mask = self.add_weight(
                name=f"{name}_mask",
                shape=shape,
                dtype="bool",
                initializer=initial,
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
            )
        for variable in (scores, kernel_mask):
            _compat.track_in_checkpoints(self, variable)
        masked = MaskedWeight(
            self, name, latent, kernel_mask, scores, pattern, sparsity,
            matrix_shape, count,
        )  # fmt: skip
        _compat.track_in_checkpoints(self, Count(masked), masked.count_name)
        if latent.regularizer is not None:
            latent.regularizer = EffectiveRegularizer(latent.regularizer, kernel_mask)
        if latent.constraint is not None:
            latent.constraint = EffectiveConstraint(latent.constraint, kernel_mask)
        # As Keras tags variables (`overwrite_with_gradient`): an optimizer is built
        # with variables only and finds their masks here.
        latent.masked_weight = masked
        return masked

    def _discard_masks(self):
        """Bake zeros into the latent weights and forget masks and scores."""
        for masked in self.masked_weights:
            masked.kernel.assign(masked.effective_value())
            if isinstance(masked.kernel.regularizer, EffectiveRegularizer):
                masked.kernel.regularizer = masked.kernel.regularizer.regularizer
            if isinstance(masked.kernel.constraint, EffectiveConstraint):
                masked.kernel.constraint = masked.kernel.constraint.constraint
            del masked.kernel.masked_weight
        names = [m.count_name for m in self.masked_weights]
        drop = [v for m in self.masked_weights for v in m.choice]
        _compat.discard_weights(self, drop)
        _compat.untrack_in_checkpoints(self, names)
        for name in (
            "mask_patterns",
            "mask_sparsities",
            "mask_seed",
            "_masked_weights",
        ):
            self.__dict__.pop(name, None)

    def mask_config(self):
        """Return the arguments that make the masks, by weight."""
        return {
            "sparsity": dict(self.mask_sparsities),
            "pattern": {
                name: keras.saving.serialize_keras_object(pattern)
                for name, pattern in self.mask_patterns.items()
            },
            "mask_seed": self.mask_seed,
        }

    def get_config(self):
        """Return the plain layer's config and the arguments of the masks."""
        return {**super().get_config(), **self.mask_config()}


def _masked_property(name):
    """Make the property through which the mask enters the layer."""

    def get(self):
        latent = self.latent(name)
        if latent is None:
            raise AttributeError(f"You must build the layer before accessing `{name}`.")
        for masked in self.masked_weights:
            if masked.attribute == name:
                held = self.__dict__.get("_held_weights") or {}
                if name in held:
                    return held[name]
                return apply_mask(latent, masked.kernel_mask)
        return latent

    def set(self, value):
        self.__dict__[name] = value

    return property(get, set, doc=f"The effective {name}: latent times mask.")
