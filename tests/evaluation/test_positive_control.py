"""The positive control: a model that uses its context is found to use it, and one whose text has none is not."""

from pathlib import Path

import numpy as np
import pytest
from support.command import here

from posexp.evaluation.contrasts import Pairs
from posexp.evaluation.group import load_group

LENGTH, JUDGED = 128, 8
SMALL = ("model=tiny", "model.d_model=32", "model.n_head=2", "model.n_layer=2", "data.tokenizer=bytes", "device=cpu")


def write_texts(folder: Path, documents: int, own: bool) -> None:
    """Write documents of random letters. With `own`, each document has its own frequencies, which context reveals."""
    rng = np.random.default_rng(0)
    common = rng.dirichlet(np.full(16, 0.5))
    folder.mkdir()
    for index in range(documents):
        shares = rng.dirichlet(np.full(16, 0.5)) if own else common
        (folder / f"{index:03d}.txt").write_text("".join(rng.choice(list("abcdefghijklmnop"), 1200, p=shares)))


def words_of(folder: Path, own: bool) -> dict[int, str]:
    """Train three seeds, judge them as if trained at JUDGED tokens, and return the verdicts by length."""
    write_texts(folder / "text", 200, own)
    train = (
        "train",
        "-m",
        "+scheme=alibi",
        "seed=0,1,2",
        *SMALL,
        "data=files",
        "data.paths=text",
        "wandb.mode=disabled",
    )
    train += (f"train.length={LENGTH}", "train.tokens=400000", "train.batch_tokens=2048", "train.lr=1e-2")
    measure = ("eval.protocols=[same_targets]", "eval.targets=1024")
    assert here(*train, *measure, f"eval.lengths=[{LENGTH}]", cwd=folder).code == 0
    answer = here("eval", "--lengths", "16,32,64,128", *measure, f"eval.judged_from={JUDGED}", cwd=folder)
    assert answer.code == 0, answer.err
    group = load_group(str(folder / "results"), "default", "*", print)
    verdicts = Pairs(group.rows, group.curve_of, group.recipe_of).verdicts()
    return {verdict.place.length: verdict.word for verdict in verdicts if "judged from" in verdict.place.curve}


@pytest.mark.slow
@pytest.mark.parametrize(("own", "word"), [(True, "uses"), (False, "unchanged")])
def test_use_of_context_is_found_where_there_is_some_and_nowhere_else(tmp_path: Path, own: bool, word: str) -> None:
    assert words_of(tmp_path, own) == dict.fromkeys((16, 32, 64, 128), word)
