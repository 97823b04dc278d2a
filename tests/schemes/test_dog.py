"""The dog experiment: in `the dog chased another dog`, what tells one dog from the other?

Shape suffixes: B batch, T tokens, H heads, C channels of a head, D width of the residual stream.
"""

import pytest
import torch
from support.contract import VOCAB, decoder, dims, hidden
from torch import Tensor

from posexp.config.sections import config_dir
from posexp.model.decoder import Decoder
from posexp.schemes import build_scheme

THE, DOG, CHASED, ANOTHER = 1, 2, 3, 4
SENTENCE = torch.tensor([[THE, DOG, CHASED, ANOTHER, DOG]])
SCHEMES = sorted(path.stem for path in (config_dir() / "scheme").glob("*.yaml"))


def unmasked(model: Decoder, tokens_BT: Tensor) -> Tensor | None:
    """One block's output with every token seeing every other; None for schemes that cannot be had without the mask."""
    root, scheme = model.scheme, model.scheme.layer(0)
    torch.manual_seed(0)
    pos_BT = root.positions(1, tokens_BT.shape[1], torch.device("cpu"))
    x_BTD = root.embed(model.embedding(tokens_BT) / 0.02, pos_BT)
    block = model.blocks[0]
    q_BHTC, k_BHTC, v_BHTC = block.attention.project(block.norm_attention(x_BTD))
    C = q_BHTC.shape[-1]
    q, k = scheme.rotate(q_BHTC, k_BHTC, pos_BT)
    if scheme.attend(q, k, v_BHTC, pos_BT, x_BTD, model.window) is not None:
        return None
    logits_BHTT = q @ k.mT * C**-0.5
    gap_BTT = (pos_BT[:, :, None] - pos_BT[:, None, :]).abs()
    by_distance = scheme.distance_bias(gap_BTT.flatten())
    by_position = scheme.bias(pos_BT, pos_BT)
    if by_distance is not None:
        logits_BHTT = logits_BHTT + by_distance.view(-1, *gap_BTT.shape[1:])
    elif by_position is not None:
        logits_BHTT = logits_BHTT + by_position
    mixed_BTD = (logits_BHTT.softmax(-1) @ v_BHTC).transpose(1, 2).flatten(2)
    x_BTD = x_BTD + block.attention.out(mixed_BTD)
    return x_BTD + block.mlp(block.norm_mlp(x_BTD))


def between_dogs(x_BTD: Tensor) -> float:
    return float((x_BTD[0, 1] - x_BTD[0, 4]).abs().max())


def test_without_positions_and_mask_both_dogs_are_one() -> None:
    with torch.no_grad():
        plain_BTD = unmasked(decoder(lambda dims: build_scheme("none", dims), n_layer=1), SENTENCE)
    assert plain_BTD is not None and between_dogs(plain_BTD) < 1e-6


@pytest.mark.parametrize("name", [name for name in SCHEMES if build_scheme(name, dims()).reads_positions])
def test_each_scheme_tells_them_apart(name: str) -> None:
    model = decoder(lambda dims: build_scheme(name, dims), n_layer=1)
    with torch.no_grad():
        x_BTD = unmasked(model, SENTENCE)
    if x_BTD is not None:
        assert between_dogs(x_BTD) > 1e-4
        return
    # What these schemes count, they count along the mask. So: who bit whom? The last token sees the same words.
    dog, man, bites, so = 2, 5, 6, 7
    ends_BD = [hidden(model, torch.tensor([[*words, so]]))[:, -1] for words in ((dog, bites, man), (man, bites, dog))]
    assert float((ends_BD[0] - ends_BD[1]).abs().max()) > 1e-4
    none = decoder(lambda dims: build_scheme("none", dims), n_layer=1)
    ends_BD = [hidden(none, torch.tensor([[*words, so]]))[:, -1] for words in ((dog, bites, man), (man, bites, dog))]
    assert float((ends_BD[0] - ends_BD[1]).abs().max()) < 1e-5


def test_the_mask_alone_tells_them_apart_too() -> None:
    """Which is why a decoder can do without positions (Haviv et al. 2022, arXiv 2203.16634)."""
    model = decoder(lambda dims: build_scheme("none", dims), n_layer=1)
    assert between_dogs(hidden(model, SENTENCE)) > 1e-3
    assert max(THE, DOG, CHASED, ANOTHER) < VOCAB
