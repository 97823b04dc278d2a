"""The beginning token of a checkpoint: the special token that its tokenizer adds in front of a text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posexp.config.sections import Bos
from posexp.data import tokenizer
from posexp.errors import Misuse
from posexp.hf.quiet import quiet
from posexp.hf.source import Source
from posexp.storage.untrusted import visible

SAMPLE = "a"  # any text


@dataclass(frozen=True)
class Beginning:
    """The beginning token of every input.

    `bos` is the token that replaces the first of every input, None for none, and `text` its text, "" for none.
    `prefix` is the token that the protocol `rolling` puts before a document: BOS or else EOS, None if the tokenizer has
    neither. `line` is the log line.
    """

    bos: int | None
    text: str
    prefix: int | None
    line: str


def beginning(source: Source, path: Path, requested: Bos, trust: bool) -> Beginning:
    """Return the beginning of inputs; `path` is the tokenizer.json of the text.

    Raises Misuse if a beginning token is requested and the tokenizer has none.
    """
    own = tokenizer.load_tokenizer(path)
    added, bos, eos = (own.token_to_id(name) if name else None for name in names(source, own, trust))
    known = added if added is not None else bos
    prefix = known if known is not None else eos
    if requested is Bos.true and known is None:
        raise Misuse(f"hf.bos=true: the tokenizer of hf={source.given} has no beginning token (BOS); leave hf.bos out")
    chosen = {Bos.auto: added, Bos.true: known, Bos.false: None}[requested]
    text = "" if chosen is None else visible(str(own.id_to_token(chosen)))
    why = {Bos.auto: "the default of the tokenizer", Bos.true: "hf.bos=true", Bos.false: "hf.bos=false"}[requested]
    line = f"every input begins with the special token {text} (BOS)" if text else "inputs begin without a BOS"
    return Beginning(chosen, text, prefix, f"hf={source.given}: {line}, {why}")


def names(source: Source, own: Any, trust: bool) -> tuple[str | None, str | None, str | None]:
    """Return (token that begins every text, BOS, EOS) of the tokenizer in transformers, None for a missing token.

    If transformers cannot load the tokenizer, tokenizer.json determines the first, and BOS and EOS are None.
    """
    from transformers import AutoTokenizer

    try:
        with quiet(), tokenizer.refused("transformers cannot load the tokenizer"):
            made = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust, local_files_only=True)
            added, plain = (made(SAMPLE, add_special_tokens=special)["input_ids"] for special in (True, False))
            first = str(made.convert_ids_to_tokens(added[0])) if begins(added, plain) else None
            return first, made.bos_token, made.eos_token
    except Misuse:
        with tokenizer.refused(f"hf={source.given}: its tokenizer cannot encode text"):
            added, plain = (own.encode(SAMPLE, add_special_tokens=special).ids for special in (True, False))
        return (own.id_to_token(added[0]) if begins(added, plain) else None), None, None


def begins(added: list[int], plain: list[int]) -> bool:
    """Return whether `added` (a text with special tokens) has one token in front of `plain` (the text without)."""
    return len(added) > len(plain) and added[1 : len(plain) + 1] == plain
