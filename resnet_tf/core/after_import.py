"""Calls deferred until another package is imported."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def call_after_import(module: str, function: Callable[[], None]) -> None:
    """Call `function` now if `module` is imported, otherwise at the end of its first import."""
    if module in sys.modules:
        function()
    else:
        sys.meta_path.insert(0, _Watcher(module, function))


class _Watcher(MetaPathFinder):
    """Finder that delegates to the other finders and adds a call after the module has loaded."""

    def __init__(self, module: str, function: Callable[[], None]):
        self._module = module
        self._function = function

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        module_spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if module_spec and module_spec.loader:
            execute = module_spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                sys.meta_path.remove(self)
                self._function()

            module_spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return module_spec
