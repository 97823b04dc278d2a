"""The bridge to Hugging Face: the evaluation of external checkpoints, and the export of runs as checkpoints.

source (files) → tokens (tokenizer) → model (causal LM in two steps) → changes (windows, frequencies) → subject.
transformers is an extra, `pip install 'posexp[hf]'`. No other folder imports transformers, and the export needs none.
"""

from typing import TYPE_CHECKING

from posexp.config.commands import CheckCommand, EvalCommand
from posexp.errors import Misuse

if TYPE_CHECKING:
    from posexp.runs.run import Run


def evaluate_checkpoint(command: EvalCommand) -> "Run":
    """Measure the checkpoint that `command.hf` names, and return its run; existing rows are reused."""
    from posexp.evaluation.evaluate import evaluate_subject, waiting_for
    from posexp.evaluation.plan import check_protocols
    from posexp.model import cpu
    from posexp.model.device import choose_device
    from posexp.runs.loggers import check_loggers

    check_loggers(command.loggers)
    check_protocols(command.eval.get("protocols") or [])
    device = choose_device(command.device)
    cpu.prepare()
    check_installed()
    from posexp.hf.subject import Checkpoint

    subject = Checkpoint(command, device)
    with subject.run.measuring(waiting_for(subject.run)):
        evaluate_subject(subject, command, device)
    return subject.run


def check_checkpoint(command: CheckCommand) -> None:
    """Print whether what a checkpoint declares of positions has an effect. Raises RunFailed if something has none."""
    check_installed()
    from posexp.hf.declared import check_declared

    check_declared(command)


def check_installed() -> None:
    """Raise Misuse without transformers."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise Misuse("hf=… needs transformers: pip install 'posexp[hf]'") from error
