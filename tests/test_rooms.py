"""Rooms of the package: imports go down, nowhere in a circle, and the root is small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "keras_es"

ORDER = (
    "_compat",
    "_arguments",
    "_files",
    "ops",
    "patterns",
    "schedules",
    "plots",
    "datasets",
    "distribution",
    "layers",
    "noise",
    "populations",
    "optimizers",
    "training",
    "conversion",
    "unrolled",
    "runs",
    "lottery",
    "callbacks",
)
"""Rooms, and modules at the root, from the ground up: each may import those before it.

docs/design.md says why they lie so.
"""

ROOT = {
    "__init__",
    "_arguments",
    "_files",
    "callbacks",
    "patterns",
    "plots",
    "schedules",
}
"""Modules at the root: what a user imports, and what is below all rooms."""


def modules():
    """Return {dotted name: path} of all modules of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts)] = path
    return found


def imports(tree, known):
    """Yield the modules of the package that a file imports, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"


@pytest.fixture(scope="module")
def edges():
    known = modules()
    return {
        name: set(imports(ast.parse(path.read_text(encoding="utf-8")), known)) - {name}
        for name, path in known.items()
    }


def room(module):
    """Return the room of a module; the root itself is above all."""
    return module.partition(".")[2].partition(".")[0]


def test_every_room_has_its_place():
    rooms = {room(name) for name in modules()} - {""}
    assert rooms <= set(ORDER), rooms - set(ORDER)


def test_no_import_runs_upwards(edges):
    height = {name: index for index, name in enumerate(ORDER)}
    height[""] = len(ORDER)
    upwards = [
        f"{name} imports {other}"
        for name, others in edges.items()
        for other in others
        if height[room(other)] > height[room(name)]
    ]
    assert not upwards, upwards


def test_no_import_runs_in_a_circle(edges):
    done = set()

    def visit(name, above):
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in edges[name]:
                visit(other, [*above, name])
            done.add(name)

    for name in edges:
        visit(name, [])


def test_the_root_holds_what_a_user_imports():
    assert {path.stem for path in PACKAGE.glob("*.py")} <= ROOT


def test_private_names_of_keras_and_tensorflow_are_in_one_room():
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "_compat":
            text = path.read_text(encoding="utf-8")
            for private in ("keras.src", "tensorflow.python"):
                assert private not in text, f"{path} uses {private}"


def test_files_are_split_by_idea():
    long = {
        str(path): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert not long, long
