"""The decoder, identical for every scheme apart from positions.

Shape suffixes: B batch, T tokens, D width of the residual stream, H heads, C channels of a head,
F width of the MLP, G gates (one per head or channel), N queries, keys and values in a row, V vocabulary.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp import mixers, schemes, temperatures, transforms, windows
from posexp.config.sections import AttentionGate, Mlp, ModelConfig
from posexp.dims import INIT_STD, Dims
from posexp.errors import Misuse
from posexp.mixers import Mixer, attention_blocks
from posexp.model.base import Attend, Model, own_model
from posexp.ops.layers import RMSNorm, StackedLinear, swiglu
from posexp.ops.short_conv import ShortConv
from posexp.schemes import EMBEDDING_STD, Scheme
from posexp.windows import Window

if TYPE_CHECKING:
    from posexp.config.commands import TrainCommand


class SelfAttention(nn.Module):
    """Multi-head attention, with a gate on its output and a convolution of keys and values as options.

    With `n_kv_head`, groups of neighbouring heads share a head of keys and values, as in grouped-query attention
    (Ainslie et al. 2023, arXiv 2305.13245). Keys and values are repeated for every head of queries before positions
    act, so that a scheme has `n_head` heads of each.
    The gate multiplies the output of a head, or each of its channels, with sigmoid(W x), where x is the input of
    queries, keys and values. Qiu et al. 2025, arXiv 2505.06708, position G1. The convolution adds to each key and value
    the sum of w_j times that of j tokens before, j = 0 to 3, before qk_norm and rotation. Allen-Zhu 2025 (Canon-B),
    arXiv 2512.17351; without Canon's queries, as in Inkling.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate: nn.Linear | None = None
        self.short_conv: ShortConv | None = None
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head or config.n_head
        head_dim = config.d_model // config.n_head
        shared = self.n_kv_head * head_dim
        self.qkv = StackedLinear(config.d_model, config.d_model, shared, shared)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)
        self.norm_q = RMSNorm(head_dim) if config.qk_norm else nn.Identity()
        self.norm_k = RMSNorm(head_dim) if config.qk_norm else nn.Identity()

    def add_options(self, config: ModelConfig) -> None:
        """Add gate and convolution and draw their weights, after all others, which stay those without options."""
        if config.attention_gate is not AttentionGate.none:
            per_head = config.attention_gate is AttentionGate.head
            self.gate = nn.Linear(config.d_model, config.n_head if per_head else config.d_model, bias=False)
            nn.init.normal_(self.gate.weight, std=INIT_STD)
        if config.short_conv:
            self.short_conv = ShortConv(self.qkv.out_features - config.d_model, config.short_conv)
            nn.init.normal_(self.short_conv.weight, std=INIT_STD)

    def forward(self, x_BTD: Tensor, attend: Attend) -> Tensor:
        mixed_BTHC = attend(*self.project(x_BTD), x_BTD=x_BTD).transpose(1, 2)
        if self.gate is not None:
            gate_BTG = self.gate(x_BTD[:, -mixed_BTHC.shape[1] :]).sigmoid()
            mixed_BTHC = mixed_BTHC * gate_BTG.unflatten(2, (self.n_head, -1))
        return self.out(mixed_BTHC.flatten(2))

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of every head, [B, H, T, C] each."""
        D = x_BTD.shape[2]
        qkv_BTN = self.qkv(x_BTD)
        if self.short_conv is not None:
            kv_BTN = qkv_BTN[..., D:]
            qkv_BTN = torch.cat((qkv_BTN[..., :D], kv_BTN + self.short_conv(kv_BTN)), dim=-1)
        qkv_BHTC = qkv_BTN.unflatten(2, (-1, D // self.n_head)).transpose(1, 2)
        q_BHTC, k_BHTC, v_BHTC = qkv_BHTC.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=1)
        q_BHTC, k_BHTC = self.norm_q(q_BHTC), self.norm_k(k_BHTC)
        if (group := self.n_head // self.n_kv_head) > 1:
            k_BHTC, v_BHTC = k_BHTC.repeat_interleave(group, dim=1), v_BHTC.repeat_interleave(group, dim=1)
        return q_BHTC, k_BHTC, v_BHTC


class SwiGLU(nn.Module):
    """A SwiGLU MLP, 8/3 D wide for as many parameters as a GELU of 4 D. Shazeer 2020, arXiv 2002.05202."""

    def __init__(self, d_model: int):
        super().__init__()
        width = 32 * round(8 / 3 * d_model / 32) or 32  # a multiple of the vector width
        self.gate_and_up = StackedLinear(d_model, width, width)
        self.out = nn.Linear(width, d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.out(swiglu(self.gate_and_up(x_BTD)))


class Gelu(nn.Module):
    def __init__(self, d_model: int):
        super().__init__()
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.out = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.out(F.gelu(self.up(x_BTD)))


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm_attention = RMSNorm(config.d_model)
        self.attention = SelfAttention(config)
        self.mixer: Mixer | None = None  # in the place of attention
        self.norm_mlp = RMSNorm(config.d_model)
        self.mlp = SwiGLU(config.d_model) if config.mlp is Mlp.swiglu else Gelu(config.d_model)
        self.dropout = config.dropout

    def forward(self, x_BTD: Tensor, attend: Attend | None, last: int | None = None) -> Tensor:
        """Return [B, T, D], or those of the `last` tokens alone. `attend` serves a block with attention."""
        normal_BTD = self.norm_attention(x_BTD)
        mixed_BTD = self.attention(normal_BTD, attend) if self.mixer is None else self.mixer(normal_BTD)
        if last is not None:  # attention may have omitted the others
            x_BTD, mixed_BTD = x_BTD[:, -last:], mixed_BTD[:, -last:]
        x_BTD = x_BTD + self.drop(mixed_BTD)
        return x_BTD + self.drop(self.mlp(self.norm_mlp(x_BTD)))

    def drop(self, x_BTD: Tensor) -> Tensor:
        return F.dropout(x_BTD, self.dropout, self.training)


class Decoder(Model):
    """A pre-norm causal language model with tied embeddings.

    Embeddings are drawn as in GPT-2 and scaled to unit size at the input, as in Vaswani et al. 2017 (section 3.4), so
    that added positions, also of unit size, do not drown the embeddings. The tied output layer is scaled by 1/width
    (muP, Yang et al. 2022, arXiv 2203.03466, table 8). Otherwise the logit of the input token itself would dominate at
    the start of training, more so in wider models. With a mixer, the layers of scheme and window are the blocks that
    have attention.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        scheme: Scheme,
        seed: int,
        window: Window | None = None,
        mixer: dict[str, Any] | None = None,
    ):
        """Draw the weights from `seed`, independently of random numbers that the scheme has drawn.

        The config section `mixer` replaces attention in some blocks or all (None: in none).
        """
        torch.manual_seed(seed)
        super().__init__(config, vocab_size, scheme, window)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.d_model)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        for name, weight in self.blocks.named_parameters():
            if weight.ndim == 2:
                # the two branches of each block that write to the residual stream start smaller (GPT-2, section 2.3)
                branches = 2 * config.n_layer if name.endswith("out.weight") else 1
                nn.init.normal_(weight, std=INIT_STD * branches**-0.5)
        attending = attention_blocks(mixer, config.n_layer)
        dims = Dims(config.d_model, config.n_head, config.n_layer, scheme.dims.train_length)
        for index, block in enumerate(self.blocks):  # drawn last, so that all other weights are those without options
            assert isinstance(block, Block)
            if index in attending:
                block.attention.add_options(config)
            elif mixer is not None:
                block.mixer = mixers.from_config(mixer, dims)
                del block.attention

    def forward(self, tokens_BT: Tensor, last: int | None = None) -> Tensor:
        """Return the hidden states; with `last`, skip the other tokens in the last block."""
        x_BTD, pos_BT = self.embed(tokens_BT)
        layer = 0  # among the blocks with attention
        for index, block in enumerate(self.blocks):
            wanted, attend = last if index == len(self.blocks) - 1 else None, None
            if block.mixer is None:
                attend = self.attend(layer, pos_BT, wanted)
                layer += 1
            x_BTD = block(x_BTD, attend, wanted)
        return self.norm(x_BTD)

    @property
    def mixer(self) -> Mixer | None:
        return next((block.mixer for block in self.blocks if block.mixer is not None), None)  # type: ignore[return-value]

    @property
    def attends(self) -> bool:
        return any(block.mixer is None for block in self.blocks)


def build_decoder(
    config: ModelConfig,
    vocab_size: int,
    scheme_node: dict[str, Any],
    train_length: int,
    seed: int,
    window_node: dict[str, Any] | None = None,
    temperature_node: dict[str, Any] | None = None,
    mixer_node: dict[str, Any] | None = None,
) -> Model:
    """Return a decoder with weights drawn from `seed`, and its components from config sections.

    A window of None is full, a temperature of None is 1, and a mixer of None leaves attention in every block.
    """
    torch.manual_seed(seed)
    dims = scheme_dims(config, train_length, mixer_node)
    scheme = temperatures.from_config(temperature_node, schemes.from_config(scheme_node, dims))
    window = windows.from_config(window_node, dims)
    if config.target:
        torch.manual_seed(seed)
        return own_model(config, vocab_size, scheme, window)
    return Decoder(config, vocab_size, scheme, seed, window, mixer_node)


def scheme_dims(config: ModelConfig, train_length: int, mixer_node: dict[str, Any] | None) -> Dims:
    """Return the sizes for which scheme and window are built, whose layers are the blocks with attention."""
    layers = max(1, len(attention_blocks(mixer_node, config.n_layer)))
    return Dims(config.d_model, config.n_head, layers, train_length)


def build_model(config: "TrainCommand", vocab_size: int) -> Model:
    """Return the decoder of a run before the first step, with weights drawn from its seed."""
    model = build_decoder(
        *(config.model, vocab_size, config.scheme, base_length(config)),
        *(config.seed, config.window, config.temperature, config.mixer),
    )
    model.scheme, model.window = transformed(config, model.scheme)
    return model


def base_length(config: "TrainCommand") -> int:
    """Return the length for which the scheme is built: under a transform, that at which it was trained without any."""
    if config.transform is None:
        return config.train.length
    if config.parent is None:
        raise Misuse("transforms change a trained run: name it by from=<run>, or type posexp eval +transform=…")
    length: int = config.parent.base_length
    return length


def transformed(config: "TrainCommand", scheme: Scheme) -> tuple[Scheme, Window]:
    """Return the scheme, under the transform of a run that continues another one, and the window.

    Raises NotApplicable if the scheme has nothing that the transform changes.
    """
    window = windows.from_config(config.window, replace(scheme.dims, train_length=config.train.length))
    if config.transform is None:
        return scheme, window
    transform = transforms.from_config(config.transform, scheme.dims)
    return transform.apply(scheme, window, config.train.length)
