"""SparseWaveRNN under teacher forcing: equations, gradients, masks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.layers.tree import masked_weights
from keras_es.patterns import Block
from models.sparse_wavernn import Bits, DualSoftmax, SparseWaveRNN, join, split
from models.sparse_wavernn import layers as wavernn_layers
from tests.marks import release, slow
from tests.speech import reference
from tests.speech.networks import (
    DENSE_LAYERS,
    HOP,
    MELS,
    UNITS,
    masked,
    network,
    recordings,
)


@pytest.fixture(scope="module")
def dense():
    return network()


@pytest.fixture(scope="module")
def sparse(dense):
    """Another sparsity for each gate."""
    shares = {"R_u/kernel": 0.25, "R_r/kernel": 0.5, "R_e/kernel": 0.75}
    shares = {f"wavernn/cell/{k}": v for k, v in shares.items()}
    allocation = {**shares, "O1": 0.5, "O3": 0.5}
    return masked(dense, None, allocation=allocation)


def log_likelihoods(model, batch):
    return keras.ops.log_softmax(model(batch), axis=-1).numpy()


def expected(model, batch):
    weights = reference.weights_of(model)
    pairs = zip(batch["samples"], batch["mel"])
    return np.array([reference.log_likelihoods(weights, HOP, *pair) for pair in pairs])


def test_every_sample_is_two_numbers_of_8_bits():
    samples = np.arange(-32768, 32768)
    coarse, fine = (part.numpy() for part in split(samples))
    np.testing.assert_array_equal(coarse, (samples + 32768) >> 8)
    np.testing.assert_array_equal(fine, (samples + 32768) & 255)
    np.testing.assert_array_equal(join(coarse, fine), samples)
    np.testing.assert_array_equal(split(samples.astype("float32"))[1], fine)


def test_dense_equals_the_equations_step_by_step(dense):
    batch = recordings()
    found = log_likelihoods(dense, batch)
    np.testing.assert_allclose(found, expected(dense, batch), rtol=2e-4, atol=2e-5)


def test_masks_of_gates_are_those_of_their_names(sparse):
    """Each gate's R by itself, and each of another sparsity: no order can be lost."""
    counts = {
        row["layer"]: row["sparsity"] for row in keras_es.sparsity_report(sparse).rows
    }
    gates = {layer.rsplit("/", 1)[-1]: share for layer, share in counts.items()}
    assert gates == {"R_u": 0.25, "R_r": 0.5, "R_e": 0.75, "O1": 0.5, "O3": 0.5}
    batch = recordings()
    found = log_likelihoods(sparse, batch)
    np.testing.assert_allclose(found, expected(sparse, batch), rtol=2e-4, atol=2e-5)
    cell = sparse.get_layer("wavernn").cell
    side_by_side = cell.recurrent_kernel().numpy()
    for i, gate in enumerate((cell.R_u, cell.R_r, cell.R_e)):
        own = side_by_side[:, i * UNITS : (i + 1) * UNITS]
        mask = gate.masked_weights[0].kernel_mask.numpy()
        np.testing.assert_array_equal(own, np.where(mask, gate._kernel.numpy(), 0.0))


def test_coarse_bits_are_told_without_themselves(dense):
    """c(t) and f(t) reach what is said of c from t + 1 on, c(t) that of f at t."""
    batch = recordings(count=1)
    batch["samples"] //= 32  # As loud as speech: what is louder moves no gate any more.
    before = log_likelihoods(dense, batch)[0]
    for change, first_fine in ((256, 9), (1, 10)):
        other = {**batch, "samples": batch["samples"].copy()}
        other["samples"][0, 9] ^= change
        changed = np.any(log_likelihoods(dense, other)[0] != before, axis=-1)
        assert np.argmax(changed[:, 0]) == 10
        assert np.argmax(changed[:, 1]) == first_fine


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_gradients_equal_those_of_keras(sparse, jit_compile):
    """The way back that is written out, against automatic differentiation."""
    layer = sparse.get_layer("wavernn")
    x = tf.random.stateless_normal([3, 5, 3 * UNITS], [1, 2])
    state = tf.random.stateless_normal([3, UNITS], [3, 4])
    factors = tf.random.stateless_normal([3, 5, UNITS], [5, 6])

    def gradients(inner_loop):
        variables = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch([x, state])
            _, outputs, [last] = inner_loop(layer, x, [state], None)
            loss = tf.reduce_sum(outputs * factors) + tf.reduce_sum(last)
        return outputs, tape.gradient(loss, [x, state, *variables])

    @tf.function(autograph=False, jit_compile=jit_compile)
    def both():
        own = gradients(wavernn_layers.WaveRNN.inner_loop)
        return own, gradients(keras.layers.RNN.inner_loop)

    own, kerases = both()
    for a, b in zip(tf.nest.flatten(own), tf.nest.flatten(kerases), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_bits_are_16_when_nothing_is_known_and_the_loss_is_theirs_in_nats():
    samples = recordings()["samples"]
    logits = np.zeros((*samples.shape, 2, 256), "float32")
    bits = Bits()
    bits.update_state(samples, logits)
    np.testing.assert_allclose(bits.result(), 16.0, rtol=1e-6)
    loss = DualSoftmax()(samples, logits)
    np.testing.assert_allclose(loss, 16.0 * np.log(2.0), rtol=1e-6)


def fit(model, optimizer, steps=2, **options):
    batch = recordings(4)
    data = tf.data.Dataset.from_tensors((batch, batch["samples"])).repeat(steps)
    model.compile(optimizer, DualSoftmax(), metrics=[Bits()], **options)
    return model.fit(data, verbose=0, shuffle=False).history


METHODS = ["snes", slow("guided_es"), slow("gradual_magnitude")]
METHODS += [release(m) for m in ("rigl", "straight_through", "pure", "forward")]


def made(method, model):
    """Return an optimizer: one of masks, of all weights, or of directions."""
    optimizers = keras_es.optimizers
    if method == "pure":
        return optimizers.OpenES(None, population_size=4, seed=1)
    if method == "forward":
        return optimizers.ForwardGradient("adam", seed=1)
    return optimizers.for_run(optimizers.get(method), "adam", model, 4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_moves_masks_and_weights(method):
    model = masked()
    assert len(masked_weights(model)) == 5
    before = [w.numpy() for w in model.trainable_variables]
    history = fit(model, made(method, model), steps=4, jit_compile=False)
    np.testing.assert_allclose(
        history["bits"], np.array(history["loss"]) / np.log(2), rtol=1e-5
    )
    assert any(
        np.any(a != b.numpy()) for a, b in zip(before, model.trainable_variables)
    )
    for weight in masked_weights(model):
        assert weight.deployed_nnz() == weight.nnz


def test_what_stores_blocks_equals_what_has_its_zeros(dense, tmp_path):
    stored = network(sparsity=0.5, block_shape=(4, 1))
    batch = recordings()
    found = log_likelihoods(stored, batch)
    plain = keras_es.strip_masks(stored)
    np.testing.assert_allclose(
        log_likelihoods(plain, batch), found, rtol=1e-5, atol=1e-5
    )
    assert [w.nnz for w in masked_weights(stored)] == [128, 128, 128, 32, 32]


@pytest.mark.slow
def test_what_stores_blocks_is_trained():
    stored = keras_es.es_model(network(sparsity=0.5, block_shape=(4, 1)))
    before = [w.numpy() for w in stored.trainable_variables]
    fit(stored, keras_es.optimizers.Static("adam"), jit_compile=False)
    pairs = zip(before, stored.trainable_variables)
    assert all(np.any(a != b.numpy()) for a, b in pairs)


def test_masked_model_is_saved_and_loaded(sparse, tmp_path):
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    batch = recordings()
    np.testing.assert_array_equal(loaded(batch), sparse(batch))
    for a, b in zip(masked_weights(loaded), masked_weights(sparse), strict=True):
        np.testing.assert_array_equal(a.kernel_mask, b.kernel_mask)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 15}, "`units` must be even.*Received: units=15"),
        ({"units": "32"}, "`units` must be a positive integer. Received: units='32'"),
        ({"units": None}, "`units` must be a positive integer. Received: units=None"),
        ({"output_units": 0}, "`output_units` must be a .* output_units=0"),
        ({"block_shape": "junk"}, "takes `sparsity`.* block_shape='junk'"),
        ({"sparsity": 0.5, "block_shape": "junk"}, "must be a positive integer or a"),
        ({"hop": 0}, "`hop` must be a positive integer. Received: hop=0"),
        ({"sparsity": 1.0}, r"must be a number in \[0, 1\).*sparsity=1.0"),
        ({"sparsity": 0.5, "block_shape": (3, 1)}, "do not divide"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseWaveRNN(**{"units": 16, "hop": 6, **arguments})


@pytest.mark.parametrize(
    ("samples", "mel"),
    [((2, 1), (2, 8)), ((2, 13), (2, 8)), ((1, 12), (2, 8)), ((2, 12), (1, 8)),
     ((1, 24), (2, 8)), ((2, 0), (2, 6)), ((2, 6), (2, 3))],
)  # fmt: skip
def test_samples_are_those_of_the_frames(dense, samples, mel):
    """Nothing is repeated until it fits, neither samples nor examples."""
    batch = (tf.zeros(samples, tf.int32), tf.zeros((*mel, MELS)))
    with pytest.raises(ValueError, match="expected .*frame.*Received: "):
        dense(dict(zip(("samples", "mel"), batch)))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None, MELS]),
        ]
    )
    def called(samples, mel):
        return dense({"samples": samples, "mel": mel})

    with pytest.raises(tf.errors.OpError):
        called(*batch)


def test_dense_layers_are_those_that_stay_so():
    model = keras_es.sparsify(
        network(), 0.5, pattern=Block(4, 1), exclude=list(DENSE_LAYERS)
    )
    names = {w.layer.name for w in masked_weights(model)}
    assert names == {"R_u", "R_r", "R_e", "O1", "O3"}


def test_first_weights_let_the_gates_hear_speech():
    """One of the 256 steps of c moves a gate by up to 1; f is mostly noise."""
    inputs = network().get_layer("inputs")
    previous, fine = inputs.previous_kernel.numpy()
    coarse = inputs.coarse_kernel.numpy()
    for weights in (previous, coarse):
        assert 100 < np.abs(weights).max() <= 128
        assert np.abs(weights.mean()) < 5 * 128 / np.sqrt(3 * weights.size)
    assert len(np.unique(np.concatenate([previous, coarse.ravel()]))) == 72
    assert np.abs(fine).max() < 1
