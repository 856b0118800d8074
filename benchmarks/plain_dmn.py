"""DMN+ as plain modules and a loop over regions: what ``answering.py`` compares ours with.

Shapes: ``N`` questions, ``R`` regions, ``C`` channels, ``T`` words, ``H`` hidden, ``A`` answers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from gazetell.models.answerers import snake


class AttentionCell(nn.Module):
    """One region of the attention GRU."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.Wr = nn.Linear(hidden, hidden)
        self.Ur = nn.Linear(hidden, hidden, bias=False)
        self.W = nn.Linear(hidden, hidden)
        self.U = nn.Linear(hidden, hidden, bias=False)

    def forward(self, fact: Tensor, h: Tensor, g: Tensor) -> Tensor:
        r = torch.sigmoid(self.Wr(fact) + self.Ur(h))
        candidate = torch.tanh(self.W(fact) + r * self.U(h))
        g = g.unsqueeze(1)
        return g * candidate + (1 - g) * h


class Episode(nn.Module):
    """One pass: gates, context, memory."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.z1 = nn.Linear(4 * hidden, width)
        self.z2 = nn.Linear(width, 1, bias=False)
        self.cell = AttentionCell(hidden)
        self.next_memory = nn.Linear(3 * hidden, hidden)

    def forward(self, facts: Tensor, question: Tensor, memory: Tensor) -> Tensor:
        q, m = question.unsqueeze(1), memory.unsqueeze(1)
        z = torch.cat((facts * q, facts * m, (facts - q).abs(), (facts - m).abs()), 2)
        gates = self.z2(torch.tanh(self.z1(z))).squeeze(2).softmax(1)  # (N, R)
        h = torch.zeros_like(facts[:, 0])
        for i in range(facts.shape[1]):
            h = self.cell(facts[:, i], h, gates[:, i])
        return F.relu(self.next_memory(torch.cat((memory, h, question), 1)))


class Reference(nn.Module):
    """DMN+ as the popular PyTorch codes write it, for autograd.

    The equations of ``DMNPlus`` in the form of github.com/dandelin/Dynamic-memory-networks-plus-
    Pytorch: the picture once a question, z for all regions at once, and a cell of four linear maps
    called for each region. Input fusion and question are torch's own GRUs, as there. So is
    ``facts[:, i]``, whose gradient is a tensor of all regions for each region: with ``unbind`` a
    step of 64 questions takes three quarters of the time.
    """

    def __init__(self, ours: Any) -> None:
        super().__init__()
        options, hidden = ours.options, ours.options.hidden
        self.embedding = nn.Embedding(ours.vocabulary, options.embedding, padding_idx=0)
        self.fc = nn.Linear(ours.channels, hidden)
        self.gru = nn.GRU(hidden, hidden, bidirectional=True, batch_first=True)
        self.question_gru = nn.GRU(options.embedding, hidden, batch_first=True)
        self.episodes = nn.ModuleList(
            Episode(hidden, options.attention_width) for _ in range(options.passes)
        )
        self.dropout = nn.Dropout(options.dropout)
        self.out = nn.Linear(2 * hidden, ours.answers)

    def forward(self, cells: Tensor, side: int, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits (N, A) for cells (N, R, C), a picture a question, of a square grid."""
        cells = F.layer_norm(cells, cells.shape[2:])
        facts = self.fc(cells).tanh()[:, snake(side, side, cells.device)]
        forth, back = self.gru(facts.float())[0].chunk(2, 2)
        facts = forth + back
        words = self.embedding(tokens)
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        question = self.question_gru(packed)[1][0]
        memory = question
        for episode in self.episodes:
            memory = episode(facts, question, memory)
        return self.out(self.dropout(torch.cat((question, memory), 1)))

    @torch.no_grad()
    def copy(self, ours: Any) -> None:
        """Take over the weights of a ``DMNPlus``."""
        copied = {"embedding.weight": ours.embed.weight}
        layers = {"fc": ours.facts, "gru": ours.fusion, "question_gru": ours.question}
        for name, layer in {**layers, "out": ours.head[1]}.items():
            copied |= {f"{name}.{kind}": value for kind, value in layer.state_dict().items()}
        facts = [
            x.chunk(len(self.episodes)) for x in (ours.reader.facts.weight, ours.reader.facts.bias)
        ]
        for t, gates in enumerate(ours.gates):
            (w_r, w), (b_r, b) = (x[t].chunk(2) for x in facts)
            u_r, u = ours.reader.state[t].chunk(2)
            values = {
                "cell.Wr.weight": w_r,
                "cell.Wr.bias": b_r,
                "cell.W.weight": w,
                "cell.W.bias": b,
            }
            values |= {"cell.Ur.weight": u_r, "cell.U.weight": u}
            values |= {"z1.weight": gates.inner.weight, "z1.bias": gates.inner.bias}
            values |= {"z2.weight": gates.score.unsqueeze(0)}
            for kind in ("weight", "bias"):
                values[f"next_memory.{kind}"] = getattr(ours.memories[t], kind)
            copied |= {f"episodes.{t}.{name}": value for name, value in values.items()}
        self.load_state_dict(copied)
