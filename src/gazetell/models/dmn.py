"""DMN+: a dynamic memory network that reads a grid of regions in several passes.

Shapes: ``B`` pictures, ``N`` questions, ``R`` regions, ``C`` channels, ``T`` words, ``E``
embedding, ``H`` hidden, ``A`` answers, ``P`` passes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from .answer_base import AnswererOptions, AnswerModel, Looked, of_owners, start_recurrent
from .attention_gru import AttentionGRU
from .encoders import Grid
from .options import POSITIVE, option
from .region_gates import RegionGates

__all__ = ["DMNPlus", "DMNPlusOptions", "positions", "snake"]


@dataclass(frozen=True)
class DMNPlusOptions(AnswererOptions):
    """Options of ``DMNPlus``."""

    hidden: int = option(512, "Width of the recurrent state.", POSITIVE)
    attention_width: int = option(256, "Width of the layer behind the gates.", POSITIVE)
    passes: int = option(3, "Passes over the picture.", POSITIVE)
    memory: Literal["relu", "gru"] = option(
        "relu", "How the memory is renewed after a pass: relu or gru."
    )
    attention_kind: Literal["gru", "soft"] = option(
        "gru", "How the regions attended to are read: gru or soft (a weighted sum)."
    )
    question: Literal["gru", "lstm"] = option("gru", "What reads the question: gru or lstm.")
    positions: bool = option(False, "Tell each region where it lies, for questions about places.")


class DMNPlus(AnswerModel):
    """Dynamic memory network for pictures::

        f_i = tanh(W LayerNorm(x_i) + b)        regions in snake order: every second row reversed
                                                + W_p p_i inside the tanh, positions=True
        F_i = GRU_forth(f)_i + GRU_back(f)_i    input fusion: a region hears of the others
        q   = GRU(words), its last state        or an LSTM, question="lstm"
        m_0 = q, and for each pass t = 1..P
            z_i = [F_i * q ; F_i * m_{t-1} ; |F_i - q| ; |F_i - m_{t-1}|]
            g   = softmax_i(W2 tanh(W1 z_i + b1))       the gaze of the pass
            c   = last state of the attention GRU       or sum_i g_i F_i, attention_kind="soft"
            m_t = ReLU(W_m [m_{t-1} ; c ; q] + b_m)     or GRU(c, m_{t-1}), memory="gru"
        p(answer) = softmax(W_a dropout([q ; m_P]) + b_a)

    The attention GRU stands in ``attention_gru``, the gates in ``region_gates``. Gates, attention
    GRUs and W_m of each pass have weights of their own; the GRU of ``memory="gru"`` is one.
    p_i is row and column of the centre of a region, the picture's edges being -1 and 1.
    ``F`` and what the attention GRU makes of it alone are computed once a picture.

    What the paper has not:

    - The regions are normalised over their channels, without learned scale: raw activations of a
      CNN drive the tanh to its ends, and training sticks at answers from words alone.
    - The scores of the gates have no second bias: it moves all of them alike.
    - ``positions``: without them only the recurrences of the input fusion know where a region lies,
      and questions about places take long to learn.
    - The paper's dropout on the picture is ``grid_dropout`` (it has 0.5), here 0 by default.

    References:
        Xiong, Merity and Socher 2016, Dynamic Memory Networks for Visual and Textual Question
        Answering; Kumar et al. 2016, Ask Me Anything (the memory's GRU); Liu et al. 2018, An
        Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution.
    """

    Options = DMNPlusOptions
    options: DMNPlusOptions

    def __init__(self, options: DMNPlusOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        hidden, passes = options.hidden, range(options.passes)
        self.normalise = nn.LayerNorm(self.channels, elementwise_affine=False)
        self.facts = nn.Linear(self.channels, hidden)
        if options.positions:
            self.places = nn.Linear(2, hidden, bias=False)
        self.fusion = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        kind = nn.LSTM if options.question == "lstm" else nn.GRU
        self.question = kind(options.embedding, hidden, batch_first=True)
        start_recurrent(self.fusion)
        start_recurrent(self.question)
        self.gates = nn.ModuleList(RegionGates(hidden, options.attention_width) for _ in passes)
        if options.attention_kind == "gru":
            self.reader = AttentionGRU(hidden, hidden, options.passes)
        if options.memory == "gru":
            self.memory_cell = nn.GRUCell(hidden, hidden)
        else:
            self.memories = nn.ModuleList(nn.Linear(3 * hidden, hidden) for _ in passes)
        self.head = nn.Sequential(nn.Dropout(options.dropout), nn.Linear(2 * hidden, self.answers))

    def see(self, grid: Grid) -> Tensor:
        """F (B, R, H) in snake order, see ``AnswerModel.see``."""
        facts = self.facts(self.grid_dropout(self.normalise(grid.cells)))
        if self.options.positions:
            facts = facts + self.places(positions(grid.height, grid.width, grid.cells))
        facts = facts.tanh()[:, snake(grid.height, grid.width, facts.device)]
        fused, _ = self.fusion(facts.to(torch.promote_types(facts.dtype, torch.float32)))
        forth, back = fused.chunk(2, 2)  # (B, R, 2H) -> (B, R, H) each
        return forth + back

    def answer(
        self, looked: Looked, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``AnswerModel.answer``."""
        facts = looked.seen
        question = self.read(tokens, lengths)
        soft = self.options.attention_kind == "soft"
        of_question = of_owners(facts, owner) if soft else facts
        drives = () if soft else self.reader.drives(facts)
        memory, attention = question, []
        for t, gates in enumerate(self.gates):
            g = gates(facts, question, memory if t else None, owner)
            if soft:
                context = torch.bmm(g.to(facts.dtype).unsqueeze(1), of_question).squeeze(1)
            else:
                context = self.reader(drives[t], g, t, owner)
            memory = self.renew(memory, context, question, t)
            attention.append(g)
        logits = self.head(torch.cat((question, memory), 1))
        gaze = torch.stack(attention, 1)  # P tensors (N, R) -> (N, P, R)
        return logits, gaze[..., snake(looked.height, looked.width, gaze.device)]

    def read(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Q (N, H) of questions (N, T), at least float32; padding is not read."""
        words = self.word_dropout(self.embed(tokens))
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.question(packed)
        state: Tensor = last[0] if isinstance(last, tuple) else last  # (1, N, H)
        return state[0].to(torch.promote_types(state.dtype, torch.float32))

    def renew(self, memory: Tensor, context: Tensor, question: Tensor, number: int) -> Tensor:
        """The memory (N, H) after pass ``number`` (0 is the first), at least float32."""
        if self.options.memory == "gru":
            renewed = self.memory_cell(context, memory)
        else:
            renewed = self.memories[number](torch.cat((memory, context, question), 1)).relu()
        return renewed.to(torch.promote_types(renewed.dtype, torch.float32))


def positions(height: int, width: int, like: Tensor) -> Tensor:
    """Row and column (R, 2) of the centre of each region, the picture's edges being -1 and 1."""
    rows, columns = (
        (torch.arange(n, device=like.device, dtype=like.dtype) * 2 + 1) / n - 1
        for n in (height, width)
    )
    return torch.cartesian_prod(rows, columns)


def snake(height: int, width: int, device: torch.device) -> Tensor:
    """The regions (R,) of a grid in snake order: each is a neighbour of the one before.

    Reversing every second row twice changes nothing: the same index leads there and back.
    """
    order = torch.arange(height * width, device=device).view(height, width).clone()
    order[1::2] = order[1::2].flip(1)
    return order.flatten()
