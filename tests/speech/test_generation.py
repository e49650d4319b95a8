"""Speaking: what is drawn, how probably, in which pieces, by which products."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es.patterns import Block
from models.sparse_wavernn import Generator, join, pad_frames, products, sampling
from tests.speech import reference
from tests.speech.networks import HOP, MELS, masked, network

SEED = 7


def frames(voices, count, seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(-5.0, 3.0, (voices, count, MELS)).astype("float32")


@pytest.fixture(scope="module")
def sparse():
    return masked(sparsity=0.5)


@pytest.fixture(scope="module")
def single(sparse):
    return Generator(sparse, blocks=True)


@pytest.fixture(scope="module")
def pair(sparse):
    return Generator(sparse, voices=2, log_probabilities=True)


def test_samples_are_those_of_the_equations(sparse, single):
    """NumPy draws, step by step, with the same random numbers."""
    mel, utterance = frames(1, 5), 11
    found = single(mel, SEED, [utterance])[0]
    place = sampling.position(SEED, [utterance])
    numbers = sampling.uniforms(0, 5 * HOP, place).numpy()[..., 0]
    weights = reference.weights_of(sparse)
    voice = reference.WaveRNN(weights, HOP, pad_frames(mel)[0])
    assert single.in_blocks == {
        "R": True,
        "O1": True,
        "O2": False,
        "O3": True,
        "O4": False,
    }
    for t, (sample, (for_coarse, for_fine)) in enumerate(zip(found, numbers)):
        p_c, p_f = (np.exp(p) for p in voice.step(t, int(sample)))
        coarse = np.sum(np.cumsum(p_c) <= for_coarse)
        fine = np.sum(np.cumsum(p_f) <= for_fine)
        assert sample == join(coarse, fine)
    assert len(np.unique(found)) > 20


def test_likelihood_is_that_under_teacher_forcing(sparse, pair):
    mel = frames(2, 4)
    samples, ln_p = pair(mel, SEED)
    batch = {"samples": samples.astype("int32"), "mel": pad_frames(mel).numpy()}
    told = keras.ops.log_softmax(sparse(batch), axis=-1).numpy()
    bits = np.stack([(samples.astype(int) + 32768) >> 8, samples.astype(int) & 255], -1)
    own = np.take_along_axis(told, bits[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(ln_p, own, rtol=1e-3, atol=1e-4)


def test_pieces_are_the_whole_to_the_bit(single):
    mel = frames(1, 27)  # more than one call of the program
    whole = single(mel, SEED, [3])
    for sizes in ((1,) * 27, (0, 5, 21, 1)):
        stream, first = single.stream(SEED, [3]), 0
        pieces = []
        for size in sizes:
            pieces.append(stream.feed(mel[:, first : first + size]))
            first += size
        pieces.append(stream.finish())
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    assert whole.dtype == np.int16 and whole.shape == (1, 27 * HOP)
    assert np.any(single(mel, SEED, [4]) != whole)
    assert np.any(single(mel, SEED + 1, [3]) != whole)


def test_a_finished_stream_says_nothing_more(single):
    mel = frames(1, 4)
    for pieces in ([], [mel]):
        stream = single.stream(SEED)
        said = [stream.feed(piece) for piece in pieces] + [stream.finish()]
        assert sum(samples.shape[1] for samples in said) == len(pieces) * 4 * HOP
        for after in (mel, mel[:, :0]):
            with pytest.raises(ValueError, match="no frames after `finish`.*Received"):
                stream.feed(after)
        assert stream.finish().shape == (1, 0)


def test_a_voice_does_not_hang_on_those_beside_it(pair):
    mel = frames(2, 3)
    both = pair(mel, SEED, [5, 6])[0]
    turned = pair(mel[::-1], SEED, [6, 5])[0]
    np.testing.assert_array_equal(turned[::-1], both)
    other = pair(np.stack([mel[0], frames(1, 3, seed=9)[0]]), SEED, [5, 1])[0]
    np.testing.assert_array_equal(other[0], both[0])


def test_nothing_is_said_of_no_frames(single):
    assert single(frames(1, 0)).shape == (1, 0)


def test_all_65536_samples_can_be_drawn():
    """Each value by its share of [0, 1), and none without one."""
    middles = (np.arange(256, dtype="float32") + 0.5) / 256
    logits = tf.zeros([256, 256])
    values, _ = sampling.draw(logits, middles)
    np.testing.assert_array_equal(values, np.arange(256))
    pairs = itertools.product(values.numpy(), repeat=2)
    samples = {int(256 * c + f - 32768) for c, f in pairs}
    assert samples == set(range(-32768, 32768))
    ends = tf.constant([0.0, 1.0 - 2.0**-24])
    only = tf.where(tf.range(256)[:, None] == [9, 200], 0.0, -np.inf)
    np.testing.assert_array_equal(sampling.draw(only, ends)[0], [9, 200])
    np.testing.assert_array_equal(sampling.draw(only[:, ::-1], ends)[0], [200, 9])
    rng = np.random.default_rng(0)
    logits = rng.normal(size=256).astype("float32") * 3
    uniform = rng.random(20_000, "float32")
    values, weights = sampling.draw(tf.tile(logits[:, None], [1, 20_000]), uniform)
    p = np.exp(logits - logits.max(), dtype="float64")
    counts = np.bincount(values, minlength=256)
    expected = 20_000 * p / p.sum()
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected + 1))


def test_random_numbers_hang_on_seed_utterance_and_sample_alone():
    place = sampling.position(SEED, tf.constant([2, 2**40], tf.int64))
    whole = sampling.uniforms(0, 1000, place).numpy()
    rest = sampling.uniforms(600, 400, [word[1:] for word in place]).numpy()
    np.testing.assert_array_equal(rest[..., 0], whole[600:, :, 1])
    other = sampling.uniforms(0, 1000, sampling.position(SEED + 2**32, [2, 3])).numpy()
    assert not np.any(other[..., 0] == whole[..., 0]) or np.mean(other == whole) < 1e-3
    assert np.all((whole >= 0) & (whole < 1))
    assert abs(whole.mean() - 0.5) < 5 / np.sqrt(12 * whole.size)


@pytest.mark.parametrize("launch", [0, 1000])
@pytest.mark.parametrize("voices", [1, 3])
@pytest.mark.parametrize("rows", [4, 16])
def test_products_of_blocks_are_those_of_the_matrix(monkeypatch, voices, rows, launch):
    monkeypatch.setattr(products, "LAUNCH", launch)
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(64, 40)).astype("float32")
    shares = np.linspace(0.0, 1.0, 40)  # some columns are empty, some are full
    active = rng.random((64 // rows, 40)) < shares
    matrix *= np.repeat(active, rows, axis=0)
    h = rng.normal(size=(64, voices)).astype("float32")
    h = h[:, 0] if voices == 1 else h
    for product in (products.Blocks(matrix, rows), products.Dense(matrix)):
        np.testing.assert_allclose(product(h), matrix.T @ h, rtol=1e-4, atol=1e-5)


def test_columns_are_divided_where_it_costs_least(monkeypatch):
    monkeypatch.setattr(products, "LAUNCH", 10)
    rng = np.random.default_rng(0)

    def cost(counts, ends):
        return sum(counts[a] * (b - a) + 10 for a, b in zip(ends, ends[1:]))

    for _ in range(20):
        counts = -np.sort(-rng.integers(0, 6, 9))
        inner = [
            (0, *ends, 9)
            for n in range(9)
            for ends in itertools.combinations(range(1, 9), n)
        ]
        pieces = products.divide(counts)
        assert [a for a, _ in pieces[1:]] == [b for _, b in pieces[:-1]]
        ends = [0, *(b for _, b in pieces)]
        assert cost(counts, ends) == min(cost(counts, e) for e in inner)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"voices": 0}, "`voices` must be a positive integer. Received: voices=0"),
        ({"blocks": "no"}, '`blocks` must be "auto", True or False'),
        ({"blocks": 1}, '`blocks` must be "auto", True or False. Received: blocks=1'),
        ({"blocks": np.ones(2)}, '`blocks` must be "auto", True or False'),
        ({"block_rows": 0}, "`block_rows` must be a positive .* block_rows=0"),
        ({"block_rows": False}, "`block_rows` must be a positive .* block_rows=False"),
        ({"block_rows": ""}, "`block_rows` must be a positive .* block_rows=''"),
        ({"block_rows": 7}, "`block_rows` must divide the rows of a matrix.*=7"),
        ({"block_rows": 16, "blocks": True}, "16 rows must divide .* R, O1 and O3"),
        ({"log_probabilities": "no"}, "`log_probabilities` must be True or False"),
        ({"model": keras.Sequential()}, "`model` must be a SparseWaveRNN"),
    ],
)
def test_wrong_arguments_are_refused(sparse, arguments, message):
    with pytest.raises(ValueError, match=message):
        Generator(**{"model": sparse, **arguments})


def test_blocks_take_a_model_that_has_some():
    """Without masks, and with blocks of several columns, their rows are not known."""
    for model in (network(), masked(pattern=Block(4, 4))):
        assert not any(Generator(model).in_blocks.values())
        with pytest.raises(ValueError, match="give `block_rows`, or a model.*=None"):
            Generator(model, blocks=True)
        assert Generator(model, block_rows=4, blocks=True).in_blocks["O1"]


def test_wrong_frames_and_seeds_are_refused(single):
    with pytest.raises(ValueError, match=r"expected frames of shape \(1, frames, 5\)"):
        single(np.zeros((1, 3, 4)))
    for seed, utterances in ((-1, None), (0, [1, 2]), (0.5, None), (0, 5)):
        with pytest.raises(ValueError, match="expected an integer in"):
            single.stream(seed, utterances)
    assert single.stream(0, iter([5])).utterances.numpy().tolist() == [5]


def test_only_finite_real_numbers_are_frames(single):
    mel, whole = frames(1, 3), single(frames(1, 3))
    stream = single.stream()
    for bad in (np.nan, np.inf, -1e39):
        wrong = mel.astype("float64")
        wrong[0, 1, 2] = bad
        with pytest.raises(ValueError, match=r"finite frames. Received: .*\(0, 1, 2\)"):
            stream.feed(wrong)
    ragged = [[[1.0] * MELS, [1.0]]]
    for wrong in (mel + 1j, mel > 0, mel.astype(str), mel.astype(object), ragged, None):
        with pytest.raises(ValueError, match="in real numbers. Received: mel of"):
            stream.feed(wrong)
    # Nothing of that has been heard.
    said = np.concatenate([stream.feed(mel), stream.finish()], axis=1)
    np.testing.assert_array_equal(said, whole)
    for kind in ("float64", "float16", tf.bfloat16.as_numpy_dtype, "int32"):
        assert single(mel.astype(kind)).shape == whole.shape
