"""A context without progress bars, logs and warnings of transformers and huggingface_hub."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence all logging, warnings and bars inside the block; transformers switches the bars of the hub too."""
    from transformers.utils import logging as bars

    drawn, level = bars.is_progress_bar_enabled(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
        if drawn:
            bars.enable_progress_bar()
