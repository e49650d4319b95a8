"""What an active weight costs, by rules: paths that masked weights have in a model."""

from collections.abc import Mapping
from typing import Any

from keras_es.layers import tree
from keras_es.layers.tree import matches


class Costs:
    """What an active weight of each masked weight costs.

    A rule is for what it names by its whole path in the model. Only if there is none,
    or the model is not known, the end of a path will do.

    Args:
        rules: Dict from layer path, weight path or regular expression to a cost; the
            last that matches counts.
        weights: `MaskedWeight`s, for which each rule has to say something.
        model: The model, or None.

    Raises:
        ValueError: If a rule names no layer.
    """

    def __init__(self, rules: Mapping[str, float], weights: Any, model: Any) -> None:
        self.paths, layers = _in_model(model)
        known = {id(m): m for m in weights}
        if model is not None:  # those of frozen layers, too
            known |= {id(m): m for m in tree.masked_weights(model)}
        self.known = list(known.values())
        self.costs: dict[int, float] = {}
        for rule, cost in rules.items():
            named = self._named_by(rule)
            self.costs |= {id(m): cost for m in named}
            # A layer that is not masked may be named: it has nothing to exchange.
            if not named and not matches(rule, *layers):
                names = [self.paths.get(id(m), [m.name])[0] for m in weights]
                raise ValueError(
                    "A rule of `costs` must name a masked weight or its layer, by path "
                    f"or regular expression. The masked weights are {names}. "
                    f"Received: {rule!r}"
                )

    def of(self, masked: Any) -> float:
        """Return what an active weight of a masked weight costs: 1 without a rule."""
        return self.costs.get(id(masked), 1.0)

    def _named_by(self, rule):
        """Return the masked weights that a rule names."""
        whole = [m for m in self.known if matches(rule, *self.paths.get(id(m), ()))]
        return whole or [m for m in self.known if matches(rule, *self._ends(m))]

    def _ends(self, masked):
        """Return what a weight's paths end with."""
        own = (masked.name, masked.layer.path or masked.layer.name)
        found = []
        for path in (*self.paths.get(id(masked), ()), *own):
            parts = path.split("/")
            found += ["/".join(parts[i:]) for i in range(len(parts))]
        return found


def _in_model(model):
    """Return paths of masked weights by id, of weight and layer, and of all layers."""
    layers = [] if model is None else list(tree.walk(model))
    # The weights of a recurrent layer are in its cell; rules name the layer.
    owners = {id(layer.cell): p for p, layer in layers if tree.masks_cell(layer)}
    found = {}
    for path, layer in layers:
        for masked in layer.masked_weights if tree.has_masks(layer) else ():
            places = [owners[id(layer)], path] if id(layer) in owners else [path]
            names = [[f"{place}/{masked.attribute}", place] for place in places]
            found[id(masked)] = sum(names, [])
    return found, [path for path, _ in layers]
