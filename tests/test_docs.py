"""Every Python block of the README and of docs/ is executed as it stands."""

import inspect
import re
from pathlib import Path

import keras
import pytest

import keras_es
from tests.marks import release, slow

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(page):
    """Yields (line number of the first line, source) for each block of a page."""
    text = page.read_text(encoding="utf-8")
    for match in PYTHON_BLOCK.finditer(text):
        yield text.count("\n", 0, match.start(1)) + 1, match.group(1)


def run_blocks(page):
    namespace = {"__name__": "__main__"}
    for line, source in python_blocks(page):
        # Padding with empty lines makes a traceback point into the page itself.
        code = compile("\n" * (line - 1) + source, str(page), "exec")
        exec(code, namespace)


def name_of(page):
    return str(page.relative_to(ROOT))


# What a page says in code, tests of its subject hold; the README runs each time.
@pytest.mark.parametrize(
    "page",
    [page if page.name == "README.md" else slow(page) for page in PAGES],
    ids=name_of,
)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    """Without XLA, which takes most of the time of models so small."""
    monkeypatch.chdir(tmp_path)
    # What "auto" asks, in our models and in those of Keras.
    monkeypatch.setattr("keras_es._compat.model_supports_jit", lambda model: False)
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda self: False)
    run_blocks(page)


@pytest.mark.parametrize("page", [release(page) for page in PAGES], ids=name_of)
def test_code_blocks_run_with_xla(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_inside_the_repository_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    missing = [t for t in targets if not (page.parent / t).exists()]
    assert not missing


def test_all_public_names_have_a_page_of_the_api():
    found = set()
    for page in (ROOT / "docs" / "api").glob("*.md"):
        assert f"api/{page.name}" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
        text = page.read_text(encoding="utf-8")
        found |= set(re.findall(r"^::: keras_es(?:\.(\w+))?", text, re.MULTILINE))
    # "" is the page of the root: its functions and classes, as `__all__` has them.
    names = {n for n in keras_es.__all__ if inspect.ismodule(getattr(keras_es, n))}
    assert found == {"", *names}


@pytest.mark.parametrize("stage", ["main", "tests"])
def test_readme_has_each_command_on_one_line(stage):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pattern = rf"^<!-- ci: {stage} -->\n```bash\n([^\n]+)\n```$"
    assert len(re.findall(pattern, text, re.MULTILINE)) == 1
