"""The command posexp-lm-eval: lm-evaluation-harness with the model `posexp`, which it cannot find by itself."""

import importlib.util
import sys

from posexp.errors import PosexpError


def main() -> None:
    """Register the model and run the harness. A mistake in the run ends in one line."""
    if importlib.util.find_spec("lm_eval") is None:
        sys.exit("posexp-lm-eval: lm-evaluation-harness is missing: pip install 'posexp[lm-eval]'")
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    model_registry.register("posexp", target="posexp.hf.harness:Harness")
    try:
        cli_evaluate()
    except PosexpError as error:
        sys.exit(f"posexp-lm-eval: {error}")


if __name__ == "__main__":
    main()
