"""Write the generated parts of docs/architecture.md: the import map and the list of files.

    python docs/make_architecture.py             write both parts
    python docs/make_architecture.py --check     write nothing; exit code 1 if the page is out of date

The import map is the table of tests/test_imports.py; the list of files shows the first paragraph of each docstring.
"""

import argparse
import ast
import importlib.util
import re
import runpy
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from resnet_tf.core.files import write_atomically

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "architecture.md"
COMMANDS = "commands"  # the files at the root of the package, which may import every room


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = PAGE.read_text()
    rooms = runpy.run_path(str(ROOT / "tests" / "test_imports.py"))["MAY_IMPORT"]
    new = insert(old, "import map", import_map({**rooms, COMMANDS: set(rooms)}))
    new = insert(new, "files", file_list(_package(), rooms))
    if check and new != old:
        sys.exit("docs/architecture.md is out of date; run python docs/make_architecture.py")
    if not check:
        write_atomically(PAGE, new)


def insert(page: str, name: str, text: str) -> str:
    """Return the page with `text` between `<!-- NAME: ... -->` and `<!-- end -->`."""
    section = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(section.findall(page)) != 1:
        sys.exit(f"docs/architecture.md needs '<!-- {name}: ... -->' and '<!-- end -->' once")
    return section.sub(lambda marks: f"{marks[1]}{text}{marks[2]}", page)


def import_map(may_import: Mapping[str, Set[str]]) -> str:
    """Return a Mermaid graph of the allowed imports, without the arrows that others imply, and the full table."""
    arrows = [
        f"    {room} --> {other}"
        for room, others in may_import.items()
        for other in sorted(others)
        if not any(other in may_import[each] for each in others)
    ]
    rows = [
        f"| `{room}` | {', '.join(f'`{other}`' for other in may_import if other in others) or 'none'} |"
        for room, others in may_import.items()
        if room != COMMANDS
    ]
    graph = ["```mermaid", "graph TD", *arrows, "```"]
    table = ["| directory | imports |", "|---|---|", *rows, f"| {COMMANDS} | all of them |"]
    return "\n".join([*graph, "", *table, ""])


def file_list(package: Path, rooms: Mapping[str, Set[str]]) -> str:
    """Return one table for each directory: its files with the summary lines of their docstrings."""
    lines: list[str] = []
    for room in (*rooms, ""):
        title = f"`{package.name}/{room}/`: {_summary(package / room / '__init__.py')}" if room else "Commands"
        lines += [f"**{title}**", "", "| file | content |", "|---|---|", *_rows(package, room), ""]
    return "\n".join(lines)


def _rows(package: Path, room: str) -> Iterator[str]:
    directory = package / room
    for path in sorted(directory.rglob("*.py") if room else directory.glob("*.py")):
        if path.name != "__init__.py":
            yield f"| `{path.relative_to(package)}` | {_summary(path)} |"


def _summary(path: Path) -> str:
    """Return the first paragraph of a module's docstring, as one line."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def _package() -> Path:
    """Return the directory of the installed package, without an import of it."""
    module = importlib.util.find_spec("resnet_tf")
    if module is None or module.origin is None:
        sys.exit("resnet_tf is not installed; run pip install -e .")
    return Path(module.origin).parent


if __name__ == "__main__":
    main()
