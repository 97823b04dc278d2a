"""The corpus as tokens.

corpus (read by `datasets`) → tokenizer (`tokenizers`) → store (one folder, named by its content) → sampler.
"""

from posexp.data.store import Store, Tokens

__all__ = ["Store", "Tokens"]
