"""Tokenizers: a byte-level BPE learned on the training split, single bytes, or a tokenizer.json from elsewhere."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from posexp.data.files import file_digest
from posexp.errors import Misuse
from posexp.storage import untrusted

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model

# Here GPT-2's pattern always begins a new word, so that no token reaches across.
WORD_GAP = re.compile(r"(?<=\S) (?=\S)")

# Longer words are cut where a bpe learns: each merge moves the rest of its word. No ordinary text has such words.
LONGEST_WORD = 4096  # bytes

MOST_IDS = 1 << 24  # tokens of a vocabulary; the largest known ones have a million


def tokenizer_content(spec: str, vocab_size: int) -> list[str | int]:
    """What identifies the tokenizer, apart from the text a bpe learns on. Raises Misuse for a missing file."""
    if spec == "bpe":
        return ["bpe", vocab_size]
    if spec == "bytes":
        return ["bytes"]
    path = Path(spec).expanduser()
    if not path.is_file():
        raise Misuse(f"data.tokenizer={spec} is neither bpe nor bytes, nor a tokenizer.json: there is no such file")
    # Stores from before dropout was turned off hold what it drew.
    return ["file", file_digest(path), *(["without dropout"] if has_dropout(path) else [])]


def has_dropout(path: Path) -> bool:
    """Whether the tokenizer.json has BPE dropout, which splits the same text differently each time."""
    try:
        return bool(untrusted.parsed(untrusted.read_bytes(path))["model"].get("dropout"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # `load` says what is wrong with it
        return False


def make(spec: str, vocab_size: int, texts: Iterable[str]) -> "Tokenizer":
    """The tokenizer that `spec` names; `texts` are read only where it is learned. Adds no special tokens.

    Raises Misuse for a file that is not a tokenizer.
    """
    if spec == "bpe":
        return learn_bpe(texts, vocab_size)
    if spec == "bytes":
        return single_bytes()
    return load_tokenizer(Path(spec).expanduser())


def learn_bpe(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Deterministic; has fewer than `vocab_size` entries where the texts give no more pairs to merge."""
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    words = tokenizer.pre_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.FixedLength(LONGEST_WORD)])
    # In pieces, because the trainer holds 256 texts at a time.
    tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer=trainer)
    tokenizer.pre_tokenizer = words
    return tokenizer


def single_bytes() -> "Tokenizer":
    """256 tokens; a byte's id is its value."""
    from tokenizers import models

    return byte_level(models.BPE(vocab={char: value for value, char in enumerate(byte_chars())}, merges=[]))


def byte_level(model: "Model") -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def load_tokenizer(path: Path) -> "Tokenizer":
    """The tokenizer of a tokenizer.json, without truncation, padding and dropout. Raises Misuse if it is none."""
    from tokenizers import Tokenizer

    with refused(f"{path} is not a tokenizer.json"):
        tokenizer = Tokenizer.from_buffer(untrusted.read_bytes(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        if not ids or max(ids) >= MOST_IDS:
            raise ValueError(f"its largest token is {max(ids, default='none')}, of at most {MOST_IDS}")
    return tokenizer


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Raises Misuse, saying `what`, for whatever goes wrong inside: tokenizers raises plain Exception, and panics."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise Misuse(f"{what}: {' '.join(str(error).split())[:200]}") from error
        raise


def byte_chars() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies: printable ones for themselves."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value if value in printable else next(others)) for value in range(256)]


def vocabulary_size(tokenizer: "Tokenizer") -> int:
    """One more than the largest id."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def token_bytes(tokenizer: "Tokenizer") -> np.ndarray | None:
    """UTF-8 bytes that each token adds to decoded text, int64 [V]; None without a decoder, which alone can tell.

    An id without a token counts 0. Of text that was normalised, or that the vocabulary cannot hold in full, the tokens
    may add up to another number of bytes than the text has. Raises Misuse for a decoder that fails.
    """
    from tokenizers import decoders

    decoder = tokenizer.decoder
    if decoder is None:
        return None
    known = set(byte_chars())

    def of_bytes(token: str) -> int:
        return len(token) if known.issuperset(token) else len(token.encode())

    def between_letters(token: str) -> int:
        text = decoder.decode(["a", token, "a"])
        lone_bytes = text.count("\ufffd") - token.count("\ufffd")  # each stands for one byte, in three
        return max(0, len(text.encode()) - 2 * lone_bytes - len(decoder.decode(["a", "a"])))

    count = of_bytes if isinstance(decoder, decoders.ByteLevel) else between_letters
    added = tokenizer.get_added_tokens_decoder()
    counts_V = np.zeros(vocabulary_size(tokenizer), dtype=np.int64)
    with refused("the tokenizer's decoder fails"):
        for token, index in tokenizer.get_vocab(with_added_tokens=True).items():
            counts_V[index] = len(added[index].content.encode()) if index in added else count(token)
    return counts_V


def pieces(text: str, size: int = 1 << 16) -> Iterator[str]:
    """`text` in pieces of about `size` characters that posexp's own tokenizers encode as they would the whole."""
    first = 0
    while first + size < len(text):
        gap = WORD_GAP.search(text, first + size)
        if gap is None:
            break
        yield text[first : gap.start()]
        first = gap.start()
    yield text[first:]


def encode(tokenizer: "Tokenizer", texts: Iterable[str], divisible: bool) -> Iterator[tuple[np.ndarray, bool, int]]:
    """(ids int64 [N], whether they end a document, UTF-8 bytes) of successive pieces of the texts.

    `divisible` says that long texts may be encoded in `pieces`, which bounds memory.
    """
    batch: list[tuple[str, bool]] = []
    held = 0
    for text in texts:
        *early, last = pieces(text) if divisible else [text]
        for piece, ends in [*((piece, False) for piece in early), (last, True)]:
            batch.append((piece, ends))
            held += len(piece)
            if held >= 2 << 20:
                yield from encode_batch(tokenizer, batch)
                batch, held = [], 0
    yield from encode_batch(tokenizer, batch)


def encode_batch(tokenizer: "Tokenizer", batch: list[tuple[str, bool]]) -> Iterator[tuple[np.ndarray, bool, int]]:
    with refused("the tokenizer cannot encode the text"):
        encodings = tokenizer.encode_batch_fast([piece for piece, _ in batch], add_special_tokens=False)
    for (piece, ends), encoding in zip(batch, encodings, strict=True):
        yield np.array(encoding.ids, dtype=np.int64), ends, len(piece.encode())
