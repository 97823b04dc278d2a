"""posexp: how decoder language models trained on short sequences behave on longer ones, scheme by scheme.

The functions are those of posexp/api.py, imported when they are first used, as `import posexp` must stay fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posexp.api import evaluate, load, losses, plot, rows, train

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load", "losses", "plot", "rows", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'posexp' has no attribute {name!r}")
    from posexp import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
