"""The house rules that can be measured: floors, circles, and the size of a file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "posexp"
# Bottom to top: a module imports from its own folder and from floors below it.
FLOORS = (
    {"errors", "dims", "ops"},
    {"storage"},
    {"config"},
    {"output"},
    {"data", "windows", "mixers", "jobs"},
    {"schemes"},
    {"attention", "temperatures"},
    {"transforms"},
    {"model"},
    {"runs", "check"},
    {"evaluation", "inspect"},
    {"training", "hf", "report"},
    {"compare", "leaderboard", "bench", "sweeps", "doctor"},
    {"cli"},
    {"api"},
    {"__main__", ""},  # "" is posexp/__init__.py
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MOST_LINES = 300


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """Every module of posexp that `module` imports anywhere, lazily and for type checking too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


GRAPH = {module: set(imports(module)) - {module, "posexp"} for module in MODULES}


def folder_of(module: str) -> str:
    return [*module.split("."), ""][1]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle, or nothing: what is left when everything without imports is taken away again and again."""
    left = {name: set(targets) for name, targets in graph.items()}
    while free := [name for name, targets in left.items() if not targets]:
        for name in free:
            del left[name]
        for targets in left.values():
            targets.difference_update(free)
    return sorted(left)


def test_no_circle_among_files():
    assert circle(GRAPH) == []


def test_no_circle_among_folders_and_every_import_leads_down():
    wrong = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if folder_of(module) != folder_of(target) and FLOOR[folder_of(target)] >= FLOOR[folder_of(module)]
    ]
    assert wrong == []


def test_every_folder_has_a_floor():
    assert {folder_of(module) for module in MODULES} == FLOOR.keys()


@pytest.mark.parametrize("graph", [{"a": {"b"}, "b": {"a"}, "c": {"a"}}, {"a": {"b"}, "b": {"c"}, "c": {"b"}}])
def test_a_circle_is_found(graph: dict[str, set[str]]):
    assert {"a", "b"} & set(circle(graph))


def test_no_file_is_long():
    sizes = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: size for module, size in sizes.items() if size > MOST_LINES} == {}


def test_no_test_imports_another_test():
    wrong = [
        f"{path.name} imports {node.module}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[-1].startswith("test_")
    ]
    assert wrong == []


def test_the_loop_fits_on_a_screen():
    sizes = {name: len((PACKAGE / "training" / name).read_text().splitlines()) for name in ("loop.py", "train.py")}
    assert sizes["loop.py"] <= 60 and sizes["train.py"] <= 80, sizes
