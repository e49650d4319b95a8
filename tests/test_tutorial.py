"""The tutorial runs from its first cell to its last, and was run when published."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "tutorial.ipynb"
QUICK = 'DATA, EXAMPLES, EPOCHS = "digits", 64, 1'


@pytest.fixture
def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_the_tutorial_runs(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", ()):
            source = QUICK
        if cell["cell_type"] == "code":
            exec(compile(source, f"{NOTEBOOK.name}, cell {number}", "exec"), namespace)
    assert (tmp_path / "small.keras").exists()


def test_what_it_prints_is_published_and_small(cells):
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert len(outputs) >= len(code) - 2
    assert {output["output_type"] for output in outputs} == {"stream"}
    assert len(json.dumps(outputs)) < 20_000
