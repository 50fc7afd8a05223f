"""The house: a module imports from its own room or from rooms before it, and heavy guests enter by one door."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "qsmjax"
ROOMS = [
    "numerics",
    "physics",
    "recon",
    "phase",
    "background",
    "inversion",
    "registration",
    "simulate",
    "models",
    "evaluation",
    "io",
    "report",
    "training",
    "inference",
    "export",
    "pipeline",
    "study",
    "cli",
]
DOORS = {"nibabel": {"io"}, "safetensors": {"io"}, "matplotlib": {"report"}, "onnx": {"export"}}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def room(module: pathlib.PurePath) -> str:
    return module.parts[0].removesuffix(".py")


def imports(module: pathlib.PurePath) -> list[str]:
    tree = ast.parse((PACKAGE / module).read_text())
    nodes = list(ast.walk(tree))
    absolute = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: import by the full name, not relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "qsmjax" else []
            absolute += names or [node.module or ""]
    return absolute


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_only_from_rooms_that_stand_before(module):
    if module.name in ("__init__.py", "__main__.py") and len(module.parts) == 1:
        return
    assert room(module) in ROOMS, f"{module} stands in no room"
    for name in imports(module):
        parts = name.split(".")
        if parts[0] == "qsmjax" and len(parts) > 1 and parts[1] != "__version__":
            assert ROOMS.index(parts[1]) <= ROOMS.index(room(module)), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_heavy_libraries_enter_by_one_door(module):
    for name in imports(module):
        allowed = DOORS.get(name.split(".")[0])
        assert allowed is None or room(module) in allowed, f"{module} imports {name}: only {allowed} may"
