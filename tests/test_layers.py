"""The import rules of docs/design.md, read from the syntax tree, and proof that breaking one shows.

An edge is one file that imports from one other part of the package.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "notetune"

LAYERS = (
    {"dataframe"},
    {"cli"},
    {"study", "report"},
    {"recipe"},
    {"prepare", "serve"},
    {"infer"},
    {"train", "search"},
    {"model", "tokens"},
    {"hospital", "sources"},
    {"notes", "metrics", "plain"},
    {"journal"},
    {"claims"},
    {"runs", "strict_csv", "audit"},
    {"manifest"},
    {"lease", "storage"},
    {"ownership"},
    {"config", "missing_column", "progress"},
    {"errors", "aliases"},
)
RANK = {name: -depth for depth, names in enumerate(LAYERS) for name in names}

ONLY_IN = {
    "torch": ("model", "train", "infer", "serve", "study"),
    "transformers": (
        "model/backbone.py",
        "model/attention.py",
        "model/gguf_file.py",
        "model/reading.py",
    ),
    "peft": ("model/adapters",),
    "optuna": ("search",),
    "matplotlib": ("report",),
    "typer": ("cli",),
    "rich": ("cli",),
    "ray": ("cli/ray_cluster.py",),
}
# Parts of the package that only these may import.
USED_BY = {"hospital": ("hospital", "cli")}
# What importing these may not load, not even through another module. The command line also leaves
# the other slow libraries to the command that needs them, so that --help is instant.
FREE_OF = {
    **dict.fromkeys(("hospital", "sources", "notes", "tokens"), ("torch",)),
    **dict.fromkeys(("metrics", "plain", "search", "report"), ("torch",)),
    "cli": ("torch", "transformers", "peft", "polars", "scipy", "sklearn", "matplotlib", "ray"),
    # A misspelt key is said at once, and so are all keys and what is done.
    # So is a fault of the files that are to be scored.
    **dict.fromkeys(("model/cards.py", "serve/files.py"), ("torch", "transformers", "peft")),
    **dict.fromkeys(
        ("recipe", "study/wanted.py", "study/jobs.py", "study/status.py"),
        ("torch", "transformers", "peft", "scipy", "sklearn", "matplotlib"),
    ),
}


@dataclass(frozen=True)
class Import:
    """One imported module; `is_deferred` means inside a function or for the type checker only."""

    module: str
    line: int
    is_deferred: bool


def imports_of(tree: ast.AST, is_deferred: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, is_deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (Import(module, node.lineno, is_deferred) for module in modules)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield from imports_of(node, is_deferred or is_function or is_for_types)


def reads_environment(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="os"):
                names = {alias.name for alias in node.names}
            case ast.Attribute(value=ast.Name(id="os"), attr=name):
                names = {name}
            case _:
                continue
        if names & {"environ", "environb", "getenv", "putenv"}:
            yield node.lineno


def layer_of(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def is_inside(path: str, places: tuple[str, ...]) -> bool:
    return any(path in (place, f"{place}.py") or path.startswith(f"{place}/") for place in places)


def direction_problems(path: str, imports: list[Import]) -> Iterator[str]:
    mine = layer_of(path)
    for found in imports:
        outer, _, rest = found.module.partition(".")
        theirs = rest.split(".")[0]
        where = f"{path}:{found.line} imports {found.module}"
        if outer in ONLY_IN and not is_inside(path, ONLY_IN[outer]):
            yield f"{where}: {outer} is only for {', '.join(ONLY_IN[outer])}"
        if outer == "notetune" and theirs in USED_BY and not is_inside(path, USED_BY[theirs]):
            yield f"{where}: {theirs} is only for {', '.join(USED_BY[theirs])}"
        if outer == "notetune" and theirs in RANK and theirs != mine and RANK[mine] <= RANK[theirs]:
            yield f"{where}: that is not below it"


def loaded_by(path: str, imports: Mapping[str, list[Import]]) -> set[str]:
    """Top-level names of all that importing the file at `path` loads."""
    loaded, seen, waiting = set(), set(), [path]
    while waiting:
        current = waiting.pop()
        if current in seen or current not in imports:
            continue
        seen.add(current)
        for found in imports[current]:
            if found.is_deferred:
                continue
            outer, *inner = found.module.split(".")
            loaded.add(outer)
            if outer == "notetune":
                stems = ["/".join(inner[:end]) for end in range(1, len(inner) + 1)]
                waiting += [f"{stem}{end}" for stem in stems for end in (".py", "/__init__.py")]
    return loaded


def problems_in(sources: Mapping[str, str]) -> tuple[int, list[str]]:
    """The number of edges between layers, and every broken rule."""
    trees = {path: ast.parse(text) for path, text in sources.items()}
    imports = {path: list(imports_of(tree)) for path, tree in trees.items()}
    problems, edges = [], 0
    for path, found in imports.items():
        layer = layer_of(path)
        if path not in ("__init__.py", "__main__.py") and layer not in RANK:
            problems.append(
                f"{path}: {layer} has no place in LAYERS; add it there and to the design"
            )
            continue
        if path in ("__init__.py", "__main__.py"):
            continue
        modules = [item.module.split(".") for item in found]
        theirs = {parts[1] for parts in modules if parts[0] == "notetune" and parts[1:]}
        edges += len(theirs & set(RANK) - {layer})
        problems += direction_problems(path, found)
        heavy = loaded_by(path, imports) & {*FREE_OF.get(layer, ()), *FREE_OF.get(path, ())}
        problems += [f"{path}: importing it loads {name}" for name in sorted(heavy)]
        if layer != "cli":
            lines = reads_environment(trees[path])
            problems += [f"{path}:{line} uses the environment; only cli may" for line in lines]
    return edges, problems


def test_every_import_points_down_and_stays_where_it_belongs():
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if "backbones" not in path.parts]
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in paths}
    edges, problems = problems_in(sources)
    assert problems == []
    assert edges >= 20
    assert len(sources) >= 20
    assert {layer_of(path) for path in sources} >= {"cli", "model", "notes", "metrics", "errors"}


BROKEN = {
    "upwards": ({"metrics/a.py": "import notetune.tokens.store"}, "not below it"),
    "upwards, by from": ({"metrics/a.py": "from notetune import tokens"}, "not below it"),
    "upwards, in a function": (
        {"runs.py": "def f():\n    from notetune.notes import clean"},
        "runs.py:2 imports notetune.notes.clean: that is not below it",
    ),
    "upwards, for types only": (
        {"config.py": "if TYPE_CHECKING:\n    from notetune.runs import locked"},
        "not below it",
    ),
    "along the same line": ({"serve/a.py": "from notetune.report import page"}, "not below it"),
    "a new top-level module": ({"utils.py": ""}, "utils has no place in LAYERS"),
    "torch in metrics": ({"metrics/a.py": "from torch import nn"}, "torch is only for model"),
    "peft beside its file": ({"model/stack.py": "import peft"}, "only for model/adapters"),
    "transformers in train": ({"train/a.py": "import transformers.optimization"}, "is only for"),
    "the hospital in a study": (
        {"study/run.py": "from notetune.hospital import patients"},
        "hospital is only for hospital, cli",
    ),
    "rich in report": ({"report/page.py": "import rich.table"}, "rich is only for cli"),
    "torch in cli": ({"cli.py": "def f():\n    import torch"}, "torch is only for model"),
    "torch through a study": (
        {
            "cli.py": "from notetune.study.step1 import pretrain",
            "study/step1.py": "import torch",
        },
        "cli.py: importing it loads torch",
    ),
    "torch through what a recipe holds": (
        {
            "recipe/recipe.py": "from notetune.train.optim import OptimConfig",
            "train/optim.py": "import torch",
        },
        "recipe/recipe.py: importing it loads torch",
    ),
    "torch through a package": (
        {
            "report/page.py": "from notetune.model.heads import Head",
            "model/__init__.py": "from notetune.model import backbone",
            "model/backbone.py": "import torch",
            "model/heads.py": "",
        },
        "report/page.py: importing it loads torch",
    ),
    "polars in cli": ({"cli/study.py": "import polars as pl"}, "importing it loads polars"),
    "environment": ({"runs.py": "import os\nos.environ['A']"}, "runs.py:2 uses the environment"),
    "environment, by from": ({"infer.py": "from os import getenv"}, "uses the environment"),
}


@pytest.mark.parametrize(("sources", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_breaking_a_rule_is_a_problem_by_name(sources, message):
    _, problems = problems_in(sources)
    assert problems
    assert message in problems[0]
    assert {problem.split(":")[0] for problem in problems} == {next(iter(sources))}


ALLOWED = {
    "metrics/a.py": "from notetune.config import Config\nfrom notetune.metrics.b import c",
    "metrics/b.py": "import numpy",
    "model/adapters/lora.py": "import peft\nimport torch",
    "model/backbone.py": "import transformers",
    "sources/mimic/mimic3.py": "from notetune.notes import clean\nimport polars",
    "hospital/patients.py": "from notetune import __version__, errors",
    "cli/main.py": (
        "import os, typer\n"
        "from notetune import config\n"
        "from notetune.cli.study import app\n"
        "print(os.environ)\n"
        "def command():\n"
        "    from notetune.study.step1 import pretrain\n"
    ),
    "cli/study.py": ("import rich\nif TYPE_CHECKING:\n    from notetune.study.step1 import Recipe"),
    "study/step1.py": "import torch, polars\nfrom notetune.model import adapters",
    "config.py": "",
    "errors.py": "",
    "__init__.py": "import os\nos.environ.setdefault('A', '1')",
}


def test_the_allowed_imports_are_no_problem_and_are_counted():
    edges, problems = problems_in(ALLOWED)
    assert problems == []
    # metrics/a -> config, sources -> notes, hospital -> errors, cli/main -> config and study,
    # cli/study -> study, study -> model
    assert edges == 7
