"""What masked and block-sparse layers have in common."""

import inspect
import random
from typing import Any

import keras
import numpy as np

from keras_es import _compat
from keras_es._arguments import is_number, seed
from keras_es.layers.brought import check_weights
from keras_es.layers.sparse_weight import SparseWeight


class SparseLayer(_compat.Mixin):
    """Mixin of layers with weights whose masks are decoded from scores.

    A family of layers (masked, block-sparse) derives from it and says in `family` what
    it is called and in `mask_arguments` what its constructors take besides.
    """

    family: str
    mask_arguments: dict[str, Any]
    instead_of_plain = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give twins the plain signature with the arguments of the masks."""
        super().__init_subclass__(**kwargs)
        plain = cls.plain_class()
        if plain is not None and not {"__init__", "__signature__"} & set(vars(cls)):
            cls.__signature__ = twin_signature(plain, cls.mask_arguments)

    @classmethod
    def plain_class(cls) -> type | None:
        """Return the Keras class that this one is the sparse twin of."""
        for base in cls.__mro__[1:]:
            sparse = issubclass(base, SparseLayer)
            if not sparse and issubclass(base, keras.layers.Layer):
                return base
        return None

    def _set_mask_seed(self, mask_seed: Any) -> None:
        if mask_seed is None:
            # As Keras's own default seeds; `keras.utils.set_random_seed` fixes it.
            mask_seed = random.randint(1, 10**9)
        self.mask_seed = seed("mask_seed", mask_seed)

    @property
    def masked_weights(self) -> tuple[SparseWeight, ...]:
        """Tuple of the layer's `MaskedWeight`s, empty before `build`."""
        return self.__dict__.get("_masked_weights", ())

    def set_weights(self, weights: Any) -> None:
        """Set the weights, as `keras.layers.Layer.set_weights`.

        Raises:
            ValueError: If masks are of another sparsity or pattern.
        """
        parts = [self, *_compat.direct_sublayers(self)]  # with a recurrent one's cell
        masked = [
            m for p in parts if isinstance(p, SparseLayer) for m in p.masked_weights
        ]
        check_weights(masked, self.weights, weights, False)
        super().set_weights(weights)

    def save_own_variables(self, store: Any) -> None:
        """Save weights, masks and scores by name."""
        for variable in _compat.own_variables(self):
            store[variable.name] = variable.numpy()
        for weight in self.masked_weights:
            store[weight.count_name] = np.array(weight.unit_count, "int64")

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables` saved.

        Raises:
            ValueError: If the names differ, as with a file of the plain layer, or the
                file's masks are of another sparsity or pattern.
        """
        variables = {v.name: v for v in _compat.own_variables(self)}
        counts = {weight.count_name for weight in self.masked_weights}
        # Files of before have no counts.
        if set(store.keys()) - counts != set(variables):
            raise ValueError(
                f"{self.family} layer {_name(self)!r} expected the weights "
                f"{sorted(variables)}; a file of the plain layer does not fit"
                f"{self.instead_of_plain}. "
                f"Received: weights={sorted(store.keys())}"
            )
        for weight in self.masked_weights:
            weight.check_loaded(store)
        for name, variable in variables.items():
            variable.assign(store[name])

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: an adapter would fill the zeros again."""
        self._refuse("LoRA")

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: Keras quantizes dense kernels, in place of the latent ones.

        `quantize` of a model with masked layers refuses as a whole, whatever its
        class (`tree.refuse_to_quantize`).

        Raises:
            ValueError: Always.
        """
        self._refuse("Quantization")

    def refuse_quantized(self) -> None:
        """Refuse a `dtype` by which Keras would quantize what is being built.

        Raises:
            ValueError: If the layer has one, as `dtype="int8_from_float32"`.
        """
        if getattr(self, "quantization_mode", None):
            self._refuse("Quantization")

    def _refuse(self, what: str) -> None:
        raise ValueError(
            f"{what} needs a dense kernel and would fill its zeros again. Call "
            "`keras_es.strip_masks(model)` first, and take the plain model. "
            f"Received: layer={self.name!r}"
        )


def check_sparsity(sparsity: Any, where: str = "the layer") -> float:
    """Return a share of zeros, a float in [0, 1).

    Raises:
        ValueError: If it is not.
    """
    if not is_number(sparsity) or not 0.0 <= sparsity < 1.0:
        raise ValueError(
            f"`sparsity` of {where} must be a number in [0, 1), the share of zeros. "
            f"Received: sparsity={sparsity!r}"
        )
    return float(sparsity)


def _name(layer: Any) -> str:
    return layer.path or layer.name


def per_weight(value: Any, attributes: Any, what: str, layer: str) -> dict[str, Any]:
    """Return {attribute: value}; a dict is checked, anything else is for all.

    Raises:
        ValueError: If a dict has a key that is no attribute.
    """
    is_dict = isinstance(value, dict) and "class_name" not in value
    if not is_dict:
        return dict.fromkeys(attributes, value)
    if set(value) - set(attributes):
        raise ValueError(
            f"`{what}` of layer {layer!r} must have keys among {list(attributes)}. "
            f"Received: {what}={value}"
        )
    return {name: value.get(name) for name in attributes}


def register(cls: type) -> type:
    """Register a sparse layer with Keras under the package's name."""
    return keras.saving.register_keras_serializable(package="keras_es")(cls)


def twin_signature(plain: type, arguments: dict[str, Any]) -> inspect.Signature:
    """Return the plain layer's signature with the arguments of the masks."""
    init = plain.__init__  # type: ignore[misc]
    parameters = list(inspect.signature(init).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = [inspect.Parameter(n, keyword, default=v) for n, v in arguments.items()]
    tail = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    head = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    return inspect.Signature(head + extra + tail)
