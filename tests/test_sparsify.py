"""`sparsify` on models of every kind: what is masked, what is kept, what is refused."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es.conversion import allocation
from keras_es.layers.tree import walk
from keras_es.optimizers import Turns
from keras_es.patterns import Block, Channel, NByM, Unstructured
from tests import architectures
from tests.architectures import MASKED, fill, inputs
from tests.marks import slow

every_model = pytest.mark.parametrize("make", MASKED, ids=lambda f: f.__name__)


def bidirectional():
    gru = keras.layers.GRU(4)
    return keras.Sequential([keras.Input((5, 8)), keras.layers.Bidirectional(gru)])


different = [architectures.nested, architectures.recurrent, architectures.subclassed]

# Each costs a trace of the train step; the others differ from these in one layer.
trained = [
    architectures.two_inputs_and_outputs,
    bidirectional,
    architectures.time_distributed,
    slow(architectures.attention),
    slow(architectures.composite),
    architectures.subclassed,
]


def assert_equal(a, b):
    keras.tree.map_structure(np.testing.assert_array_equal, a, b)


def outputs(model, x):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x))


def paths(model):
    kept = [
        p for p, layer in walk(model) if not isinstance(layer, keras.layers.InputLayer)
    ]
    return kept


@every_model
def test_all_that_can_be_masked_is(make):
    sparse = architectures.masked(make)
    assert isinstance(sparse, keras_es.ESMixin)
    masked = keras_es.masked_weights(sparse)
    assert len(masked) == MASKED[make]
    for m in masked:
        assert m.nnz == round(0.25 * m.size) == m.kernel_mask.numpy().sum()


@every_model
def test_weights_are_carried_over_and_the_model_is_left_alone(make):
    model = architectures.dense(make)
    x = inputs(model)
    before, y = [w.numpy() for w in model.weights], outputs(model, x)
    classes = [type(layer) for _, layer in walk(model)]
    sparse = keras_es.sparsify(model, 0.0)
    assert_equal(outputs(sparse, x), y)
    fill(sparse, seed=5)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(new.numpy(), old)
    assert [type(layer) for _, layer in walk(model)] == classes
    assert paths(sparse) == paths(model)


@pytest.mark.parametrize("make", different, ids=lambda f: f.__name__)
def test_the_same_seed_gives_the_same_masks(make):
    def masks(seed):
        sparse = keras_es.sparsify(architectures.dense(make), 0.5, seed=seed)
        return [m.kernel_mask.numpy() for m in keras_es.masked_weights(sparse)]

    first = masks(3)
    for a, b in zip(first, masks(3)):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, masks(4)))


@every_model
def test_saved_and_loaded(make, tmp_path):
    sparse = architectures.masked(make)
    x = inputs(sparse)
    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(sparse)
    assert_equal(outputs(again, x), outputs(sparse, x))
    for new, old in zip(again.weights, sparse.weights, strict=True):
        np.testing.assert_array_equal(new.numpy(), old.numpy())


@pytest.mark.parametrize("make", trained, ids=lambda f: f.__name__)
def test_trains_and_keeps_its_sparsity(make):
    sparse = keras_es.sparsify(make(), 0.75)
    x = inputs(sparse)
    y = keras.tree.map_structure(np.zeros_like, outputs(sparse, x))
    optimizer = keras_es.optimizers.SNES(
        "sgd", population_size=2, sigma=2.0, turns=Turns(steps=1)
    )
    sparse.compile(optimizer=optimizer, loss="mse", jit_compile=False)
    logs = sparse.fit(x, y, batch_size=4, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    assert logs["mask_flip_ratio"][0] > 0
    for m in keras_es.masked_weights(sparse):
        assert m.kernel_mask.numpy().sum() == round(0.25 * m.size)


def named():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, name="one"),
            keras.layers.Dense(16, name="two"),
            keras.layers.Dense(4, name="out"),
        ]
    )


def sparsities(model):
    return {
        row["layer"]: row["sparsity"] for row in keras_es.sparsity_report(model).rows
    }


def test_excluded_layers_stay_plain():
    for exclude in (["out"], ["ou."], ["out/kernel"]):
        sparse = keras_es.sparsify(named(), 0.5, exclude=exclude)
        assert sparsities(sparse) == {"one": 0.5, "two": 0.5}
        assert type(sparse.get_layer("out")) is keras.layers.Dense


def test_layers_in_composites_are_named_by_the_paths_of_the_given_model():
    model = architectures.composite()
    path = next(p for p, _ in walk(model) if p.startswith("first/"))
    sparse = keras_es.sparsify(model, 0.5, exclude=[path])
    assert len(keras_es.masked_weights(sparse)) == 4
    dense = keras_es.sparsity_report(sparse).dense
    assert [d["layer"] for d in dense] == [path]


def test_one_kernel_of_a_recurrent_layer_may_be_left_alone():
    model = keras.Sequential([keras.Input((5, 8)), keras.layers.GRU(4, name="gru")])
    sparse = keras_es.sparsify(model, 0.5, exclude=["gru/recurrent_kernel"])
    found = {m.attribute: m.nnz / m.size for m in keras_es.masked_weights(sparse)}
    assert found["kernel"] == 0.5
    assert found.get("recurrent_kernel", 1.0) == 1.0


def test_patterns_by_rule():
    pattern = {"one": Block(4, 4), ".*/kernel": Channel(), "out": NByM(1, 4)}
    sparse = keras_es.sparsify(named(), 0.75, pattern=pattern)
    found = {m.layer.name: m.pattern for m in keras_es.masked_weights(sparse)}
    assert found == {"one": Channel(), "two": Channel(), "out": NByM(1, 4)}
    sparse = keras_es.sparsify(named(), 0.75, pattern={"one": Block(4, 4)})
    found = {m.layer.name: m.pattern for m in keras_es.masked_weights(sparse)}
    assert found == {"one": Block(4, 4), "two": Unstructured(), "out": Unstructured()}


def test_n_by_m_needs_no_sparsity():
    for how in allocation.ALLOCATIONS:
        sparse = keras_es.sparsify(named(), pattern=NByM(2, 4), allocation=how)
        assert set(sparsities(sparse).values()) == {0.5}


def test_allocation_by_rule_leaves_the_rest_dense():
    sparse = keras_es.sparsify(named(), allocation={"one": 0.75, "tw.": 0.5})
    assert sparsities(sparse) == {"one": 0.75, "two": 0.5}
    sparse = keras_es.sparsify(named(), 0.25, allocation={"one": 0.75})
    assert sparsities(sparse) == {"one": 0.75, "two": 0.25, "out": 0.25}


def test_erk_allocation_is_that_of_the_shapes():
    sparse = keras_es.sparsify(named(), 0.8, allocation="erk")
    shapes = {m.layer.name: m.shape for m in keras_es.masked_weights(sparse)}
    wanted = allocation.erk(shapes, 0.8)
    for m in keras_es.masked_weights(sparse):
        assert m.nnz == max(1, round((1 - wanted[m.layer.name]) * m.size))


@pytest.mark.parametrize("masked_before", [False, True])
def test_square_root_allocation_counts_units(masked_before):
    """Of what is the matrix in each kind of layer, and the cell's of a GRU."""
    inputs = keras.Input((8, 6))
    y = keras.layers.GRU(4, return_sequences=True, name="gru")(inputs)
    y = keras.layers.EinsumDense("abc,cde->abde", (8, 2, 6), name="heads")(y)
    y = keras.layers.DepthwiseConv2D(2, name="depthwise")(y)
    model = keras.Model(inputs, keras.layers.Conv2D(4, 1, name="conv")(y))
    pattern = {"gru": Block(2, 3), "heads": Channel(), "depthwise": Channel()}
    units = {
        "gru/gru_cell/kernel": 12, "gru/gru_cell/recurrent_kernel": 8,
        "heads/kernel": 12, "depthwise/kernel": 6, "conv/kernel": 24,
    }  # fmt: skip
    if masked_before:
        model = keras_es.sparsify(model, 0.1)
    sparse = keras_es.sparsify(model, 0.5, pattern=pattern, allocation="square_root")
    weights = {m.name: m for m in keras_es.masked_weights(sparse)}
    assert {name: m.units for name, m in weights.items()} == units
    shapes = {name: m.shape for name, m in weights.items()}
    wanted = allocation.square_root(shapes, 0.5, units)
    for name, m in weights.items():
        assert m.unit_count == max(1, round((1 - wanted[name]) * m.units))
    with pytest.raises(ValueError, match="'conv'.*Block.rows=5.*Received"):
        keras_es.sparsify(
            model, 0.5, pattern={"conv": Block(5, 5)}, allocation="square_root"
        )


def test_magnitude_keeps_the_largest_weights():
    model = fill(named())
    for pattern in (Unstructured(), Block(2, 2), Channel()):
        sparse = keras_es.sparsify(
            model, 0.75, pattern=pattern, initial_mask="magnitude"
        )
        for m in keras_es.masked_weights(sparse):
            size = m.reduce(keras.ops.abs(m.kernel)).numpy()
            kept = m.decode(m.mask_scores.value).numpy()
            assert size[kept].min() >= size[~kept].max()
            assert kept.sum() == round(0.25 * kept.size)
            np.testing.assert_array_equal(m.expand(kept), m.kernel_mask.numpy())
            # Scores have the scale of random ones.
            assert abs(m.mask_scores.numpy().mean()) < 0.1


def test_magnitude_scores_are_the_first_ones_after_load(tmp_path):
    sparse = keras_es.sparsify(fill(named()), 0.75, initial_mask="magnitude")
    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for a, b in zip(keras_es.masked_weights(again), keras_es.masked_weights(sparse)):
        np.testing.assert_array_equal(a.mask_scores.numpy(), b.mask_scores.numpy())


def test_excluded_layers_keep_the_masks_that_they_have():
    once = keras_es.sparsify(named(), 0.75, exclude=["out"])
    twice = keras_es.sparsify(once, 0.5, exclude=["one", "two"])
    assert sparsities(twice) == {"one": 0.75, "two": 0.75, "out": 0.5}
    again = keras_es.sparsify(twice, allocation={"out": 0.5})
    for model in (twice, again):
        for a, b in zip(keras_es.masked_weights(once), keras_es.masked_weights(model)):
            np.testing.assert_array_equal(a.kernel_mask, b.kernel_mask)
            np.testing.assert_array_equal(a.mask_scores, b.mask_scores)


@pytest.mark.parametrize("pattern", [Unstructured(), Block(2, 2)])
def test_masked_layers_take_another_sparsity_with_nested_masks(pattern):
    first = keras_es.sparsify(fill(named()), 0.5, pattern=pattern)
    for sparsity in (0.75, 0.25):
        second = keras_es.sparsify(first, np.float32(sparsity), seed=9)
        assert set(sparsities(second).values()) == {sparsity}
        pairs = zip(keras_es.masked_weights(first), keras_es.masked_weights(second))
        for old, new in pairs:
            assert new.pattern == pattern and new.sparsity == sparsity
            assert new.deployed_nnz() == new.nnz
            both = np.logical_and(old.kernel_mask, new.kernel_mask)
            assert both.sum() == min(old.nnz, new.nnz)
            np.testing.assert_array_equal(old.kernel, new.kernel)  # at rest, too


def test_masked_layers_take_another_pattern_as_stripped_ones():
    first = fill(keras_es.sparsify(named(), 0.5))
    x = inputs(first)
    for pattern in (NByM(1, 4), Block(2, 2)):
        second = keras_es.sparsify(
            first, 0.75, pattern=pattern, initial_mask="magnitude"
        )
        plain = keras_es.sparsify(
            keras_es.strip_masks(first), 0.75, pattern=pattern, initial_mask="magnitude"
        )
        assert {m.pattern for m in keras_es.masked_weights(second)} == {pattern}
        assert_equal(outputs(second, x), outputs(plain, x))


def test_larger_weights_stay_when_masks_get_sparser():
    first = fill(keras_es.sparsify(named(), 0.5))
    second = keras_es.sparsify(first, 0.75, initial_mask="magnitude")
    pairs = zip(keras_es.masked_weights(first), keras_es.masked_weights(second))
    for old, new in pairs:
        size, mask = np.abs(old.effective_value()), new.kernel_mask.numpy()
        assert size[mask].min() >= size[~mask].max()


def test_one_kernel_of_a_masked_recurrent_layer_may_be_changed():
    model = keras.Sequential([keras.Input((5, 8)), keras.layers.GRU(4, name="gru")])
    first = keras_es.sparsify(model, 0.5)
    second = keras_es.sparsify(first, 0.75, exclude=["gru/recurrent_kernel"])
    found = {m.attribute: m.nnz / m.size for m in keras_es.masked_weights(second)}
    assert found == {"kernel": 0.25, "recurrent_kernel": 0.5}


def test_frozen_layers_stay_frozen():
    model = named()
    model.get_layer("one").trainable = False
    sparse = keras_es.sparsify(model, 0.5)
    assert not sparse.get_layer("one").trainable
    assert len(sparse.trainable_variables) == 4


def test_subclasses_and_adapted_layers_have_no_twin():
    class Mine(keras.layers.Dense):
        pass

    model = keras.Sequential(
        [keras.Input((8,)), Mine(8, name="mine"), keras.layers.Dense(8, name="lora")]
    )
    model.get_layer("lora").enable_lora(2)
    x = inputs(model)
    fill(model)
    sparse = keras_es.sparsify(model, 0.5)
    assert sparsities(sparse) == {}
    assert [d["layer"] for d in keras_es.sparsity_report(sparse).dense] == [
        "mine",
        "lora",
    ]
    assert_equal(outputs(sparse, x), outputs(model, x))


class NotMixed(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(2)

    def call(self, x):
        return self.out(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: keras_es.sparsify(keras.Sequential([keras.layers.Dense(2)]), 0.5),
            "Build it first.*not built",
        ),
        (lambda: keras_es.sparsify(NotMixed(), 0.5), "derive from keras_es.ESMixin"),
        (
            lambda: keras_es.sparsify(keras.layers.Dense(2), 0.5),
            "must be a keras.Model",
        ),
        (lambda: keras_es.sparsify(named()), r"`sparsity` must be a number.*None"),
        (lambda: keras_es.sparsify(named(), 1.0), r"\[0, 1\).*sparsity=1.0"),
        (lambda: keras_es.sparsify(named(), -1), r"\[0, 1\).*sparsity=-1"),
        (lambda: keras_es.sparsify(named(), 0.5, exclude="out"), "list.*'out'"),
        (lambda: keras_es.sparsify(named(), 0.5, exclude=None), "list.*exclude=None"),
        (lambda: keras_es.sparsify(named(), 0.5, exclude=[1]), r"list.*exclude=\[1\]"),
        (lambda: keras_es.sparsify(named(), 0.5, seed=None), "integer.*seed=None"),
        (lambda: keras_es.sparsify(named(), 0.5, seed=2**70), "2\\*\\*62.*seed=1180"),
        (lambda: keras_es.sparsify(named(), float("nan")), "sparsity=nan"),
        (lambda: keras_es.sparsify(named(), np.nan), "sparsity=nan"),
        (lambda: keras_es.sparsify(named(), True), "sparsity=True"),
        (lambda: keras_es.sparsify(named(), "0.5"), "sparsity='0.5'"),
        (
            lambda: keras_es.sparsify(named(), 0.5, allocation=["erk"]),
            r"`allocation` must be one of.*\['erk'\]",
        ),
        (
            lambda: keras_es.sparsify(named(), 0.5, allocation={3: 0.5}),
            "rule of `allocation` must be a string.*Received: 3",
        ),
        (
            lambda: keras_es.sparsify(named(), 0.5, initial_mask=["random"]),
            "`initial_mask` must be one of",
        ),
        (lambda: keras_es.sparsify(None, 0.5), "keras.Model.*model=None"),
        (lambda: keras_es.es_model("x"), "keras.Model.*model='x'"),
        (lambda: keras_es.strip_masks(None), "keras.Model.*model=None"),
        (lambda: keras_es.sparsity_report(None), "Keras model.*model=None"),
        (lambda: keras_es.sparsity_report(keras.Sequential()), "call `build`"),
        (lambda: keras_es.masked_weights("x"), "Keras model or layer.*model='x'"),
        (
            lambda: keras_es.sparsify(named(), 0.5, exclude=["output"]),
            r"`exclude` names no layer.*\['one', 'out', 'two'\].*Received: 'output'",
        ),
        (
            lambda: keras_es.sparsify(named(), 0.5, pattern={"thre": Channel()}),
            "`pattern` names no layer.*Received: 'thre'",
        ),
        (
            lambda: keras_es.sparsify(named(), 0.5, allocation={"thre": 0.5}),
            "`allocation` names no layer.*Received: 'thre'",
        ),
        (
            lambda: keras_es.sparsify(named(), 0.5, allocation="er"),
            "`allocation` must be one of.*'er'",
        ),
        (
            lambda: keras_es.sparsify(named(), 0.5, initial_mask="large"),
            "`initial_mask` must be one of.*'large'",
        ),
        (
            lambda: keras_es.sparsify(named(), 0.5, pattern=Block(16, 1)),
            r"/one', weight 'kernel' of shape \(8, 16\).*Block\(rows=16, cols=1\)",
        ),
        (
            lambda: keras_es.sparsify(named(), 0.9, pattern=NByM(2, 4)),
            "fixes the sparsity at 1 - n/m = 0.5.*sparsity=0.9",
        ),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
