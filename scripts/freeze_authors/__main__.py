"""The writer of posexp/check/authors/*.json: reference numbers from published code, to check posexp's schemes.

    pip install --no-deps --target /tmp/peers torchscale transformers rotary-embedding-torch x-transformers \
        PoPE-pytorch torch-einops-utils flash-linear-attention fla-core einops einx frozendict loguru regex typer
    PYTHONPATH=/tmp/peers python -m scripts.freeze_authors

It is only needed to add a scheme or to use newer versions of those packages, which are no dependencies of posexp.
Without a package, the wanted numbers are an independent float64 implementation of the paper's formula.
"""

from scripts.freeze_authors import biases, content, frequencies, recent, rotations, temperatures
from scripts.freeze_authors.common import write

if __name__ == "__main__":
    modules = (rotations, biases, content, recent, frequencies, temperatures)
    for makers in (module.MAKERS for module in modules):
        for name, make in makers.items():
            write(name, make())
