"""Weights of a model with other masks are refused with both numbers, not taken."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import layers
from keras_es.patterns import Block, NByM, Unstructured


def masked(sparsity, pattern=None, units=8):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(units)])
    return keras_es.sparsify(model, sparsity, pattern=pattern)


def saved(model, folder):
    model.save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


@pytest.mark.parametrize("theirs, ours", [(0.75, 0.5), (0.5, 0.75)])
def test_another_sparsity(theirs, ours, tmp_path):
    file, model = saved(masked(theirs), tmp_path), masked(ours)
    before = [w.numpy() for w in model.weights]
    message = f"sparsity of {theirs}; this layer has .* sparsity of {ours}"
    with pytest.raises(ValueError, match=message):
        model.load_weights(file)
    for old, new in zip(before, model.weights):
        np.testing.assert_array_equal(old, new)


def test_another_pattern_of_the_same_sparsity(tmp_path):
    file = saved(masked(0.5), tmp_path)
    for pattern in (NByM(2, 4), NByM(1, 2)):
        with pytest.raises(ValueError, match=rf"none of NByM\(n={pattern.n}"):
            masked(0.5, pattern).load_weights(file)
    model = masked(0.5)
    # What is allowed under a narrower pattern is so under a wider one.
    model.load_weights(saved(masked(0.5, NByM(1, 2)), tmp_path))
    assert model.layers[0].masked_weights[0].deployed_nnz() == 32
    same = masked(0.5, Block(1, 1))
    same.load_weights(saved(masked(0.5, Unstructured()), tmp_path))


def dense_mask(model):
    """A mask in the middle of a schedule that begins dense: more than in the end."""
    weight = model.layers[0].masked_weights[0]
    count = weight.unit_count + 16
    weight.kernel_mask.assign(weight.expand(weight.decode(weight.mask_scores, count)))
    return weight.deployed_nnz()


@pytest.mark.parametrize("pattern", [Unstructured(), NByM(1, 4)])
def test_a_mask_that_is_still_denser_is_loaded(pattern, tmp_path):
    model, other = (masked(0.75, pattern) for _ in range(2))
    nnz = dense_mask(model)
    assert nnz > model.layers[0].masked_weights[0].nnz
    other.load_weights(saved(model, tmp_path))
    assert other.layers[0].masked_weights[0].deployed_nnz() == nnz
    assert keras_es.sparsity_report(other).nonzero_masked == nnz


class Without(layers.MaskedDense):
    """Saves as before files had the number of units."""

    def save_own_variables(self, store):
        full = {}
        super().save_own_variables(full)
        store.update({k: v for k, v in full.items() if "count" not in k})


def test_files_without_a_number_of_units():
    store = {}
    old = Without(8, sparsity=0.75)
    old.build((None, 8))
    old.save_own_variables(store)
    same = layers.MaskedDense(8, sparsity=0.75)
    same.build((None, 8))
    same.load_own_variables(store)
    np.testing.assert_array_equal(
        *[m.masked_weights[0].kernel_mask for m in (same, old)]
    )
    denser = layers.MaskedDense(8, sparsity=0.5)
    denser.build((None, 8))
    with pytest.raises(ValueError, match="sparsity of 0.75"):
        denser.load_own_variables(store)


def test_block_sparse_layers_too():
    store, made = {}, []
    for sparsity, block in ((0.5, 2), (0.75, 2), (0.5, 4)):
        made.append(layers.BlockSparseDense(8, sparsity=sparsity, block_size=block))
        made[-1].build((None, 8))
    made[0].save_own_variables(store)
    # As many blocks of as many weights, of inputs that are twice as wide.
    made.append(layers.BlockSparseDense(8, sparsity=0.75, block_size=2))
    made[-1].build((None, 16))
    for layer in made[1:]:
        kernel = layer.kernel.numpy()
        with pytest.raises(ValueError, match="2 blocks of 2 x 2 in each of 4 columns"):
            layer.load_own_variables(store)
        np.testing.assert_array_equal(layer.kernel, kernel)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mask_seed": np.inf},
        {"mask_seed": "x"},
        {"mask_seed": True},
        {"mask_seed": 2**64},
        {"sparsity": np.nan},
        {"sparsity": [0.5]},
        {"sparsity": {"kernel": 0.5, 3: 1}},
        {"pattern": "block"},
    ],
    ids=str,
)
def test_arguments_that_are_none(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}.*Received"):
        layers.MaskedDense(4, **arguments)
    if name != "pattern":
        with pytest.raises(ValueError, match=f"{name}.*Received"):
            layers.BlockSparseDense(4, **{"sparsity": 0.5, **arguments})


def test_scalars_of_numpy_are_numbers():
    layer = layers.MaskedDense(
        4,
        sparsity=np.float32(0.5),
        mask_seed=np.int64(3),
        pattern=Block(np.int32(2), 2),
    )
    layer.build((None, 4))
    assert layer.masked_weights[0].nnz == 8
    config = layers.MaskedDense.from_config(layer.get_config()).get_config()
    assert config == layer.get_config()
    assert type(config["mask_seed"]) is int and type(NByM(np.int8(1), 4).n) is int
    layer = layers.BlockSparseDense(4, sparsity=np.float16(0.5), block_size=np.int64(2))
    layer.build((None, 4))
    assert layer.masked_weights[0].nnz == 8
