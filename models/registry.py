"""The registries: a model, data set or metric is a file in a folder, its name is the file's name. No torch here.

`lgm models` and `lgm data` list what is there by parsing the files, without importing them; a name that comes from outside (command line,
checkpoint) is looked up in the list of files and is never handed to the import system as given.
"""

from __future__ import annotations

import ast
import importlib
import io
import tokenize
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from models.config import Preset
from models.errors import ContractError, UserError, nearest


@cache
def _body(path: Path, name: str) -> list[ast.stmt]:
    """What stands in the body of a class; nothing where there is no such file or class."""
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    return [statement for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name for statement in n.body]


@dataclass(frozen=True)
class Option:
    """One field of a model's Config as its source shows it."""

    name: str
    takes: str  # the annotation, as written
    default: str
    help: str


@dataclass(frozen=True)
class Entry:
    """One file of a registry: its name on the command line and what can be read from its source without running it."""

    name: str
    path: Path
    package: str

    @cached_property
    def docstring(self) -> str:
        return ast.get_docstring(self._tree) or ""

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.docstring.partition("\n")[0]

    def options(self) -> list[Option]:
        """The fields of the file's `Config` class; the trailing comment of each line is its help text."""
        comments = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.generate_tokens(io.StringIO(self._source).readline)
            if token.type == tokenize.COMMENT
        }
        config = next((n for n in ast.walk(self._tree) if isinstance(n, ast.ClassDef) and n.name == "Config"), None)
        fields = [n for n in (config.body if config else []) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        return [
            Option(
                name=f.target.id,  # type: ignore[union-attr]
                takes=_in_words(f.annotation),
                default=ast.unparse(f.value) if f.value else "",
                help=comments.get(f.end_lineno or f.lineno, ""),
            )
            for f in fields
        ]

    def presets(self) -> dict[str, Preset]:
        """The presets of the file's model, which are written out: `presets = {"quick": Preset(80_000, ...), ...}`. Raises ContractError."""
        table = self._class_attribute("presets")
        try:
            return {} if table is None else _presets(table)
        except (TypeError, ValueError) as error:
            fix = 'write them out, as in {"quick": Preset(80_000, options={"latent": 32})}'
            raise ContractError(f"its presets cannot be read without running it ({error})", self.path, fix) from error

    def sources(self) -> tuple[str, ...]:
        """The names of the data sets that the file's model trains on, the leading one first; empty where it has just one."""
        named = self._class_attribute("sources")
        return () if named is None else tuple(ast.literal_eval(named))

    def parts(self) -> dict[str, str]:
        """The trained runs that the file's model is built around: name -> what each is for."""
        table, found = self._class_attribute("takes"), {}
        for name, call in zip(table.keys, table.values) if isinstance(table, ast.Dict) else ():
            if name is not None and isinstance(call, ast.Call):
                words = {word.arg: word.value for word in call.keywords}
                about = words.get("about") or call.args[1]
                found[str(ast.literal_eval(name))] = str(ast.literal_eval(about)) + (" (optional)" if "optional" in words else "")
        return found

    def methods(self) -> frozenset[str]:
        """The names of the methods that the file's classes define, or inherit from what the file imports: a capability is a method."""
        named = {alias.name: n.module for n in self._tree.body if isinstance(n, ast.ImportFrom) and n.module for alias in n.names}
        bases = {base.id for n in self._tree.body if isinstance(n, ast.ClassDef) for base in n.bases if isinstance(base, ast.Name)}
        bodies = [self._in_classes, *(_body(self._root / f"{named[name].replace('.', '/')}.py", name) for name in bases & {*named})]
        return frozenset(n.name for body in bodies for n in body if isinstance(n, ast.FunctionDef))

    @property
    def _root(self) -> Path:
        """Where the file's package is imported from."""
        return self.path.parents[len(self.package.split("."))]

    def _class_attribute(self, name: str) -> ast.expr | None:
        """What the file's class says behind `NAME = ...` in its body; None where it says nothing."""
        assigned = [n.value for n in self._in_classes if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name]
        return assigned[0] if assigned else None

    @property
    def _in_classes(self) -> list[ast.stmt]:
        """What stands in the bodies of the file's classes."""
        return [statement for n in self._tree.body if isinstance(n, ast.ClassDef) for statement in n.body]

    def module(self) -> ModuleType:
        return importlib.import_module(f"{self.package}.{self.path.stem}")

    @cached_property
    def _source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(self._source)


def _presets(table: ast.expr) -> dict[str, Preset]:
    """`{"quick": Preset(80_000, about="a look")}` as its values."""
    found, read = {}, ast.literal_eval
    for name, call in zip(table.keys, table.values) if isinstance(table, ast.Dict) else ((None, table),):
        if name is None or not isinstance(call, ast.Call):
            raise ValueError(ast.unparse(call))
        found[read(name)] = Preset(*map(read, call.args), **{str(word.arg): read(word.value) for word in call.keywords})
    return found


def _in_words(annotation: ast.expr) -> str:
    """`Annotated[int, Range(1, 9)]` -> ``int, 1 to 9``; `Literal["a", "b"]` -> ``a | b``; anything else as written."""
    match annotation:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, ast.Call(args=[low, high])])):
            return f"{_in_words(inner)}, {ast.unparse(low)} to {ast.unparse(high)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return " | ".join(str(ast.literal_eval(c)) for c in (choices.elts if isinstance(choices, ast.Tuple) else [choices]))
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[inner, *_])):
            return f"{_in_words(inner)}s with commas between"
    return ast.unparse(annotation)


class Registry:
    """The files of one folder, by name (`wgan_gp.py` is `wgan-gp`)."""

    def __init__(self, kind: str, folder: Path, package: str, listing: str) -> None:
        self.kind, self.folder, self.package, self.listing = kind, folder, package, listing

    def entries(self) -> dict[str, Entry]:
        files = sorted(p for p in self.folder.glob("*.py") if not p.stem.startswith("_"))
        return {name: Entry(name, p, self.package) for p in files for name in [p.stem.replace("_", "-")]}

    def find(self, name: str) -> Entry:
        """The entry called `name`. Raises UserError with the nearest match where there is none."""
        entry = self.entries().get(str(name).replace("_", "-"))
        if entry is None:
            raise UserError(f"unknown {self.kind}", name or "(empty)", f"{nearest(str(name), self.entries())} (see `{self.listing}`)")
        return entry


_HERE = Path(__file__).parent
MODELS = Registry("model", _HERE / "zoo", "models.zoo", "lgm models")
SETS = Registry("data set", _HERE / "data" / "sets", "models.data.sets", "lgm data")
METRICS = Registry("metric", _HERE / "metrics", "models.metrics", "lgm evaluate --help")


def model_class(name: str) -> Any:
    """The `LatentModel` subclass of the zoo file called `name` (this imports torch)."""
    from models.base import LatentModel

    entry = MODELS.find(name)
    module = entry.module()
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, LatentModel) and c.__module__ == module.__name__]
    if len(found) != 1:
        raise ContractError(f"a zoo file defines exactly one LatentModel, this one defines {len(found)}", entry.path)
    return found[0]
