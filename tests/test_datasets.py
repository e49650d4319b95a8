"""Data sets: names, splits, and an order that is a pure function of (seed, step)."""

import os
import warnings

import numpy as np
import pytest

from keras_es import datasets
from keras_es.datasets import images as image_data
from keras_es.datasets import tfds
from tests.marks import slow


def tiny(examples=10, shape=(4, 4, 1)):
    """Images whose pixels all equal the example's number, which is its label too."""
    images = np.arange(examples, dtype="uint8")[:, None, None, None]
    images = np.broadcast_to(images, (examples, *shape)).copy()
    labels = np.arange(examples, dtype="int32")
    return datasets.ImageDataset("tiny", images, labels, images, labels, examples)


def labels_of(batches, count):
    return [tuple(y.numpy()) for _, y in batches.take(count)]


def test_digits():
    data = datasets.load("digits")
    assert data.input_shape == (8, 8, 1)
    assert (len(data.x_train), len(data.x_test)) == (1437, 360)
    assert data.x_train.min() == 0.0 and data.x_train.max() == 1.0
    # Stratified: each class has about a tenth of the test.
    assert np.all(np.abs(np.bincount(data.y_test) - 36) <= 2)


def test_epochs_are_permutations_and_differ():
    data = tiny()
    epochs = np.reshape(labels_of(data.train_batches(5, seed=3), 6), [3, 10])
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_all_batches_have_one_size_and_drop_nothing():
    data = tiny()
    batches = labels_of(data.train_batches(4, seed=0), 5)
    assert [len(batch) for batch in batches] == [4] * 5
    np.testing.assert_array_equal(np.bincount(np.ravel(batches)), np.full(10, 2))
    assert data.steps_per_epoch(4) == 3


@pytest.mark.parametrize("first_step", [1, 2, 3, 7])
@pytest.mark.parametrize("augment", [False, True])
def test_a_later_start_continues_the_same_stream(first_step, augment):
    data = tiny()
    whole = data.train_batches(4, seed=1, augment=augment)
    rest = data.train_batches(4, seed=1, augment=augment, first_step=first_step)
    for (x, y), (x_rest, y_rest) in zip(
        whole.skip(first_step).take(4), rest.take(4), strict=True
    ):
        np.testing.assert_array_equal(x, x_rest)
        np.testing.assert_array_equal(y, y_rest)


def test_seeds_give_different_orders():
    data = tiny()
    orders = {tuple(labels_of(data.train_batches(5, seed=s), 2)) for s in range(4)}
    assert len(orders) == 4


def test_images_stay_with_their_labels_and_are_scaled():
    data = tiny()
    images, labels = next(iter(data.train_batches(5, seed=0)))
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    scaled = datasets.ImageDataset(
        "tiny", data.x_train, data.y_train, data.x_test, data.y_test, 10, scale=0.5
    )
    images, labels = next(iter(scaled.train_batches(5, seed=0)))
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels.numpy() / 2)


def test_shift_and_flip_against_numpy():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 255, [3, 6, 5, 2]).astype("uint8")
    shifts, flips = np.array([[4, 4], [0, 8], [7, 1]]), np.array([True, False, True])
    moved = image_data._shift_and_flip(images, shifts.astype("int32"), flips).numpy()
    np.testing.assert_array_equal(moved[0], images[0, :, ::-1])
    for image, result, (row, column), flip in zip(
        images, moved, shifts, flips, strict=True
    ):
        expected = np.pad(image, [(4, 4), (4, 4), (0, 0)])
        expected = expected[row : row + 6, column : column + 5]
        np.testing.assert_array_equal(result, expected[:, ::-1] if flip else expected)


def test_augmentation_flips_about_half_and_shifts_within_bounds():
    shifts, flips = image_data._augmentation(np.array([0, 0], "int64"), 4000)
    assert abs(np.mean(flips) - 0.5) < 5 * 0.5 / np.sqrt(4000)
    assert set(np.unique(shifts)) == set(range(9))


@pytest.mark.parametrize("value", [0, -1, None, 2.0, True, "4"])
def test_sizes_and_seeds_are_integers_in_range(value):
    data = tiny()
    message = f"`batch_size` must be an integer of at least 1.*batch_size={value!r}"
    for function in (
        data.steps_per_epoch, data.test_batches,
        lambda value: data.train_batches(value, seed=0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            function(value)
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        data.train_batches(2, seed=value if value != 0 else 2**31)
    with pytest.raises(ValueError, match="`first_step` must be an integer of at least"):
        data.train_batches(2, seed=0, first_step=value if value != 0 else -1)


def test_numpy_integers_will_do():
    data, two = tiny(), np.int64(2)
    assert data.steps_per_epoch(two) == 5
    assert next(iter(data.train_batches(two, seed=np.int32(1))))[0].shape[0] == 2
    assert next(iter(data.test_batches(np.int16(2))))[0].shape[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "`name` must be the name of a data set.*name=None"),
        (("digits", 3), "`data_dir` must be a path or None. Received: data_dir=3"),
        (("mnist", 3), "`data_dir` must be a path or None. Received: data_dir=3"),
    ],
)
def test_bad_arguments_of_load(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(*arguments)


@pytest.mark.parametrize(
    ("examples", "asked", "sizes"),
    [(10, 4, [2] * 5), (7, 4, [4, 3]), (3, 1000, [3]), (12, 6, [6, 6])],
)
def test_test_batches_prefer_one_size(examples, asked, sizes):
    batches = labels_of(tiny(examples).test_batches(asked), -1)
    assert [len(batch) for batch in batches] == sizes
    np.testing.assert_array_equal(np.concatenate(batches), np.arange(examples))


def test_data_dir_may_hold_a_tensorflow_datasets_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(tfds.DATA_DIR_VARIABLE, raising=False)
    assert tfds.folder(None) is None
    assert tfds.folder(tmp_path) == str(tmp_path)
    nested = tmp_path / "tensorflow_datasets"
    nested.mkdir()
    assert tfds.folder(tmp_path) == str(nested)
    monkeypatch.setenv(tfds.DATA_DIR_VARIABLE, str(tmp_path))
    assert tfds.folder(None) == str(nested)


@pytest.fixture
def quiet_tfds():
    """Imports tensorflow-datasets; its own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds = pytest.importorskip("tensorflow_datasets")
        try:
            tfds.builder  # noqa: B018
        except (ImportError, AttributeError) as error:
            pytest.skip(f"tensorflow_datasets does not import here: {error}")
        yield tfds


@pytest.mark.parametrize(
    ("name", "near"), [("mnits", "mnist"), ("cifar_10", "cifar10"), ("digit", "digits")]
)
def test_unknown_names_get_near_matches(name, near, tmp_path, quiet_tfds):
    with pytest.raises(ValueError, match=f"did you mean.*{near}.*{name}"):
        datasets.load(name, tmp_path)


def test_a_name_like_nothing(tmp_path, quiet_tfds):
    with pytest.raises(ValueError, match="unknown data set; see .*'qqqqqqq'"):
        datasets.load("qqqqqqq", tmp_path)


def test_data_sets_without_images_are_refused(tmp_path, quiet_tfds):
    with pytest.raises(ValueError, match="one image and one class label.*imdb_reviews"):
        datasets.load("imdb_reviews", tmp_path)


def test_without_network_the_missing_data_set_is_named(
    tmp_path, monkeypatch, quiet_tfds
):
    def refuse(*args, **kwargs):
        raise OSError("no address")

    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(tfds.socket, "getaddrinfo", refuse)
    with pytest.raises(FileNotFoundError, match="'kmnist' is not at .*no network"):
        datasets.load("kmnist", tmp_path)


def test_sizes_in_memory():
    assert tfds._stored_shape((28, 28, 1)) == ((28, 28, 1), False)
    assert tfds._stored_shape((None, None, 3)) == ((64, 64, 3), True)
    assert tfds._stored_shape((96, 300, 3)) == ((64, 64, 3), True)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("mnist", (28, 28, 1), (60000, 10000)),
        slow("fashion_mnist", (28, 28, 1), (60000, 10000)),
        slow("cifar10", (32, 32, 3), (50000, 10000)),
    ],
)
def test_real_data_sets(name, shape, sizes, quiet_tfds):
    if not os.environ.get(tfds.DATA_DIR_VARIABLE):
        pytest.skip(f"{tfds.DATA_DIR_VARIABLE} does not name a folder of data")
    try:
        data = datasets.load(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert data.input_shape == shape and data.num_classes == 10
    assert (len(data.x_train), len(data.x_test)) == sizes
    images, labels = next(iter(data.train_batches(32, seed=0, augment=True)))
    assert images.shape == (32, *shape) and labels.shape == (32,)
    assert 0.0 <= images.numpy().min() and 0.9 < images.numpy().max() <= 1.0
