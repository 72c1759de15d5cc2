"""Imports go one way: core <- config, inputs, model <- data <- training, serving <- report <- workflows <- commands."""

import ast
import functools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "resnet_tf"

# Room (directory of the package) -> other rooms that its files may import; docs/architecture.md shows this table.
MAY_IMPORT = {
    "core": set(),
    "config": {"core"},
    "inputs": {"core", "config"},
    "model": {"core", "inputs"},
    "data": {"core", "config", "inputs"},
    "training": {"core", "config", "inputs", "model", "data"},
    "serving": {"core", "config", "inputs", "model", "data"},
    "report": {"core"},
    "workflows": {"core", "config", "inputs", "model", "data", "training", "serving", "report"},
}
# Commands import any room and are imported by nobody.
COMMANDS = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}


@functools.cache
def modules() -> dict[str, Path]:
    """Return the file of each module by its dotted name below `resnet_tf`; a package is its `__init__.py`."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Return the modules that a module imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "resnet_tf":
            module = node.module.removeprefix("resnet_tf").removeprefix(".")
            for alias in node.names:
                submodule = f"{module}.{alias.name}".removeprefix(".")
                found.add(submodule if submodule in modules() else module)
        elif isinstance(node, ast.Import):
            found.update(
                alias.name.removeprefix("resnet_tf").removeprefix(".")
                for alias in node.names
                if alias.name.split(".")[0] == "resnet_tf"
            )
    return frozenset(found)


def _room(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("name", sorted(set(modules()) - COMMANDS - {"", "__main__"}))
def test_imports_go_one_way(name):
    rooms = {_room(each) for each in imports(name)}
    assert rooms <= MAY_IMPORT[_room(name)] | {_room(name)}


@pytest.mark.parametrize("name", sorted(modules()))
def test_commands_are_not_imported(name):
    assert not imports(name) & COMMANDS


def test_no_import_is_circular():
    visited: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circular import: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in visited:
            for each in imports(name) - {""}:  # `resnet_tf` imports its public names on first use
                visit(each, (*path, name))
            visited.add(name)

    for name in set(modules()) - {""}:
        visit(name, ())


def test_the_root_contains_commands_only():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)
    for name in COMMANDS:
        assert "command_line.run(main" in modules()[name].read_text(), name


@pytest.mark.parametrize("name", sorted(name for name in modules() if _room(name) == "model"))
def test_models_use_neither_flags_nor_pipelines(name):
    text = modules()[name].read_text()
    assert "absl" not in text
    assert "tf.data" not in text


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("test_*.py")), ids=lambda path: path.stem)
def test_a_module_of_tests_is_imported_without_pytorch(path):
    """The extra `test` does not bring PyTorch: without it, the tests that compare with it are skipped one by one."""
    imported = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert not imported & {"torch", "torchvision", "timm"}
