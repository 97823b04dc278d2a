"""Schemes that read content, compared by the output of attention.

Shape suffixes: B batch (one), H heads, T tokens, Q query tokens, K key tokens, C channels of a head, D width of the
residual stream, P entries of a table, R rank, W width of an MLP.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.freeze_authors.common import Makers, case, drawn, lone_module, of

H, T, C = 2, 12, 4
D = H * C
FUTURE_TT = torch.ones(T, T, dtype=torch.bool).triu(1)
Q_HTC, K_HTC, V_HTC, X_TD = (drawn(*shape, seed=20 + i) for i, shape in enumerate([(H, T, C)] * 3 + [(T, D)]))


def attend_case(source: str, wanted_HTC: Tensor, **rest: Any) -> dict[str, Any]:
    inputs = {"q": Q_HTC, "k": K_HTC, "v": V_HTC, "x": X_TD}
    return case("attend", source, inputs, wanted_HTC, d_model=D, n_head=H, tolerance=1e-5, **rest)


def with_bias(bias_HTT: Tensor) -> Tensor:
    """Return causal softmax attention with a bias in float64, [H, T, C]."""
    logits_HTT = Q_HTC.double() @ K_HTC.double().transpose(-1, -2) * C**-0.5 + bias_HTT
    return logits_HTT.masked_fill(FUTURE_TT, -torch.inf).softmax(-1) @ V_HTC.double()


def heads_last(x_HTC: Tensor) -> Tensor:
    """Return [1, T, H, C], the layout of fla."""
    return x_HTC.transpose(0, 1)[None]


def gate_weights(seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    weight_HD, bias_H = drawn(H, D, seed=seed, scale=0.5), drawn(H, seed=seed + 1)
    return weight_HD, bias_H, {"layers.0.gate.weight": weight_HD, "layers.0.gate.bias": bias_H}


def fox_fla() -> dict[str, Any]:
    naive = lone_module("fla", "ops/forgetting_attn/naive.py")
    weight_HD, bias_H, weights = gate_weights(30)
    gate_1TH = F.logsigmoid(F.linear(X_TD, weight_HD, bias_H))[None]
    out_1THC = naive.naive_forgetting_attn(*map(heads_last, (Q_HTC, K_HTC, V_HTC)), gate_1TH)
    source = of("flash-linear-attention", "ops/forgetting_attn/naive.py, gates as in layers/forgetting_attn.py")
    return attend_case(source, out_1THC[0].transpose(0, 1), weights=weights)


def fox_x_transformers() -> dict[str, Any]:
    from x_transformers.x_transformers import DataDependentAlibi

    weight_HD, bias_H, weights = gate_weights(32)
    module = DataDependentAlibi(D, H)
    with torch.no_grad():
        module.to_forget_gates[0].weight.copy_(weight_HD)
        module.to_forget_gates[0].bias.copy_(bias_H)
        bias_HTT = module(X_TD[None])[0]
    return attend_case(of("x-transformers", "DataDependentAlibi"), with_bias(bias_HTT), weights=weights)


def cable() -> dict[str, Any]:
    weight_HD, bias_H, weights = gate_weights(34)
    step_TH = -torch.log(1 + torch.exp(X_TD.double() @ weight_HD.double().T + bias_H))
    sum_HT = step_TH.cumsum(0).T
    source = "formula of arXiv 2503.08067 (CABLE), as in axiomlab/Cable, src/Cable.py; logits scaled"
    return attend_case(source, with_bias(sum_HT[:, :, None] - sum_HT[:, None]), weights=weights)


def cope(max_pos: int) -> dict[str, Any]:
    """Return a case of CoPE. The input reaches max_pos=4 early and max_pos=64 never."""
    from x_transformers.attend import Attend
    from x_transformers.x_transformers import CoPE

    table_PC = drawn(max_pos, C, seed=36)
    module = CoPE(C, H, max_pos)
    with torch.no_grad():
        module.pos_emb.copy_(table_PC)
        attend = Attend(causal=True, heads=H, scale=C**-0.5, cope=module)
        out_1HTC, _ = attend(Q_HTC[None], K_HTC[None], V_HTC[None])
    source = of("x-transformers", "CoPE")
    options, weights = {"max_pos": max_pos}, {"layers.0.table_PC": table_PC}
    return attend_case(source, out_1HTC[0], options=options, weights=weights)


def dape(options: dict[str, Any], bias_HTT: Tensor, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Return a case of DAPE over a bias by distance."""
    W = 32
    first_WG, bias_W = drawn(W, 2 * H, seed=40, scale=0.5), drawn(W, seed=41, scale=0.5)
    last_HW, bias_H = drawn(H, W, seed=42, scale=0.5), drawn(H, seed=43, scale=0.5)
    content_HTT = Q_HTC.double() @ K_HTC.double().transpose(-1, -2) * C**-0.5
    both_TTG = torch.cat((content_HTT, bias_HTT.double())).movedim(0, -1)
    hidden_TTW = both_TTG @ first_WG.double().T + bias_W
    hidden_TTW = torch.where(hidden_TTW > 0, hidden_TTW, 0.01 * hidden_TTW)
    extra_HTT = (hidden_TTW @ last_HW.double().T + bias_H).movedim(-1, 0)
    mlp = dict(zip(("0.weight", "0.bias", "2.weight", "2.bias"), (first_WG, bias_W, last_HW, bias_H), strict=True))
    return attend_case(
        "formula of arXiv 2405.14722 (DAPE), MLP as in chuanyang-Zheng/DAPE",
        with_bias(bias_HTT + extra_HTT),
        options=options,
        weights={**{f"layers.0.mlp.{name}": value for name, value in mlp.items()}, **weights},
    )


def gap() -> Tensor:
    """Return distances to earlier tokens, and 0 for later ones, [T, T]."""
    index_T = torch.arange(T)
    return (index_T[:, None] - index_T).clamp(min=0).double()


def dape_alibi() -> dict[str, Any]:
    slope_H = torch.tensor([2.0 ** (-8 * h / H) for h in range(1, H + 1)])
    return dape({"inner": "alibi"}, -slope_H[:, None, None] * gap(), {})


def dape_kerple() -> dict[str, Any]:
    r1_H, r2_H = torch.tensor([0.5, 1.5]), torch.tensor([0.8, 0.1])
    bias_HTT = -r1_H[:, None, None].double() * torch.log(1 + r2_H[:, None, None].double() * gap())
    return dape({"inner": "kerple_log"}, bias_HTT, {"inner.r1_H": r1_H, "inner.r2_H": r2_H})


def dape_v2() -> dict[str, Any]:
    """Return a case of a kernel of 3. Columns of keys that do not follow stand for those of a longer input."""
    W, kernel, more = 32, 3, 2
    first_WG3, bias_W = drawn(W, 2 * H, kernel, seed=44, scale=0.5), drawn(W, seed=45, scale=0.5)
    last_HW3, bias_H = drawn(H, W, kernel, seed=46, scale=0.5), drawn(H, seed=47, scale=0.5)
    slope_H = torch.tensor([2.0 ** (-8 * h / H) for h in range(1, H + 1)])
    bias_HTT = -slope_H[:, None, None] * gap()
    content_HTT = Q_HTC.double() @ K_HTC.double().transpose(-1, -2) * C**-0.5
    seen_GTX = F.pad(torch.cat((content_HTT, bias_HTT.double())).tril(), (0, more))
    hidden_WTX = F.conv2d(seen_GTX, first_WG3.double()[:, :, None], bias_W.double(), padding=(0, kernel // 2))
    extra_HTX = F.conv2d(
        F.leaky_relu(hidden_WTX), last_HW3.double()[:, :, None], bias_H.double(), padding=(0, kernel // 2)
    )
    weights = {"0.weight": first_WG3[:, :, None], "0.bias": bias_W, "2.weight": last_HW3[:, :, None], "2.bias": bias_H}
    return attend_case(
        "formula of chuanyang-Zheng/DAPE bde344a, megatron/model/positional_embeddings.py, Alibi_DAPEV2",
        with_bias(bias_HTT + extra_HTX[:, :, :T]),
        options={"inner": "alibi", "kernel": kernel},
        weights={f"layers.0.mlp.{name}": value for name, value in weights.items()},
    )


def stick_breaking(remainder: bool) -> dict[str, Any]:
    """Return a case, with the remainder that the authors' language models add to the query's value."""
    naive = lone_module("fla", "ops/stickbreaking_attn/naive.py")
    out_1THC, left_1TH = naive.naive_stickbreaking_attn(*map(heads_last, (Q_HTC, K_HTC, V_HTC)))
    if remainder:
        out_1THC = out_1THC + left_1TH[..., None] * heads_last(V_HTC)
    use = "remainder to the query's value as in IBM/dolomite-engine" if remainder else "remainder left out"
    source = of("flash-linear-attention", f"ops/stickbreaking_attn/naive.py, {use}")
    return attend_case(source, out_1THC[0].transpose(0, 1), options={"remainder": remainder})


def path(conv: bool) -> dict[str, Any]:
    """Return a case of PaTH from the authors' reference implementation.

    `w` and `beta` are computed as in layers/path_attn.py, whose kernels need a GPU. `conv` is its use_w_shortconv.
    """
    naive = lone_module("fla", "ops/path_attn/naive.py")
    R, kernel = 4, 3
    down_RD, up_DR = drawn(R, D, seed=50, scale=0.5), drawn(D, R, seed=51, scale=0.5)
    conv_D1K = drawn(D, 1, kernel, seed=52, scale=0.7)
    beta_HD, beta_bias_H = drawn(H, D, seed=53, scale=0.5), drawn(H, seed=54)
    w_TD = X_TD @ down_RD.T @ up_DR.T
    if conv:
        w_TD = F.silu(F.conv1d(F.pad(w_TD.T, (kernel - 1, 0)), conv_D1K, groups=D).T)
    w_THC = w_TD.view(T, H, C)
    w_THC = w_THC / (w_THC.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    beta_TH = 2 * torch.sigmoid(X_TD @ beta_HD.T + beta_bias_H)
    q, k, v = map(heads_last, (Q_HTC, K_HTC, V_HTC))
    out_1THC = naive.naive_path_attn(q, k, v, w_THC[None], beta_TH[None], torch.zeros(1, T, H), C**-0.5, chunk_size=4)
    wanted_HTC = out_1THC[0].transpose(0, 1)
    torch.testing.assert_close(wanted_HTC.double(), householder(w_THC.double(), beta_TH.double()), rtol=0, atol=1e-5)
    source = of("flash-linear-attention", "ops/path_attn/naive.py, w and beta as in layers/path_attn.py")
    return attend_case(
        source,
        wanted_HTC,
        options={"rank": R, "conv": conv},
        weights={
            "layers.0.down.weight": down_RD,
            "layers.0.up.weight": up_DR,
            **({"layers.0.conv.weight": conv_D1K} if conv else {}),
            "layers.0.beta.weight": beta_HD,
            "layers.0.beta.bias": beta_bias_H,
        },
    )


def householder(w_THC: Tensor, beta_TH: Tensor) -> Tensor:
    """Return attention with the paper's logits q_m^T H_m ... H_(n+1) k_n, where H = I - beta w w^T, [H, T, C]."""
    logits_HTT = torch.zeros(H, T, T, dtype=torch.float64)
    for head in range(H):
        for query in range(T):
            left_C = Q_HTC[head, query].double()
            for key in range(query, -1, -1):
                logits_HTT[head, query, key] = left_C @ K_HTC[head, key].double() * C**-0.5
                w_C = w_THC[key, head]
                left_C = left_C - beta_TH[key, head] * (left_C @ w_C) * w_C
    return logits_HTT.masked_fill(FUTURE_TT, -torch.inf).softmax(-1) @ V_HTC.double()


MAKERS: Makers = {
    "fox": lambda: [fox_fla(), fox_x_transformers()],
    "cable": lambda: [cable()],
    "cope": lambda: [cope(4), cope(64)],
    "dape": lambda: [dape_alibi(), dape_kerple(), dape_v2()],
    "stick_breaking": lambda: [stick_breaking(False), stick_breaking(True)],
    "path": lambda: [path(True), path(False)],
}
