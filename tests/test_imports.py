"""Imports go one way: ground (errors, spec, labels, config, model) <- data <- training, serving; commands on top."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "resnet_tf"

MAY_IMPORT = {
    "errors": set(),
    "spec": set(),
    "labels": set(),
    "manifest": set(),
    "figures": set(),
    "environment": {"__init__"},
    "config": {"errors"},
    "model": {"model", "spec", "labels", "errors"},
    "data": {"data", "spec", "labels", "config", "errors"},
    "training": {"training", "report", "manifest", "figures", "model", "data", "spec", "config", "errors"},
    "serving": {
        "serving",
        "report",
        "manifest",
        "environment",
        "model",
        "data",
        "spec",
        "config",
        "errors",
        "__init__",
    },
    "report": {"report", "figures", "errors"},
    "reporting": {"report", "serving", "training", "data", "figures", "environment", "spec", "config"},
    "backend": {"errors"},
    "cli": {"backend", "config", "errors"},
    "__init__": {
        "backend",
        "config",
        "data",
        "errors",
        "figures",
        "model",
        "reporting",
        "serving",
        "spec",
        "training",
    },
}
COMMANDS = {"benchmark", "convert", "data_service", "train", "evaluate", "export", "predict", "prepare", "preview"}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "resnet_tf":
            parts = node.module.split(".")[1:]
            names = [alias.name for alias in node.names]
            if parts:
                rooms.add(parts[0])
            else:
                rooms.update(name if (PACKAGE / f"{name}.py").exists() else "__init__" for name in names)
    return rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = _room(path)
    imported = _imported_rooms(path)
    assert not imported & COMMANDS, "nobody imports a command"
    if room not in COMMANDS:
        assert imported <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").glob("*.py")), ids=lambda path: path.name)
def test_models_know_nothing_of_flags_or_pipelines(path):
    text = path.read_text()
    assert "absl" not in text
    assert "tf.data" not in text
    assert "resnet_tf.config" not in text
