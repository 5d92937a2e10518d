"""Which file imports which below ``src/springback``, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Module:
    """Dotted name, source, and whether it is a package's ``__init__``."""

    name: str
    source: str
    is_package: bool = False

    @property
    def unit(self) -> str:
        """The module directly below springback that this one is or belongs to."""
        return unit_of(self.name)

    @property
    def below(self) -> str:
        """The dotted name without ``springback``."""
        return self.name.partition(".")[2]


def unit_of(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def read_package(source: Path) -> dict[str, Module]:
    modules = {}
    for path in sorted(source.rglob("*.py")):
        parts = ["springback", *path.relative_to(source).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, path.read_text(encoding="utf-8"), is_package)
    return modules


def imports(module: Module, known: Mapping[str, Module]) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a module imports, wherever it does so."""
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                # "from springback import store" names a module, "... import audit" may not.
                submodule = f"{base}.{alias.name}"
                yield node.lineno, submodule if submodule in known else base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def arrows(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """For each file the other files of the package that it imports."""
    return {
        name: {target for _, target in imports(module, modules) if target in modules} - {name}
        for name, module in modules.items()
    }
