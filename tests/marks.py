"""Marks of single cases."""

import pytest


def slow(*values, **kwargs):
    """Return a case of `parametrize` that only `python -m tests --all` runs."""
    return pytest.param(*values, marks=pytest.mark.slow, **kwargs)


def slow_unless(kept, cases):
    """Return cases, of which those that are not kept are slow."""
    cases = list(cases)
    assert set(kept) <= set(cases), "a case that is kept must be one"
    return [case if case in kept else slow(*_values(case)) for case in cases]


def _values(case):
    return case if isinstance(case, tuple) else (case,)
