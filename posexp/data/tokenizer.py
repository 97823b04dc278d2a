"""The tokenizers: a byte-level BPE trained on the training split, single bytes, an external tokenizer.json, or none."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from posexp.data.files import file_digest
from posexp.data.readers import cause_line
from posexp.errors import Misuse
from posexp.storage import untrusted

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model

# GPT-2's pattern always starts a new word here, so no token spans this gap.
WORD_GAP = re.compile(r"(?<=\S) (?=\S)")

# Training a bpe splits longer words, because each merge moves the rest of a word. Ordinary text has no such words.
LONGEST_WORD = 4096  # bytes

PART = 1 << 22  # ids counted at once
Piece = tuple[np.ndarray, bool, int]  # ids [N], whether they end a document, UTF-8 bytes of their text

OWN = {"bpe", "bytes", "none"}
MAX_IDS = 1 << 24  # of a vocabulary; the largest known ones have a million tokens


def tokenizer_content(spec: str, vocab_size: int) -> list[str | int]:
    """Return what identifies the tokenizer, except the training text of a bpe. Raises Misuse for a missing file."""
    if spec in ("bpe", "none"):
        return [spec, vocab_size]
    if spec == "bytes":
        return ["bytes"]
    return ["file", file_digest(tokenizer_path(spec)), *(f"{key} {text}" for key, text in marks(spec).items())]


def tokenizer_path(spec: str) -> Path:
    """Return the tokenizer.json of a file or folder. Raises Misuse if there is none."""
    path = Path(spec).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return file
    if path.is_dir():
        remedy = "save_pretrained of transformers.AutoTokenizer, loaded from that folder, writes one"
        raise Misuse(f"data.tokenizer={spec} holds no tokenizer.json: {remedy}")
    known = "neither bpe nor bytes, nor a tokenizer.json or its folder"
    raise Misuse(f"data.tokenizer={spec} is {known}: there is no such file")


def marks(spec: str) -> dict[str, str]:
    """Return the tokens before and after each document, by their options in the folder's tokenizer_config.json."""
    path = Path(spec).expanduser() / "tokenizer_config.json"
    if spec in OWN or not path.is_file():
        return {}
    try:
        about = untrusted.parsed(untrusted.read_bytes(path))
        added = {key: about[f"{key}_token"] for key in ("bos", "eos") if about.get(f"add_{key}_token") is True}
        found = {key: token["content"] if isinstance(token, dict) else token for key, token in added.items()}
        if not all(isinstance(token, str) for token in found.values()):
            raise ValueError("a token must be text")
    except (OSError, ValueError, LookupError, AttributeError) as error:
        raise Misuse(f"{path} names no BOS and EOS token: {cause_line(error)}") from error
    return found


def mark_ids(spec: str, tokenizer: "Tokenizer") -> dict[str, int]:
    """Return the ids of `marks`. Raises Misuse for a token that the tokenizer does not have."""
    ids = {}
    for key, token in marks(spec).items():
        if (found := tokenizer.token_to_id(token)) is None:
            raise Misuse(f"data.tokenizer={spec}: its {key}_token {token!r} is not in its tokenizer.json")
        ids[key] = found
    return ids


def make(spec: str, vocab_size: int, texts: Iterable[str]) -> "Tokenizer":
    """Return the tokenizer that `spec` names, which adds no special tokens. Only a bpe reads `texts`."""
    if spec == "bpe":
        return learn_bpe(texts, vocab_size)
    if spec == "bytes":
        return single_bytes()
    if spec == "none":  # each token is the decimal number of its id, which stands in for an unknown tokenizer
        from tokenizers import Tokenizer, models

        return Tokenizer(models.WordLevel({str(value): value for value in range(vocab_size)}, unk_token="0"))
    return load_tokenizer(tokenizer_path(spec))


def learn_bpe(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Train a bpe deterministically, with fewer than `vocab_size` entries if the texts have too few pairs to merge."""
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
    # In pieces, because the trainer buffers 256 texts.
    tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer=trainer)
    tokenizer.pre_tokenizer = words
    return tokenizer


def single_bytes() -> "Tokenizer":
    """Return the tokenizer of 256 tokens, in which the id of a byte is its value."""
    from tokenizers import models

    return byte_level(models.BPE(vocab={char: value for value, char in enumerate(byte_chars())}, merges=[]))


def byte_level(model: "Model") -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def load_tokenizer(path: Path) -> "Tokenizer":
    """Load a tokenizer.json, without truncation, padding and dropout. Raises Misuse for an invalid file."""
    from tokenizers import Tokenizer

    with refused(f"{path} is not a tokenizer.json"):
        tokenizer = Tokenizer.from_buffer(untrusted.read_bytes(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        if not ids or max(ids) >= MAX_IDS:
            raise ValueError(f"its largest token id must be below {MAX_IDS}, got {max(ids, default='none')}")
    return tokenizer


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Raise Misuse that starts with `what` for any error in the block: tokenizers raises Exception, and panics."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise Misuse(f"{what}: {' '.join(str(error).split())[:200]}") from error
        raise


def byte_chars() -> list[str]:
    """Return the character of each byte in byte-level vocabularies. Printable characters represent themselves."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value if value in printable else next(others)) for value in range(256)]


def vocabulary_size(tokenizer: "Tokenizer") -> int:
    """Return the largest token id plus one."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def token_bytes(tokenizer: "Tokenizer") -> np.ndarray | None:
    """Return the UTF-8 bytes that each token adds to decoded text, int64 [V], 0 without one; None without a decoder."""
    from tokenizers import decoders

    decoder = tokenizer.decoder
    if decoder is None:
        return None
    known = set(byte_chars())

    def of_bytes(token: str) -> int:
        return len(token) if known.issuperset(token) else len(token.encode())

    def between_letters(token: str) -> int:
        text = decoder.decode(["a", token, "a"])
        lone_bytes = text.count("\ufffd") - token.count("\ufffd")  # each represents one byte, in three
        return max(0, len(text.encode()) - 2 * lone_bytes - len(decoder.decode(["a", "a"])))

    count = of_bytes if isinstance(decoder, decoders.ByteLevel) else between_letters
    added = tokenizer.get_added_tokens_decoder()
    counts_V = np.zeros(vocabulary_size(tokenizer), dtype=np.int64)
    with refused("the tokenizer's decoder fails"):
        for token, index in tokenizer.get_vocab(with_added_tokens=True).items():
            counts_V[index] = len(added[index].content.encode()) if index in added else count(token)
    return counts_V


def pieces(text: str, size: int = 1 << 16) -> Iterator[str]:
    """Yield pieces of about `size` characters. posexp's own tokenizers give the same tokens for them as for `text`."""
    first = 0
    while first + size < len(text):
        gap = WORD_GAP.search(text, first + size)
        if gap is None:
            break
        yield text[first : gap.start()]
        first = gap.start()
    yield text[first:]


def encode(tokenizer: "Tokenizer", texts: Iterable[str], divisible: bool, dtype: np.dtype) -> Iterator[Piece]:
    """Yield successive pieces of the texts as ids. If `divisible`, long texts are cut, which bounds memory."""
    batch: list[tuple[str, bool]] = []
    held = 0
    for text in texts:
        *early, last = pieces(text) if divisible else [text]
        for piece, ends in [*((piece, False) for piece in early), (last, True)]:
            batch.append((piece, ends))
            held += len(piece)
            if held >= 2 << 20:
                yield from encode_batch(tokenizer, batch, dtype)
                batch, held = [], 0
    yield from encode_batch(tokenizer, batch, dtype)


def encode_batch(tokenizer: "Tokenizer", batch: list[tuple[str, bool]], dtype: np.dtype) -> Iterator[Piece]:
    with refused("the tokenizer cannot encode the text"):
        encodings = tokenizer.encode_batch_fast([piece for piece, _ in batch], add_special_tokens=False)
    for (piece, ends), encoding in zip(batch, encodings, strict=True):
        yield np.array(encoding.ids, dtype), ends, len(piece.encode())


def ids_of(tokenizer: "Tokenizer", documents: Iterable[np.ndarray]) -> Iterator[Piece]:
    """Yield successive pieces of documents that are ids already."""
    counts_V = token_bytes(tokenizer)
    for ids_N in documents:
        for first in range(0, len(ids_N), PART):
            part = ids_N[first : first + PART]
            size = 0 if counts_V is None else int(counts_V[part].sum())
            yield part, first + PART >= len(ids_N), size
