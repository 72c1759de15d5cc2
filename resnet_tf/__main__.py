"""Commands of the package by name.

python -m resnet_tf                      list the commands
python -m resnet_tf train --help         run one, as `python -m resnet_tf.train` does
resnet-tf train --help                   the same
resnet-tf --version                      versions and hardware, for a bug report
"""

import ast
import importlib.util
import pkgutil
import runpy
import sys

import resnet_tf
from resnet_tf.core.errors import closest
from resnet_tf.core.streams import standard_streams


def main() -> None:
    """Run the command that `sys.argv` names, or list all commands."""
    with standard_streams():
        _run()


def _run() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    commands = list_commands()
    if name in ("--help", "-h"):
        print("\n".join(_usage(commands)))
    elif name == "--version":
        print("\n".join(f"{name} {value}" for name, value in _describe().items()))
    elif name in commands:
        sys.argv = [f"resnet_tf.{name}", *arguments]
        runpy.run_module(f"resnet_tf.{name}", run_name="__main__", alter_sys=True)
    else:
        print(f"error: unknown command {name!r}; did you mean {closest(name, commands)}?", file=sys.stderr)
        sys.exit(2)


def _describe() -> dict[str, str]:
    from resnet_tf.core.machine import describe  # imports TensorFlow

    return describe()


def list_commands() -> list[str]:
    """Return the names of the commands: the modules at the root of the package."""
    modules = pkgutil.iter_modules(resnet_tf.__path__)
    return sorted(each.name for each in modules if not each.ispkg and each.name != "__main__")


def _usage(commands: list[str]) -> list[str]:
    width = max(map(len, commands))
    return [
        "usage: resnet-tf COMMAND [FLAGS]; resnet-tf COMMAND --help lists the flags; resnet-tf --version",
        "",
        *(f"  {name:<{width}}  {_summary(name)}" for name in commands),
    ]


def _summary(name: str) -> str:
    """Return the first line of a command's docstring, without running the command."""
    module = importlib.util.find_spec(f"resnet_tf.{name}")
    source = module.loader.get_source(module.name)  # type: ignore[union-attr]
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


if __name__ == "__main__":
    main()
