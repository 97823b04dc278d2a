"""The source text of the running Python's standard library: a real corpus on every machine."""

import hashlib
import os
import sysconfig
import tokenize
from pathlib import Path

from posexp.errors import Misuse

# Many distributions strip the tests; the other folders are installed packages, tables or generated code.
EXCLUDED_FOLDERS = {
    "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings", "pydoc_data",
}  # fmt: skip


def find_files(root: Path | None = None) -> list[Path]:
    """Return the library's .py files, sorted by name. Raises Misuse if there are none."""
    root = root or Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in EXCLUDED_FOLDERS]
        found += [
            Path(folder, name) for name in names if name.endswith(".py") and not name.startswith("_sysconfigdata")
        ]
    if not found:
        raise Misuse(f"no .py files in {root}: this Python's standard library is frozen or zipped; use data=files")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def read_stdlib(root: Path | None = None) -> list[str]:
    """Return one text per file, without empty files and exact duplicates."""
    texts: dict[str, None] = {}
    for path in find_files(root):
        try:
            with tokenize.open(path) as file:
                text = file.read()
        except (SyntaxError, UnicodeDecodeError):  # lib2to3 and distributions have test files in odd encodings
            continue
        if text:
            texts[text] = None
    return list(texts)


def stdlib_content(root: Path | None = None) -> str:
    """Return the sha256 of names and contents."""
    root = root or Path(sysconfig.get_path("stdlib"))
    digest = hashlib.sha256()
    for path in find_files(root):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()
