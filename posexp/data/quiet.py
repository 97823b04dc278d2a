"""The silencer of `datasets`, which otherwise draws progress bars, logs tracebacks and reports its use."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from posexp.storage.locks import NO_LOCKS

# Codes of an OSError about the folder that `datasets` writes to, not about its input.
UNUSABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS} | NO_LOCKS


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loggers and bars of datasets and huggingface_hub inside the block.

    Also disable the download counter of datasets, which takes ten seconds where names cannot be resolved.
    """
    import datasets

    loggers = [logging.getLogger("datasets"), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars, counts = datasets.is_progress_bar_enabled(), datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    except Exception as error:
        raise_disk_error(error)
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        if bars:
            datasets.enable_progress_bars()


def root(error: BaseException) -> BaseException:
    """Return the innermost cause of a wrapped error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def raise_disk_error(error: BaseException) -> None:
    """Raise the OSError inside a wrapped `error` if it means that `datasets` cannot write its files."""
    inner = root(error)
    if isinstance(inner, OSError) and inner.errno in UNUSABLE:
        raise inner
    if isinstance(inner, OSError) and "Not enough disk space" in str(inner):  # raised by `datasets` before writing
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


def datasets_reason(error: BaseException) -> str:
    """Return the innermost cause of a wrapped error, as one line of at most 300 characters."""
    inner = root(error)
    text = " ".join(str(inner).split()) or type(inner).__name__
    return text if len(text) <= 300 else text[:297] + "..."
