"""A long short-term memory, the recurrent layer before attention.

Formula: c_t = f_t c_(t-1) + i_t tanh(g_t), h_t = o_t tanh(c_t), with gates from x_t and h_(t-1).
Hochreiter and Schmidhuber 1997, Neural Computation 9(8); with forget gates, Gers et al. 2000. torch.nn.LSTM.
Shape suffixes: B batch, T tokens, D width of the residual stream, H cells.
"""

import math

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.mixers import Mixer, State, drawn_linear

SHARE = (math.sqrt(89) - 5) / 8  # cells h per width d for as many weights as attention: 4 h d + 4 h^2 + h d = 4 d^2


class Lstm(Mixer):
    path = "torch.nn.LSTM"

    def __init__(self, dims: Dims, attention_every: int, cells: int | None):
        super().__init__(dims, attention_every)
        self.cells = round(SHARE * dims.d_model) or 1 if cells is None else cells
        if self.cells < 1:
            raise Misuse(f"mixer.cells={self.cells} must be at least 1")
        self.lstm = nn.LSTM(dims.d_model, self.cells, batch_first=True)
        self.out = drawn_linear(self.cells, dims.d_model, branches=2 * dims.n_layer)
        with torch.no_grad():  # open forget gates: Jozefowicz et al. 2015, section 2.2
            for name, forget in (("bias_ih_l0", 1.0), ("bias_hh_l0", 0.0)):
                bias_G = self.lstm.get_parameter(name).zero_()
                bias_G[self.cells : 2 * self.cells] = forget

    def mix(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        with torch.autocast(x_BTD.device.type, enabled=False):
            mixed_BTH, state = self.lstm(x_BTD.to(self.out.weight.dtype), state)
        return self.out(mixed_BTH.type_as(x_BTD)), state

    def extra_repr(self) -> str:
        return f"{self.cells} cells"
