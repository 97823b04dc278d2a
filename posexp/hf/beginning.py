"""The special token that begins a text: which one a checkpoint's tokenizer adds by itself, and which ones it has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posexp.config.sections import Bos
from posexp.data import tokenizer
from posexp.errors import Misuse
from posexp.hf.quiet import quiet
from posexp.hf.source import Source
from posexp.storage.untrusted import visible

TRIED = "a"  # any text


@dataclass(frozen=True)
class Beginning:
    """`bos`: the token that the model reads in place of the first of every window, None to leave the text as it is;
    `text`: that token as text, "" without one; `prefix`: BOS or else EOS, which lm-evaluation-harness reads a document
    behind, None where the tokenizer has neither; `line`: what the user is told."""

    bos: int | None
    text: str
    prefix: int | None
    line: str


def beginning(source: Source, path: Path, asked: Bos, trust: bool) -> Beginning:
    """What windows begin with; `path` is the tokenizer.json that the text is tokenized with.

    Raises Misuse if a beginning token is asked for and the tokenizer has none.
    """
    own = tokenizer.load_tokenizer(path)
    added, bos, eos = (own.token_to_id(name) if name else None for name in names(source, own, trust))
    known = added if added is not None else bos
    prefix = known if known is not None else eos
    if asked is Bos.true and known is None:
        raise Misuse(f"hf.bos=true: the tokenizer of hf={source.given} has no beginning token (BOS); leave hf.bos out")
    chosen = {Bos.auto: added, Bos.true: known, Bos.false: None}[asked]
    text = "" if chosen is None else visible(str(own.id_to_token(chosen)))
    why = {Bos.auto: "as the tokenizer does it", Bos.true: "hf.bos=true", Bos.false: "hf.bos=false"}[asked]
    line = f"every window begins with the special token {text} (BOS)" if text else "windows begin without a BOS"
    return Beginning(chosen, text, prefix, f"hf={source.given}: {line}, {why}")


def names(source: Source, own: Any, trust: bool) -> tuple[str | None, str | None, str | None]:
    """(token that begins every text, BOS, EOS) of the tokenizer as transformers loads it; None for what it has not.

    Where transformers cannot load the tokenizer, tokenizer.json alone says which token begins a text.
    """
    from transformers import AutoTokenizer

    try:
        with quiet(), tokenizer.refused("transformers cannot load the tokenizer"):
            made = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust, local_files_only=True)
            added, plain = (made(TRIED, add_special_tokens=special)["input_ids"] for special in (True, False))
            first = str(made.convert_ids_to_tokens(added[0])) if begins(added, plain) else None
            return first, made.bos_token, made.eos_token
    except Misuse:
        with tokenizer.refused(f"hf={source.given}: its tokenizer cannot encode text"):
            added, plain = (own.encode(TRIED, add_special_tokens=special).ids for special in (True, False))
        return (own.id_to_token(added[0]) if begins(added, plain) else None), None, None


def begins(added: list[int], plain: list[int]) -> bool:
    """Whether `added`, the tokens of a text with special ones, has one more in front than `plain`, those without."""
    return len(added) > len(plain) and added[1 : len(plain) + 1] == plain
