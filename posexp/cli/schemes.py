"""The posexp schemes command, which lists the components in configs/ and in --config-dir."""

from pathlib import Path
from textwrap import shorten

from rich.text import Text

from posexp.config.components import folders_of, read_options
from posexp.config.reading import SchemesCommand
from posexp.errors import Misuse, did_you_mean
from posexp.output.console import console
from posexp.output.grid import Grid

KINDS = {
    "scheme": "Positional schemes: +scheme=<name>",
    "window": "Windows, in training and evaluation: window=<name>",
    "temperature": "Temperatures, from training on: temperature=<name>",
    "mixer": "Layers in the place of attention, from training on: mixer=<name>",
    "transform": "Transforms, at evaluation: +transform=<name>",
    "model": "Models: model=<name>",
}
HOOKS = ("positions", "embed", "rotate", "distance_bias", "bias", "attend", "layer")


def print_schemes(command: SchemesCommand) -> None:
    """Print a line for each component in KINDS, from its YAML, or all details of those in `command.components`."""
    screen = console()
    found = {kind: [path for folder in folders_of(kind) for path in folder.glob("*.yaml")] for kind in KINDS}
    there = {kind: sorted(paths, key=lambda path: path.stem) for kind, paths in found.items()}
    if not command.components:
        for kind, title in KINDS.items():
            width = max(len(path.stem) for path in there[kind])
            screen.print(Text(title, style="bold"))
            for path in there[kind]:
                screen.print(Text(f"  {path.stem:<{width}}  {fitted(about(path), screen.width - width - 4)}"))
        screen.print(Text("posexp schemes <name> … prints the options of each"))
        return
    every = list(dict.fromkeys(path.stem for paths in there.values() for path in paths))
    for name in command.components:
        if name not in every:
            raise Misuse(f"nothing is called {name!r}{did_you_mean(name, every)}; posexp schemes lists all")
        for kind, path in ((kind, path) for kind, paths in there.items() for path in paths if path.stem == name):
            known = {"description": about(path), **details(kind, path)}
            Grid((kind, name), [[key, value] for key, value in known.items() if value]).show(screen)


def fitted(text: str, width: int) -> str:
    """Shorten `text` to `width`: drop its last parts, which are sources, then words."""
    parts = text.split(" · ")
    whole = [joined for n in range(len(parts), 0, -1) if len(joined := " · ".join(parts[:n])) <= width]
    return whole[0] if whole else shorten(parts[0], width, placeholder=" …")


def details(kind: str, path: Path) -> dict[str, str]:
    """Return the options with their defaults, and the hooks and promises of a scheme. An inner part is its class."""
    node = read_options(path)
    shown = {
        key: inner["_target_"].rpartition(".")[2] if isinstance(inner, dict) else inner for key, inner in node.items()
    }
    options = {"options": ", ".join(f"{key}={value}" for key, value in shown.items() if key != "_target_")}
    if kind != "scheme":
        return options
    from posexp.dims import Dims
    from posexp.schemes import Scheme, from_config

    scheme = from_config(node, Dims(d_model=128, n_head=4, n_layer=2, train_length=128))
    promises = {
        "relative": scheme.relative,
        "no positions": not scheme.reads_positions,
        "not prefix-stable": not scheme.prefix_stable,
        f"ends at {scheme.max_length} if trained at 128": scheme.max_length is not None,
    }
    parts = (scheme, scheme.layer(0))  # the scheme, or that of its first block, overrides a hook
    hooks = [hook for hook in HOOKS if any(getattr(type(part), hook) is not getattr(Scheme, hook) for part in parts)]
    return {
        "hooks": ", ".join(hooks),
        "promises": ", ".join(name for name, true in promises.items() if true),
        **options,
    }


def about(path: Path) -> str:
    """Return the first comment of a YAML file."""
    comments = [line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
    return comments[0].removeprefix("# ") if comments else ""
