"""Show, Attend and Tell as a plain loop over time: what ``captioning.py`` compares ours with.

Shapes: ``N`` captions, ``n <= N`` of them that still have a word at a step, ``R`` regions, ``C``
channels, ``A`` attention, ``T`` words, ``V`` vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from gazetell.data.batches import CaptionBatch


class Reference(nn.Module):
    """Show, Attend and Tell as the popular tutorials write it, step by step, for autograd.

    The equations of ``ShowAttendTell`` in the form of Vinodababu's PyTorch tutorial
    (github.com/sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning): the grid once a caption, an
    LSTMCell, only the rows that still have a word, and in each step anew the projection of their
    grid and the vocabulary layer. The word is looked up in each step too, which the tutorial does
    before; that costs about 1 %. The LSTMCell's second bias, which ours does not have, is zero at
    first.
    """

    def __init__(self, ours: Any) -> None:
        super().__init__()
        options, channels, self.vocabulary = ours.options, ours.channels, ours.vocabulary
        hidden, width, attention = options.hidden, options.embedding, options.attention_width
        self.embedding = nn.Embedding(self.vocabulary, width)
        self.dropout = nn.Dropout(options.dropout)
        self.init_h = nn.Linear(channels, hidden)
        self.init_c = nn.Linear(channels, hidden)
        self.encoder_att = nn.Linear(channels, attention, bias=False)
        self.decoder_att = nn.Linear(hidden, attention)
        self.full_att = nn.Linear(attention, 1, bias=False)
        self.f_beta = nn.Linear(hidden, 1)
        self.cell = nn.LSTMCell(width + channels, hidden)
        self.deep_word = nn.Linear(width, hidden, bias=False)
        self.deep = nn.Linear(channels, hidden)
        self.fc = nn.Linear(hidden, self.vocabulary)

    def forward(self, grid: Tensor, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Logits (N, T, V) for a grid (N, R, C) a caption and tokens (N, T), longest first."""
        grid = F.layer_norm(grid, grid.shape[2:])
        mean = grid.mean(1)
        h, c = self.init_h(mean), self.init_c(mean)
        predictions = grid.new_zeros(len(grid), lengths[0], self.vocabulary)
        for t in range(lengths[0]):
            n = sum(length > t for length in lengths)
            h, c, cells = h[:n], c[:n], grid[:n]
            keys = self.encoder_att(cells) + self.decoder_att(h).unsqueeze(1)  # (n, R, A)
            alpha = self.full_att(keys.tanh()).squeeze(2).softmax(1)  # (n, R)
            looked = (cells * alpha.unsqueeze(2)).sum(1)  # (n, C)
            looked = self.f_beta(h).sigmoid() * looked
            word = self.dropout(self.embedding(tokens[:n, t]))
            h, c = self.cell(torch.cat((word, looked), 1), (h, c))
            deep = self.deep_word(word) + h + self.deep(looked)
            predictions[:n, t] = self.fc(self.dropout(deep)).to(predictions.dtype)
        return predictions

    def loss(self, batch: CaptionBatch) -> Tensor:
        """Mean cross-entropy a word."""
        lengths = batch.lengths.tolist()
        scores = self(batch.pictures[batch.owner], batch.tokens[:, :-1], lengths)
        packed = pack_padded_sequence(scores, lengths, batch_first=True).data
        targets = pack_padded_sequence(batch.tokens[:, 1:], lengths, batch_first=True).data
        return F.cross_entropy(packed.float(), targets)

    @torch.no_grad()
    def copy(self, ours: Any) -> None:
        """Take over the weights of a ``ShowAttendTell``."""
        words, looked = ours.word_gates, ours.gates.weight[:, : ours.channels]
        copied = {
            "embedding.weight": ours.embed.weight,
            "encoder_att.weight": ours.regions.weight,
            "deep_word.weight": ours.head.word.weight,
            "full_att.weight": ours.score.unsqueeze(0),
            "cell.weight_ih": torch.cat((words.weight, looked), 1),
            "cell.weight_hh": ours.gates.weight[:, ours.channels :],
            "cell.bias_ih": words.bias,
            "cell.bias_hh": torch.zeros_like(words.bias),
        }
        layers = {"decoder_att": ours.state, "f_beta": ours.gate}
        layers |= {"deep": ours.head.looked, "fc": ours.head.words}
        for kind in ("weight", "bias"):
            first = getattr(ours.first, kind).chunk(2)
            copied |= {f"init_h.{kind}": first[0], f"init_c.{kind}": first[1]}
            copied |= {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers.items()}
        self.load_state_dict(copied)
