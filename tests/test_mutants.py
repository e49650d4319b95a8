"""The texts that `python -m tests.mutants` replaces are still there, once each."""

import pytest

from tests.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_text_of_a_mutant_is_there_once(mutant):
    assert (ROOT / "keras_es" / mutant.file).read_text().count(mutant.old) == 1
    files = [test.partition("::")[0] for test in mutant.tests.split()]
    assert all((ROOT / file).exists() for file in files)
