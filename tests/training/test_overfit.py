"""The sanity check of a course's exercise: fifty captions are learned by heart in eighty epochs.

Data sizes, number of epochs and bounds are those of the exercise on image captioning in Justin
Johnson's Deep Learning for Computer Vision (University of Michigan, EECS 498-007), where the loss
is the cross-entropy summed over the words of a caption, the mean over captions. States are half as
wide and the learning rate is five times as high, which takes a third of the time. In place of
photos and sentences stand random grids and words drawn by Zipf's law, so that nothing can be
guessed from the language.
"""

import pytest
import torch
from torch import nn

from gazetell.models.captioners import CAPTIONERS, build_captioner
from gazetell.models.encoders import Grid

BOUNDS = {"rnn": 0.5, "lstm": 4, "attention-lstm": 9, "show-attend-tell": 9, "dual-attention": 9}
BOUNDS["up-down"] = 15  # two LSTMs in a row learn later
HIDDEN, RATE = 256, 5e-3  # width of the state, the attention and the words
CAPTIONS, BATCH, WORDS, VOCABULARY, CHANNELS, SIDE = 50, 25, 16, 1004, 400, 4
PAD, START, END, SPECIAL = 0, 1, 2, 4


def small_data():
    """A grid for each caption (N, R, C), tokens (N, T+1) and lengths (N,) with END, falling."""
    torch.manual_seed(0)
    scene, details = torch.randn(CAPTIONS, 1, CHANNELS), torch.randn(CAPTIONS, SIDE**2, CHANNELS)
    cells = (scene + details).relu()  # the regions of a picture have much in common
    frequency = 1 / torch.arange(1, VOCABULARY - SPECIAL + 1)
    drawn = torch.multinomial(frequency.expand(CAPTIONS, -1), WORDS, replacement=True) + SPECIAL
    tokens = torch.cat((torch.full((CAPTIONS, 1), START), drawn), 1)
    lengths = torch.randint(6, WORDS + 1, (CAPTIONS,)).sort(descending=True).values
    place = torch.arange(WORDS + 1)
    tokens[place == lengths[:, None]] = END
    tokens[place > lengths[:, None]] = PAD
    return cells, tokens, lengths


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_fifty_captions_are_learned_by_heart(architecture):
    data = small_data()
    batches = [tuple(x[first :: CAPTIONS // BATCH] for x in data) for first in (0, 1)]
    sizes = {"channels": CHANNELS, "vocabulary": VOCABULARY, "embedding": HIDDEN, "hidden": HIDDEN}
    if hasattr(CAPTIONERS[architecture].Options, "attention_width"):
        sizes["attention_width"] = HIDDEN
    captioner = build_captioner(architecture, **sizes, dropout=0.0)
    optimizer = torch.optim.Adam(captioner.parameters(), RATE, fused=True)
    losses = []
    for _ in range(80):
        losses.append(0.0)
        for cells, tokens, lengths in batches:
            state = captioner.start(Grid.of(cells, SIDE, SIDE))
            outputs, _ = captioner.unroll(state, tokens[:, :-1], lengths)
            real, targets = tokens[:, 1:] != PAD, tokens[:, 1:]
            logits = captioner.head(outputs[real])
            loss = nn.functional.cross_entropy(logits, targets[real], reduction="sum")
            optimizer.zero_grad()
            (loss / BATCH).backward()
            optimizer.step()
            losses[-1] += loss.item() / CAPTIONS
        if losses[-1] < BOUNDS[architecture]:  # spare the tests' time
            break
    assert losses[0] > 60  # it knew nothing at first
    assert losses[-1] < BOUNDS[architecture]
