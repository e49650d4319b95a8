"""What all masked layers share: the mask enters through one property."""

import inspect
import math
import random

import keras

from keras_es import _compat, patterns
from keras_es.layers.masked_weight import (
    EffectiveRegularizer,
    InitialMask,
    MaskedWeight,
    apply_mask,
)


def _per_weight(value, attributes, what, layer):
    """Return {attribute: value}; a dict is checked, anything else is for all."""
    is_dict = isinstance(value, dict) and "class_name" not in value
    if not is_dict:
        return dict.fromkeys(attributes, value)
    unknown = sorted(set(value) - set(attributes))
    if unknown:
        raise ValueError(
            f"`{what}` of layer {layer!r} must have keys among {list(attributes)}. "
            f"Received: {what}={value}"
        )
    return {name: value.get(name) for name in attributes}


def check_sparsity(sparsity, where="the layer"):
    """Return a float in [0, 1).

    Raises:
        ValueError: If it is not.
    """
    number = isinstance(sparsity, (int, float)) and not isinstance(sparsity, bool)
    if not number or not 0.0 <= sparsity < 1.0:
        raise ValueError(
            f"`sparsity` of {where} must be a number in [0, 1), the share of zeros. "
            f"Received: sparsity={sparsity!r}"
        )
    return float(sparsity)


class MaskedLayer:
    """Mixin that multiplies the weights of a plain layer by masks.

    Put it before the plain layer: `class MaskedDense(MaskedLayer, Dense)` and say in
    `masked_attributes` which weights are masked and in `input_axes` how many leading
    axes of each are inputs. The effective weight is

        kernel = latent_kernel * kernel_mask,  kernel_mask = decode(mask_scores).

    Args:
        *args: Arguments of the plain layer.
        sparsity: Share of zeros in [0, 1), or a dict from weight name to it. Left out
            it is 0, or 1 - n/m under `NByM(n, m)`.
        pattern: A `keras_es.patterns.Pattern` or a dict from weight name to one;
            default `Unstructured()`.
        mask_seed: Integer seed of the first scores; default from Keras's global seed.
        **kwargs: Arguments of the plain layer.
    """

    masked_attributes: tuple[str, ...] = ("kernel",)

    def __init__(self, *args, sparsity=None, pattern=None, mask_seed=None, **kwargs):
        super().__init__(*args, **kwargs)
        self._configure_masks(sparsity, pattern, mask_seed)

    def __init_subclass__(cls, **kwargs):
        """Give twins a property for each masked weight and the plain signature."""
        super().__init_subclass__(**kwargs)
        for name in cls.masked_attributes:
            setattr(cls, name, _masked_property(name))
        plain = cls.plain_class()
        if plain is not None and "__init__" not in vars(cls):
            cls.__signature__ = _twin_signature(plain)

    @classmethod
    def plain_class(cls):
        """Return the Keras class that this one is the masked twin of."""
        for base in cls.__mro__[1:]:
            if not issubclass(base, MaskedLayer) and issubclass(
                base, keras.layers.Layer
            ):
                return base
        return None

    def _configure_masks(self, sparsity, pattern, mask_seed):
        names = self.masked_attributes
        sparsities = _per_weight(sparsity, names, "sparsity", self.name)
        chosen = _per_weight(pattern, names, "pattern", self.name)
        # Straight into __dict__: neither Keras nor TensorFlow shall wrap and track it.
        self.__dict__["mask_patterns"] = {n: patterns.get(p) for n, p in chosen.items()}
        self.__dict__["mask_sparsities"] = {}
        for name, value in sparsities.items():
            if value is None:
                value = getattr(self.mask_patterns[name], "sparsity", 0.0)
            where = f"layer {self.name!r}"
            self.mask_sparsities[name] = check_sparsity(value, where)
        if mask_seed is None:
            # As Keras's own default seeds; `keras.utils.set_random_seed` fixes it.
            mask_seed = random.randint(1, 10**9)
        self.mask_seed = int(mask_seed)

    def input_axes(self, name):
        """Return how many leading axes of the weight are inputs (default: all but 1).

        Raises:
            ValueError: If inputs do not lead; the weight then has no matrix form.
        """
        return len(self.latent(name).shape) - 1

    def latent(self, name):
        """Return the latent variable of a masked weight, None before `build`."""
        found = self.__dict__.get(name)
        return self.__dict__.get("_" + name) if found is None else found

    @property
    def masked_weights(self):
        """Tuple of `MaskedWeight`, empty before `build`."""
        return self.__dict__.get("_masked_weights", ())

    def build(self, input_shape):
        """Build the plain layer, then create masks and scores."""
        super().build(input_shape)
        self._build_masks()

    def _build_masks(self):
        if self.masked_weights:
            return
        made = [self._build_mask(i, n) for i, n in enumerate(self.masked_attributes)]
        self.__dict__["_masked_weights"] = tuple(made)

    def _build_mask(self, index, name):
        latent = self.latent(name)
        shape = tuple(latent.shape)
        pattern, sparsity = self.mask_patterns[name], self.mask_sparsities[name]
        try:
            lead = self.input_axes(name)
            rows, columns = math.prod(shape[:lead]), math.prod(shape[lead:])
            units_shape = pattern.units_shape((rows, columns))
            count = pattern.unit_count(sparsity, (rows, columns))
        except ValueError as error:
            raise ValueError(
                f"Layer {self.path or self.name!r}, weight {name!r} of shape {shape}: "
                f"{error}"
            ) from None
        prefix = name.removesuffix("kernel")
        seed = self.mask_seed + 7919 * index
        initial = InitialMask(pattern, count, (rows, columns), units_shape, seed)
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
            (rows, columns), count,
        )  # fmt: skip
        if latent.regularizer is not None:
            latent.regularizer = EffectiveRegularizer(latent.regularizer, kernel_mask)
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
            del masked.kernel.masked_weight
        drop = [v for m in self.masked_weights for v in (m.kernel_mask, m.mask_scores)]
        _compat.discard_weights(self, drop)
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

    def save_own_variables(self, store):
        """Save latent weights, masks and scores by name."""
        for variable in _compat.own_variables(self):
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store):
        """Load what `save_own_variables` saved.

        Raises:
            ValueError: If the names differ, as with a file of the plain layer.
        """
        variables = {v.name: v for v in _compat.own_variables(self)}
        if set(store.keys()) != set(variables):
            raise ValueError(
                f"Masked layer {self.path or self.name!r} expected the weights "
                f"{sorted(variables)}. A file of the plain layer is loaded into the "
                "plain model, which `keras_es.sparsify` then turns into this one. "
                f"Received: weights={sorted(store.keys())}"
            )
        for name, variable in variables.items():
            variable.assign(store[name])

    def enable_lora(self, *args, **kwargs):
        """Refuse: an adapter would fill the zeros again."""
        raise NotImplementedError(
            "LoRA on a masked layer would fill its zeros. Call "
            "`keras_es.strip_masks(model)` first. "
            f"Received: layer={self.name!r}"
        )

    def quantize(self, *args, **kwargs):
        """Refuse: quantized kernels replace the latent kernel."""
        raise NotImplementedError(
            "A masked layer cannot be quantized. Call `keras_es.strip_masks(model)` "
            f"and quantize the plain model. Received: layer={self.name!r}"
        )


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


def _twin_signature(plain):
    """Return the plain layer's signature with the arguments of the masks."""
    parameters = list(inspect.signature(plain.__init__).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = [
        inspect.Parameter(name, keyword, default=None)
        for name in ("sparsity", "pattern", "mask_seed")
    ]
    tail = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    head = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    return inspect.Signature(head + extra + tail)


def register(cls):
    """Register a masked layer with Keras under the package's name."""
    return keras.saving.register_keras_serializable(package="keras_es")(cls)
