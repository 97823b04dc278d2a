"""Hugging Face: checkpoints of others as something to evaluate, and posexp's own runs as checkpoints for others.

source (where the files are) → model (a causal LM in two steps) → changes (windows, rotary frequencies) → subject.
transformers is an extra, `pip install 'posexp[hf]'`, and imported nowhere else; export needs none.
"""

from typing import TYPE_CHECKING

from posexp.config.commands import EvalCommand
from posexp.errors import Misuse

if TYPE_CHECKING:
    import torch

    from posexp.hf.subject import Checkpoint


def open_checkpoint(command: EvalCommand, device: "torch.device") -> "Checkpoint":
    """The checkpoint that `command.hf` names, ready to be evaluated on `device`.

    Raises Misuse if it cannot be loaded, is no causal language model, or transformers is not installed.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise Misuse("hf=… needs transformers: pip install 'posexp[hf]'") from error
    from posexp.hf.subject import Checkpoint

    return Checkpoint(command, device)
