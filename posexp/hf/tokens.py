"""The tokenizer of a checkpoint, and the special token that it adds in front of a text."""

import hashlib
from pathlib import Path
from typing import Any

from posexp.config.sections import Bos
from posexp.data import tokenizer
from posexp.data.tokenizer import refused
from posexp.errors import Misuse
from posexp.hf.quiet import quiet
from posexp.hf.source import Source
from posexp.output.console import say
from posexp.storage import atomic
from posexp.storage.untrusted import visible

SAMPLE = "a"  # any text


def tokenizer_file(source: Source, cache: Path, trust: bool) -> Path:
    """Return the tokenizer.json of a checkpoint, or a file in `cache` that other tokenizer files are converted into."""
    own = source.folder / "tokenizer.json"
    if own.is_file():
        return own
    from transformers import AutoTokenizer

    with refused(f"hf={source.given} has no tokenizer.json, and its files cannot be converted to one"), quiet():
        made = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust, local_files_only=True)
        text = made.backend_tokenizer.to_str(pretty=True)
    path = cache / "tokenizers" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.is_file():
        try:
            atomic.write_all(path.parent, {path.name: text})
        except OSError as error:
            raise Misuse(
                f"cannot write to {path.parent}: {error.strerror}; choose another folder with cache=…"
            ) from error
    return path


def beginning(source: Source, path: Path, requested: Bos, trust: bool) -> tuple[int | None, str, int | None]:
    """Return (BOS, its text, prefix) for a tokenizer.json, and log the first.

    BOS is the token that replaces the first of every input, None for none, whose text is "". `prefix` is the token that
    the protocol `rolling` puts before a document: BOS or else EOS, None if the tokenizer has neither. Raises Misuse if
    a beginning token is requested that the tokenizer lacks.
    """
    own = tokenizer.load_tokenizer(path)
    added, bos, eos = (own.token_to_id(name) if name else None for name in special_tokens(source, own, trust))
    known = added if added is not None else bos
    if requested is Bos.true and known is None:
        raise Misuse(f"hf.bos=true: the tokenizer of hf={source.given} has no beginning token (BOS); leave hf.bos out")
    chosen = {Bos.auto: added, Bos.true: known, Bos.false: None}[requested]
    text = "" if chosen is None else visible(str(own.id_to_token(chosen)))
    line = f"every input begins with the special token {text} (BOS)" if text else "inputs begin without a BOS"
    why = "the default of the tokenizer" if requested is Bos.auto else f"hf.bos={requested.value}"
    say(f"hf={source.given}: {line}, {why}")
    return chosen, text, known if known is not None else eos


def special_tokens(source: Source, own: Any, trust: bool) -> tuple[str | None, ...]:
    """Return (token that begins every text, BOS, EOS), the last two None without the tokenizer in transformers."""
    from transformers import AutoTokenizer

    try:
        with quiet(), refused("transformers cannot load the tokenizer"):
            made = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust, local_files_only=True)
            added, plain = (made(SAMPLE, add_special_tokens=special)["input_ids"] for special in (True, False))
            first, known = str(made.convert_ids_to_tokens(added[0])), (made.bos_token, made.eos_token)
    except Misuse:
        with refused(f"hf={source.given}: its tokenizer cannot encode text"):
            added, plain = (own.encode(SAMPLE, add_special_tokens=special).ids for special in (True, False))
            first, known = own.id_to_token(added[0]), (None, None)
    begins = len(added) > len(plain) and added[1 : len(plain) + 1] == plain
    return (first if begins else None), *known
