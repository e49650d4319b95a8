"""Marks of single cases."""

import pytest


def slow(*values, **kwargs):
    """Return a case of `parametrize` that only `python -m tests --all` runs."""
    return pytest.param(*values, marks=pytest.mark.slow, **kwargs)


def release(*values, **kwargs):
    """Return a case that is slow, and that CI leaves out besides."""
    marks = [pytest.mark.slow, pytest.mark.release]
    return pytest.param(*values, marks=marks, **kwargs)


def slow_unless(kept, cases, released=()):
    """Return cases: some are kept, some are for a release, the others slow."""
    cases = list(cases)
    assert set(kept) <= set(cases), "a case that is kept must be one"
    assert set(released) <= set(cases) - set(kept), "one of `released` is no case"
    marked = [release if case in released else slow for case in cases]
    return [
        case if case in kept else mark(*_values(case))
        for case, mark in zip(cases, marked)
    ]


def _values(case):
    return case if isinstance(case, tuple) else (case,)
