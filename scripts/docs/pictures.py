"""docs/pictures/schemes/: a picture of each scheme by posexp inspect, from a tiny model trained on a CPU."""

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from posexp.dims import Dims
from posexp.schemes import build_scheme
from posexp.storage import atomic
from scripts.docs.common import DOCS, ROOT
from scripts.docs.schemes import files, label_of, picture_of

PLACE = DOCS / "pictures" / "schemes"
RESULTS = ROOT / "build" / "pictures"
OPTIONS = """model.d_model=64 model.n_layer=2 train.length=64 train.tokens=300_000 train.batch_tokens=1024
eval.targets=64 eval.controls=false
wandb.mode=disabled device=cpu"""
TEXT = "data.vocab_size=1024 eval.lengths=[64] eval.protocols=[same_targets]"
WIDTH, MOST = 840, 60_000  # pixels, and bytes of a picture


def draw(names: list[str]) -> None:
    """Train and inspect the schemes `names`, or all, and write their pictures. Trained runs stay in build/pictures."""
    chosen = [path for path in files("scheme") if not names or path.stem in names]
    where = [f"results={RESULTS}", "group=schemes"]
    digits = [path for path in chosen if build_scheme(path.stem, Dims(64, 4, 2, 64)).reads_text]
    for data, some in (
        ("data=addition", digits),
        ("data.vocab_size=1024", [path for path in chosen if path not in digits]),
    ):
        every = f"+scheme={','.join(path.stem for path in some)}"
        if some:
            posexp("train", "-m", every, *data.split(), *where, f"data.cache={RESULTS}/cache", *OPTIONS.split())
    runs = {path: run_of(path) for path in chosen}
    posexp("inspect", "--runs", ",".join(run.name for run in runs.values()), *where)
    PLACE.mkdir(parents=True, exist_ok=True)
    for path, run in runs.items():
        picture = (run / "inspect" / f"{picture_of(path)}.png").read_bytes()
        atomic.write_file(PLACE / f"{path.stem}.png", smaller(picture))


def run_of(scheme: Path) -> Path:
    (config,) = (RESULTS / "schemes").glob(f"{label_of(scheme)}-s0-*/config.yaml")
    return config.parent


def posexp(*words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "posexp", *words], cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def smaller(png: bytes) -> bytes:
    """Return the picture at most WIDTH pixels wide, with a palette of as many colours as MOST bytes allow."""
    from PIL import Image

    image = Image.open(BytesIO(png)).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    for colours in (256, 128, 64, 32):
        found = BytesIO()
        image.quantize(colours, kmeans=3, dither=Image.Dither.NONE).save(found, "PNG", optimize=True)
        if found.tell() <= MOST:
            break
    return found.getvalue()
