"""The code that each asset consists of, read from its files, so that two copies can be compared."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from shared.cli.inventories import Inventory

_DBT_PROJECT = "dbt_project.yml"  # dbt's models have a code version of their own


def source_folders(root: Path) -> tuple[Path, ...]:
    """Return the folders of a repository that hold its packages."""
    return (root / "shared" / "src", *sorted(root.glob("projects/*/src")))


def parts_of_assets(root: Path, inventories: Iterable[Inventory]) -> dict[str, dict[str, str]]:
    """Return the parts of each asset's code with their hashes, by the asset's key.

    A part is the module that defines the asset or one of its checks; each module of the repository that
    it imports, also indirectly; a file of its package that is not Python; its code version; and its
    entry in the contract. Comments and line breaks do not count.

    An asset that no module names, such as that of a YAML file, consists of its complete package.
    """
    tree = SourceTree(source_folders(root))
    found: dict[str, dict[str, str]] = {}
    for item in inventories:
        sql_files = {code.get("sql_file") for code in item.code.values()}
        for key, code in item.code.items():
            package = item.package
            modules = code["modules"] or tree.modules_of(package)
            found[key] = {
                **{module: tree.digest(module) for module in tree.reached(modules)},
                **{
                    name: digest
                    for name, digest in tree.other_files(
                        package, with_components=not code["modules"]
                    ).items()
                    if name.rpartition("/")[2] not in sql_files  # its asset has a code version
                },
                "its code version": str(code["version"]),
                "its contract": repr(sorted(_flat(item.contract["assets"].get(key, {})))),
            }
    return found


def _flat(entry: Mapping[str, Any]) -> Iterator[str]:
    for name, value in entry.items():
        yield f"{name}={sorted(value.items()) if isinstance(value, Mapping) else value}"


class SourceTree:
    """The modules of a repository's packages, and what they import; nothing is executed.

    Args:
        folders: the folders that hold the packages.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._files: dict[str, Path] = {}
        for folder in folders:
            for file in sorted(folder.rglob("*.py")):
                name = ".".join(file.relative_to(folder).with_suffix("").parts)
                self._files[name.removesuffix(".__init__")] = file
        self._parsed = cache(self._parse)
        self.digest = cache(self._digest)

    def modules_of(self, package: str) -> list[str]:
        """Return all modules of a package."""
        return [name for name in self._files if f"{name}.".startswith(f"{package}.")]

    def reached(self, modules: Iterable[str]) -> set[str]:
        """Return modules with all that they import, as far as they are in the repository."""
        reached: set[str] = set()
        waiting = [module for module in modules if module in self._files]
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                waiting += self._imports(module) - reached
        return reached

    def _digest(self, module: str) -> str:
        """Return a hash of a module's code, without comments and line breaks."""
        return _hash(ast.dump(self._parsed(module)).encode())

    def other_files(self, package: str, *, with_components: bool) -> dict[str, str]:
        """Return the hash of each file of a package that is not Python, by its path.

        Args:
            package: the package.
            with_components: whether the files of its components, in `defs/`, are included.
        """
        top = self._files.get(package)
        if top is None:
            return {}
        folder = top.parent
        skipped = {file.parent for file in folder.rglob(_DBT_PROJECT)}
        skipped |= set() if with_components else {folder / "defs"}
        return {
            file.relative_to(folder.parent).as_posix(): _hash(file.read_bytes())
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.suffix not in {".py", ".pyc"}
            if skipped.isdisjoint(file.parents)
        }

    def _parse(self, module: str) -> ast.Module:
        return ast.parse(self._files[module].read_bytes())

    def _imports(self, module: str) -> set[str]:
        """Return the modules that a module imports, with the packages that they are in."""
        package = module if self._files[module].name == "__init__.py" else _parent(module)
        names: set[str] = {_parent(module)}
        for node in ast.walk(self._parsed(module)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, *filter(None, [node.module])])
                names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        parents = {parent for name in names for parent in _parents(name)}
        return {name for name in names | parents if name in self._files}


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def _parents(module: str) -> Iterator[str]:
    while module := _parent(module):
        yield module


def _hash(content: bytes) -> str:
    return sha256(content).hexdigest()
