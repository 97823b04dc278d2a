"""A corpus as tokens: `load` gives the memory-mapped store of a DataConfig and builds it where there is none.

corpus (read by `datasets`) → tokenizer (`tokenizers`) → store (one folder, named by its content) → batch.
"""

from collections.abc import Callable

from posexp.config.sections import DataConfig
from posexp.data.load import find_or_build
from posexp.data.store import Store, Tokens
from posexp.output.console import say

__all__ = ["Store", "Tokens", "load"]


def load(config: DataConfig, say: Callable[[str], None] = say, trust: bool = True) -> Store:
    """The token store of `config`, verified; `say` is told in one line each what is built, repaired or waited for.

    Without `trust`, as for a configuration that may be somebody else's, text is only read within the bounds of
    posexp/data/bounds.py. Raises Misuse for text beyond them and for input that cannot be used as given, RunFailed
    where the disk gives out.
    """
    return find_or_build(config, say, trust)
