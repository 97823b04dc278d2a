"""Runs as models with code of their own, for all that transformers has no architecture for.

The folder gets modeling_posexp.py and the files of posexp that it imports, under names such as posexp_schemes_alibi.py,
because transformers copies files from one folder only. It copies those whose name it finds in a line
`from .<name> import`.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from posexp.config.commands import TrainCommand
from posexp.config.components import is_own, options_of, parameters_of, targets, typed_options
from posexp.config.values import plain_value
from posexp.errors import Inapplicable
from posexp.model.base import Model
from posexp.model.decoder import base_length

PACKAGE = Path(__file__).parents[1]
MODELING, COMPONENTS, PLAIN = "posexp.hf.modeling_posexp", "posexp.config.components", "posexp.hf.plain_components"
AUTO = {"AutoConfig": "PosexpConfig", "AutoModelForCausalLM": "PosexpForCausalLM"}


def config_with_code(trained: TrainCommand, model: Model) -> dict[str, Any]:
    """Return the keys of config.json that describe the model. Raises Inapplicable for code from outside posexp."""
    kinds = ("scheme", "window", "temperature", "mixer", "transform")
    parts = {kind: plain_node(getattr(trained, kind)) for kind in kinds}
    if code := next(
        (target for target in targets([*parts.values(), trained.model.component]) if not is_own(target)), None
    ):
        raise Inapplicable(f"{code} is code from outside posexp, which an export cannot hold")
    return {
        "architectures": [AUTO["AutoModelForCausalLM"]],
        "model_type": "posexp",
        "auto_map": {auto: f"modeling_posexp.{name}" for auto, name in AUTO.items()},
        "num_hidden_layers": trained.model.n_layer,
        "num_attention_heads": trained.model.n_head,
        "posexp": {
            "model": plain_value(trained.model),
            **parts,
            "seed": trained.seed,
            "train_length": trained.train.length,
            "base_length": base_length(trained),
        },
    }


def plain_node(node: Any) -> Any:
    """Return a config section with all its options, typed, and sections in place of names, as JSON stores it."""
    if not isinstance(node, dict) or "_target_" not in node:
        return plain_value(node)
    part_class, options = typed_options("component", object, node)
    named = {p.name for p in parameters_of(part_class) if p.annotation is Any and isinstance(options.get(p.name), str)}
    inside = {key: options_of("scheme", value, {}) if key in named else value for key, value in options.items()}
    return {"_target_": node["_target_"], **{key: plain_node(value) for key, value in inside.items()}}


def code_of(config: dict[str, Any]) -> dict[str, str]:
    """Return the Python files of a model with these keys in config.json, by name."""
    parts = [target.rpartition(".")[0] for target in targets(config["posexp"])]
    found: dict[str, str] = {}
    waiting = [MODELING, *parts]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module], imported = relative(module)
            waiting += imported
    # Files of which no line imports a name: those of components, and modules that are imported as a whole.
    lines = "".join(found.values())
    rest = [name for name in map(flat_name, sorted(found.keys() - {MODELING})) if f"from .{name} import" not in lines]
    found[MODELING] += "\n\n# The other files, in the form in which transformers finds what to copy.\n"
    found[MODELING] += "".join(f"from .{name} import __name__ as _  # noqa\n" for name in rest)
    return {f"{flat_name(module)}.py": text for module, text in found.items()}


def flat_name(module: str) -> str:
    """Return the name of a module's file in the folder, without .py."""
    return "modeling_posexp" if module == MODELING else module.replace(".", "_")


def file_of(module: str) -> Path | None:
    """Return the file of a module of posexp, None if there is no such module."""
    place = PACKAGE.joinpath(*(PLAIN if module == COMPONENTS else module).split(".")[1:])
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


@cache
def relative(module: str) -> tuple[str, tuple[str, ...]]:
    """Return the source of a module with relative imports of flat names, and the modules that it imports."""
    file = file_of(module)
    assert file is not None
    text = file.read_text()
    lines = text.splitlines(keepends=True)
    imported: list[str] = []
    for node in reversed(list(statements(ast.parse(text)))):
        new = []
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = file_of(f"{node.module}.{alias.name}") is not None
                source = f"{node.module}.{alias.name}" if whole else str(node.module)
                imported.append(source)
                place, name = (".", flat_name(source)) if whole else (f".{flat_name(source)}", alias.name)
                rename = f" as {alias.asname or alias.name}" if name != (alias.asname or alias.name) else ""
                new.append(f"{' ' * node.col_offset}from {place} import {name}{rename}\n")
        lines[node.lineno - 1 : node.end_lineno] = new
    return f"# posexp/{file.relative_to(PACKAGE)}\n" + "".join(lines), tuple(imported)


def statements(tree: ast.AST) -> Iterator[ast.ImportFrom | ast.If]:
    """Yield, in order, imports from posexp, and blocks that are for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        typing = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if typing or (isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "posexp"):
            yield node  # type: ignore[misc]
        else:
            yield from statements(node)
