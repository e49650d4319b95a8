"""How sparsity is divided: against a NumPy reference, and what is refused."""

import numpy as np
import pytest

from keras_es.conversion import allocation

SHAPES = {
    "conv/kernel": (3, 3, 16, 32),
    "hidden/kernel": (784, 300),
    "small/kernel": (10, 10),
    "out/kernel": (300, 10),
}
LAYERS = {path: path.split("/")[0] for path in SHAPES}


RAW = {
    "erk": lambda shape: np.sum(shape) / np.prod(shape),
    "square_root": lambda shape: 1 / np.sqrt(np.prod(shape)),
}
"""Densities before they are scaled and capped."""

by_size = pytest.mark.parametrize("name", RAW)


def reference(name, shapes, sparsity):
    """Raise the factor until the non-zeros are right, each density capped at 1."""
    sizes = np.array([np.prod(s) for s in shapes], "float64")
    raw = np.array([RAW[name](s) for s in shapes])
    low, high = 0.0, 1.0 / raw.min()
    for _ in range(200):
        factor = (low + high) / 2
        enough = (
            np.sum(sizes * np.minimum(1, factor * raw)) > (1 - sparsity) * sizes.sum()
        )
        low, high = (low, factor) if enough else (factor, high)
    return 1 - np.minimum(1, factor * raw)


@by_size
@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.9, 0.98])
def test_densities_are_those_of_the_reference(name, sparsity):
    found = allocation.ALLOCATIONS[name](SHAPES, sparsity)
    expected = reference(name, list(SHAPES.values()), sparsity)
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-9)


@by_size
def test_the_whole_is_as_sparse_as_wanted_over_random_models(name):
    rng = np.random.default_rng(0)
    for _ in range(30):
        shapes = {
            f"{i}": tuple(int(n) for n in rng.integers(1, 200, rng.choice([2, 4])))
            for i in range(rng.integers(1, 9))
        }
        sparsity = float(rng.uniform(0, 0.99))
        found = allocation.ALLOCATIONS[name](shapes, sparsity)
        sizes = [np.prod(s, dtype="float64") for s in shapes.values()]
        kept = np.sum([n * (1 - s) for n, s in zip(sizes, found.values())])
        np.testing.assert_allclose(kept, (1 - sparsity) * np.sum(sizes), rtol=1e-9)
        assert all(0.0 <= s < 1.0 for s in found.values())


def test_of_square_kernels_both_say_the_same():
    shapes = {f"{n}": (n, n) for n in (10, 40, 300)}
    erk, root = (allocation.ALLOCATIONS[name](shapes, 0.8) for name in RAW)
    np.testing.assert_allclose(list(erk.values()), list(root.values()), rtol=1e-12)


def test_a_unit_counts_once_however_large_it_is():
    """Channels of 784 and of 300 weights: their numbers are as 17.3 to 10."""
    shapes = {"one": (784, 300), "two": (300, 100)}
    found = allocation.square_root(shapes, 0.9, {"one": 300, "two": 100})
    factor = 0.1 * 265200 / (784 * 300**0.5 + 300 * 10)
    kept = [n * (1 - found[w]) for w, n in zip(shapes, (300, 100))]
    np.testing.assert_allclose(kept, [factor * 300**0.5, factor * 10], rtol=1e-9)
    assert np.round(kept).astype(int).tolist() == [28, 16]


def test_uniform_gives_all_the_same():
    assert set(allocation.uniform(SHAPES, 0.7).values()) == {0.7}


def test_the_last_matching_rule_wins():
    rules = {".*": 0.5, "hidden": 0.9, "out/kernel": 0.1}
    found = allocation.allocate(rules, SHAPES, None, LAYERS)
    assert list(found.values()) == [0.5, 0.9, 0.5, 0.1]


def test_what_no_rule_names_gets_the_sparsity_or_stays_dense():
    given = allocation.allocate({"hidden": 0.9}, SHAPES, 0.3, LAYERS)
    assert given["out/kernel"] == 0.3
    left = allocation.allocate({"hidden": 0.9}, SHAPES, None, LAYERS)
    assert left["out/kernel"] is None


def test_paths_with_special_characters_match_as_they_are():
    assert allocation.matches("a(b", "a(b")
    assert not allocation.matches("a(b", "ab")
    assert not allocation.matches("hid", "hidden")
    assert allocation.matches("hid.*", "hidden")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            "er",
            r"one of \['erk', 'square_root', 'uniform'\] or a dict.*: allocation='er'",
        ),
        ({"hiden": 0.5}, r"names no layer.*'hidden'.*Received: 'hiden'"),
        ({"hidden": 1.0}, r"`sparsity` of 'hidden' must be a number in \[0, 1\)"),
        ({"hidden": None}, r"`sparsity` of 'hidden' must be a number in \[0, 1\)"),
    ],
)
def test_bad_allocations_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        allocation.allocate(rules, SHAPES, 0.5, LAYERS)
