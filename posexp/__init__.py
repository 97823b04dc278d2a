"""posexp: how decoder language models trained on short sequences behave on longer ones, scheme by scheme."""

__version__ = "0.1.0"
