"""Who may import whom, as docs/architecture.md draws it; and that a wheel would hold all of it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "animebg_core"

# From the top down: a file imports what stands in a lower row, or in its own room.
ROWS = (
    {"cli"},
    {"cluster"},
    {"film", "training"},
    {"painter"},
    {"pipeline"},
    {"painting"},
    {"upsampling", "colour", "masks", "images"},
    {"engine"},
    {"network"},
    {"files"},
    {"errors"},
)


def modules():
    """Every module of the core by its dotted name below it, and its file; the door excepted."""
    found = {}
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(CORE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("", "__main__"):
            found[name] = path
    return found


def imports(name, path, known):
    """The modules of the core that one imports, at the top or within a function."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        base += node.module.split(".") if node.module else []
        for alias in node.names:
            deep = ".".join([*base, alias.name])
            yield deep if deep in known else ".".join(base)


def arrows():
    known = modules()
    for name, path in known.items():
        for other in imports(name, path, known):
            if other:  # "" is the door, asked for the version
                assert other in known, f"{name} imports {other}, which is no module"
                yield name, other


def row(name):
    return next(at for at, rooms in enumerate(ROWS) if name.split(".")[0] in rooms)


def test_imports_point_downward_only():
    found = list(arrows())
    assert len(found) > 100  # or the files were not read
    wrong = [
        f"{name} imports {other}"
        for name, other in found
        if name.split(".")[0] != other.split(".")[0] and row(name) >= row(other)
    ]
    assert not wrong


def test_no_two_files_need_each_other():
    after = {}
    for name, other in arrows():
        if name != other:
            after.setdefault(name, set()).add(other)
    # A package's own file comes before those in it for whoever imports them; it may name them.
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a circle: {' -> '.join([*path, name])}"
        if name in done:
            return
        path.append(name)
        for other in sorted(after.get(name, ())):
            visit(other)
        path.pop()
        done.add(name)

    for name in sorted(after):
        visit(name)


def test_no_file_grows_beyond_what_is_read_at_one_sitting():
    assert not [
        f"{name}: {lines} lines"
        for name, path in modules().items()
        if (lines := len(path.read_text("utf-8").splitlines())) > 350
    ]


def test_a_wheel_holds_every_package():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = re.search(r"^packages = \[(.*?)\]", text, re.M | re.S)
    assert listed
    packages = set(re.findall(r'"([\w.]+)"', listed[1]))
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in CORE.rglob("__init__.py")}
    assert packages == there | {"animebg_core.weights"}


def test_the_drawing_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for rooms in ROWS:
        for room in rooms:
            assert room in text
