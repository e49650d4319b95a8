"""The rule of attention with several heads."""

from typing import Any

import keras
import numpy as np

from keras_es.conversion.clone import Cut
from keras_es.conversion.compact.channels import (
    FOLDS,
    UNKNOWN,
    ZEROS,
    CannotFollow,
    Channels,
    Reader,
    Solution,
)
from keras_es.conversion.compact.rules import (
    Rule,
    Step,
    effective,
    floats,
    require_plain,
    rule,
)


@rule(keras.layers.MultiHeadAttention)
class MultiHeadAttentionRule(Rule):
    """Heads are channels between the values and the outputs.

    A head whose values are constant, v = b_v, gives b_v wherever it looks, for its
    weights sum to 1: it goes, and W_o b_v into the bias of the outputs. Beside a mask
    and dropout that holds for b_v = 0 only. A head that nobody reads goes as well.
    Single dimensions of a head stay.
    """

    def follow(self, step: Step) -> list[Channels]:
        """Read queries, keys and values into heads, and heads into outputs."""
        layer, tracker = step.layer, step.tracker
        query, value, key = self._arguments(step)
        parts = self._parts(layer)
        w_q, w_k, w_v, w_o = (effective(p.kernel) for p in parts.values())
        if w_o.ndim != 3:
            raise CannotFollow("its outputs have more than one axis")
        given = np.nan_to_num(value.constants)
        values = np.einsum("i,ihd->hd", given, w_v.astype("float64"))
        if layer.use_bias:
            values = values + floats(parts["value"].bias)
        read = (w_v != 0.0).any(axis=2)  # [inputs, heads]
        varies = read[np.isnan(value.constants)].any(axis=0)
        if self._may_see_nothing(step):
            varies |= (values != 0.0).any(axis=1)
        heads = tracker.make(np.where(varies, np.nan, 1.0))
        for channels, kernel in ((query, w_q), (key, w_k), (value, w_v)):
            edges = (kernel != 0.0).any(axis=2) & varies
            # Into a softmax, or shared by the dimensions of a head: only zeros go.
            tracker.read(Reader(channels, edges, _no_gain, ZEROS), heads)

        def gain(rows):
            return np.einsum("hd,hdo->ho", values[rows], w_o[rows])

        reader = Reader(heads, (w_o != 0.0).any(axis=1), gain, FOLDS)
        constants = reader.constant_outputs()
        if layer.use_bias:
            constants = constants + floats(parts["output"].bias)
        step.memo.update(
            query=query, key=key, value=value, heads=heads, reader=reader,
            values=values, varies=varies,
        )  # fmt: skip
        return [tracker.read(reader, tracker.make(constants))]

    def _arguments(self, step):
        names = ("query", "value", "key")
        given = dict(zip(names, step.call.args))
        given |= {n: v for n, v in step.call.kwargs.items() if n in names}
        used = [given["query"], given["value"], given.get("key")]
        used[2] = used[1] if used[2] is None else used[2]
        for tensor, channels in zip(step.call.inputs, step.inputs):
            if not any(tensor is one for one in used):
                step.tracker.pin(channels)  # a mask
        found = [step.channels(tensor) for tensor in used]
        if any(channels is None for channels in found):
            raise CannotFollow(UNKNOWN)
        return found

    def _may_see_nothing(self, step):
        """Tell whether heads give 0 where a mask hides all that could be looked at.

        Keras's softmax does so, and is what a layer with dropout calls.
        """
        used = self._arguments(step)
        masked = step.masked or any(all(c is not u for u in used) for c in step.inputs)
        masked |= step.call.kwargs.get("attention_mask") is not None
        return masked and bool(step.layer.get_config()["dropout"])

    def _parts(self, layer):
        if layer.get_config().get("use_gate"):
            raise CannotFollow("its heads have gates")
        parts = {
            "query": layer.query_dense,
            "key": layer.key_dense,
            "value": layer.value_dense,
            "output": layer.output_dense,
        }
        for part in parts.values():
            if type(part) is not keras.layers.EinsumDense:
                raise CannotFollow("a layer in it is of another class than Keras's")
            require_plain(part)
        return parts

    def cut(self, step: Step, solution: Solution) -> dict[Any, Cut]:
        """Keep heads, inputs and outputs that stay."""
        layer, memo = step.layer, step.memo
        (outputs,) = step.outputs
        parts = self._parts(layer)
        heads, columns = solution.kept(memo["heads"]), solution.kept(outputs)
        rows = {name: solution.kept(memo[name]) for name in ("query", "key", "value")}
        sizes = [len(memo[name]) for name in rows]
        all_stay = [len(r) for r in rows.values()] == sizes
        if all_stay and (len(heads), len(columns)) == (
            len(memo["heads"]),
            len(outputs),
        ):
            return {}
        kernels = {
            name: floats(parts[name].kernel)[rows[name]][:, heads] for name in rows
        }
        biases = {
            name: floats(parts[name].bias)[heads]
            if layer.use_bias
            else np.zeros(kernels[name].shape[1:])
            for name in rows
        }
        # A constant head stays if there is no other: it needs no inputs.
        fixed = ~memo["varies"][heads]
        kernels["value"][:, fixed] = 0.0
        biases["value"][fixed] = memo["values"][heads][fixed]
        kernels["output"] = floats(parts["output"].kernel)[heads][..., columns]
        old = floats(parts["output"].bias)[columns] if layer.use_bias else 0.0
        biases["output"] = old + solution.offset(memo["reader"])
        use_bias = layer.use_bias or any(bias.any() for bias in biases.values())
        cuts = {layer: Cut({"num_heads": len(heads), "use_bias": use_bias,
                            "output_shape": (len(columns),)}, {})}  # fmt: skip
        for name, part in parts.items():
            weights = {"kernel": kernels[name]}
            if use_bias:
                weights["bias"] = biases[name]
            cuts[part] = Cut(None, weights)
        return cuts


def _no_gain(rows):
    raise AssertionError("only zeros go, and they add nothing")  # our own mistake
