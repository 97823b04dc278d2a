"""Writes posexp/check/authors/*.json: numbers computed by other people's code, for posexp's schemes to be held against.

    pip install --no-deps --target /tmp/peers torchscale transformers rotary-embedding-torch x-transformers \
        PoPE-pytorch torch-einops-utils flash-linear-attention fla-core einops einx frozendict loguru regex typer
    PYTHONPATH=/tmp/peers python -m scripts.freeze_authors

Only needed to add a scheme or to move to newer versions of those packages; none of them is a dependency of posexp.
Where no package exists, the wanted numbers are the paper's formula once more, in float64.
"""

from scripts.freeze_authors import biases, content, frequencies, rotations
from scripts.freeze_authors.common import write

if __name__ == "__main__":
    for makers in (rotations.MAKERS, biases.MAKERS, content.MAKERS, frequencies.MAKERS):
        for name, make in makers.items():
            write(name, make())
