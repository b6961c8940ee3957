"""Who may import whom, kept by parsing the imports; and what stays unimported until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(p for folder in ("models", "lgcli") for p in (ROOT / folder).rglob("*.py"))

LIGHT = {"models.errors", "models.config", "models.layout", "models.version"}  # no torch, nothing of ours but each other
GROUND = LIGHT | {"models.registry", "models.randomness", "models.device"}

BELOW_EVALUATION = GROUND | {"models.base", "models.data", "models.capabilities", "models.metrics", "models.training", "models.api"}

# Module or package -> what of ours it may import, beside itself. The first entry that fits counts.
ALLOWED: list[tuple[str, set[str]]] = [
    ("models.errors", set()),
    ("models.config", {"models.errors"}),
    ("models.version", set()),
    ("models.layout", set()),
    ("models.registry", {"models.errors", "models.config", "models.base"}),  # base inside a function only, see below
    ("models.randomness", {"models.errors"}),
    ("models.device", {"models.errors"}),
    ("models.base", {"models.config", "models.data.items"}),
    ("models.nets", {"models.base", "models.errors"}),
    ("models.losses", {"models.base"}),
    ("models.zoo", {"models.base", "models.nets", "models.losses", "models.errors"}),
    ("models.data.batches", GROUND | {"models.base", "models.data"}),
    ("models.data.order", GROUND | {"models.data"}),
    ("models.data", LIGHT | {"models.registry"}),
    ("models.capabilities", GROUND | {"models.base", "models.data"}),
    ("models.metrics", GROUND | {"models.base", "models.data", "models.capabilities"}),
    ("models.training", GROUND | {"models.base", "models.data", "models.capabilities"}),
    ("models.api", {"models"}),
    # Each of the rooms of models.evaluation may import those before it: a plan, then what is collected for it, then the report.
    ("models.evaluation.plan", BELOW_EVALUATION),
    ("models.evaluation.sides", BELOW_EVALUATION | {"models.evaluation.plan"}),
    ("models.evaluation.collect", BELOW_EVALUATION | {"models.evaluation.plan", "models.evaluation.sides"}),
    ("models.evaluation.report", BELOW_EVALUATION | {"models.evaluation.plan", "models.evaluation.sides", "models.evaluation.collect"}),
    ("models.evaluation", BELOW_EVALUATION),
    ("models.runs.history", {"models.errors", "models.layout"}),
    ("models.runs.shelf", {"models.errors", "models.layout", "models.runs.history"}),
    ("models.runs", BELOW_EVALUATION | {"models.evaluation"}),
    ("models", {"models.version", "models.api"}),  # the package itself; api inside a function only
    ("lgcli", {"lgcli", "models"}),
]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[tuple[str, str]]:
    """(module, when) for every import of a file: `from models import errors` is models.errors. `when`: top, typing or function."""

    def visit(node: ast.AST, when: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            inner = when
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                inner = "function"
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                inner = "typing"
            if isinstance(child, ast.Import):
                yield from ((alias.name, when) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: write imports in full"
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    yield (whole if is_module(whole) else str(child.module)), when
            yield from visit(child, inner)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), "top")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_the_parser_sees_every_kind_of_import(tmp_path: Path) -> None:
    source = "import torch.nn as n\nfrom models import errors\nfrom models.errors import UserError\nif TYPE_CHECKING:\n    import typer\n"
    path = tmp_path / "x.py"
    path.write_text(source + "def f():\n    with g:\n        from lgcli.render import training\n")
    found = [("torch.nn", "top"), ("models.errors", "top"), ("models.errors", "top"), ("typer", "typing"), ("lgcli.render", "function")]
    assert list(imports_of(path)) == found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_import_directions(path: Path) -> None:
    name = name_of(path)
    rule, allowed = next((rule, allowed) for rule, allowed in ALLOWED if inside(name, rule))
    for module, when in imports_of(path):
        if not inside(module, "models") and not inside(module, "lgcli"):
            continue
        assert not inside(module, "lgcli") or inside(name, "lgcli"), f"{name} imports {module}"
        if when == "typing":
            continue
        top = allowed | ({rule} if rule not in ("models", "models.data") else set())
        top |= {"models.data"} if rule == "models.data" else set()
        assert any(inside(module, a) for a in top) if rule != "models" else module in top, f"{name} imports {module}"
        assert (
            not inside(module, "models.api")
            or any(inside(name, top) for top in ("lgcli", "models.evaluation", "models.runs"))
            or name == "models"
        ), f"{name} imports the top"
        if inside(name, "models.data") and name != "models.data.batches":
            assert module != "models.data.batches", f"{name} imports torch by way of batches"


@pytest.mark.parametrize("path", [p for p in FILES if inside(name_of(p), "models.data") and p.stem != "batches"], ids=name_of)
def test_data_layer_imports_no_torch_where_it_is_read(path: Path) -> None:
    found = {module.partition(".")[0] for module, when in imports_of(path) if when == "top"}
    assert not found & {"torch", "torchvision", "safetensors", "fsspec"}


@pytest.mark.parametrize("path", [p for p in FILES if inside(name_of(p), "models.zoo")], ids=name_of)
def test_zoo_files_import_no_library_but_torch(path: Path) -> None:
    found = {module.partition(".")[0] for module, _ in imports_of(path)} - {"models"}
    assert found <= {"torch"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", [p for p in FILES if inside(name_of(p), "lgcli")], ids=name_of)
def test_command_line_imports_only_light_modules_at_the_top(path: Path) -> None:
    light = (*LIGHT, "models.registry", "lgcli", "typer", "rich", "models", *sys.stdlib_module_names)
    for module, when in imports_of(path):
        if when == "top":
            assert any(module == a or (a not in ("models",) and inside(module, a)) for a in light), f"{path.name} imports {module}"


@pytest.mark.parametrize("name", [*sorted(LIGHT), "models.registry", "models"])
def test_light_modules_import_nothing_heavy(name: str) -> None:
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for module, when in imports_of(path):
        if when == "top":
            first = module.partition(".")[0]
            assert first in sys.stdlib_module_names or module in LIGHT, f"{name} imports {module}"


@pytest.mark.parametrize("module", ["models", "models.registry", "lgcli", "lgcli.app"])
def test_H1_import_stays_light(module: str) -> None:
    heavy = ["torch", "numpy", "PIL", "safetensors", "scipy", "torchvision"]
    code = f"import sys, {module}; print(*[m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert found == []
    if module == "lgcli.app":  # the list is not empty because nothing can be seen: torch is there once it is asked for
        code = f"import sys, lgcli; lgcli.load; print(*[m for m in {heavy} if m in sys.modules])"
        found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        assert "torch" in found


def test_the_api_under_a_name_of_its_own_is_the_package_s() -> None:
    import lgcli as lgm
    import models
    from models import evaluation
    from models.capabilities import masks

    assert set(lgm.__all__) == {*models.__all__, "evaluation", "masks"}
    assert all(getattr(lgm, name) is getattr(models, name) for name in models.__all__)
    assert (lgm.evaluation, lgm.masks) == (evaluation, masks)
    with pytest.raises(AttributeError, match="nosuch"):
        lgm.nosuch  # noqa: B018


def test_the_package_itself_imports_nothing_of_ours_before_the_shadow_is_looked_for() -> None:
    """Neither `lgcli` nor what comes before the check in `lgcli.app` may import a `models` that is not lgm's."""
    assert [module for module, when in imports_of(ROOT / "lgcli" / "__init__.py") if when != "typing" and inside(module, "models")] == []
    first = [module for module, when in imports_of(ROOT / "lgcli" / "app.py") if inside(module, "models") or inside(module, "lgcli")]
    assert first[0] == "lgcli"
