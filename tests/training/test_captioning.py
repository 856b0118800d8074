"""The penalty that spreads the gaze over the picture, and its way into the loss."""

import pytest
import torch

from gazetell.data.batches import CaptionBatch
from gazetell.data.text import Tokenizer
from gazetell.models.captioners import build_captioner
from gazetell.models.encoders import Grid
from gazetell.training.captions import CaptionTask, doubly_stochastic
from gazetell.training.options import TrainOptions

N, T, R = 3, 5, 4


def gaze(seed=0):
    """Attention (N, T, R) that sums to 1 over the regions, zero behind captions of 5, 3 and 1."""
    random = torch.Generator().manual_seed(seed)
    alpha = torch.randn(N, T, R, generator=random, dtype=torch.float64).mul(2).softmax(2)
    return alpha * (torch.arange(T) < torch.tensor([[5], [3], [1]])).unsqueeze(2)


def papers(alpha):
    """Equation 14 of Show, Attend and Tell: the sum over regions, here of one caption (T, R)."""
    total = 0.0
    for i in range(R):
        attended = 0.0
        for t in range(T):
            attended += float(alpha[t][i])
        total += (1 - attended) ** 2
    return total


def test_it_is_the_papers_sum_divided_by_the_regions():
    alpha = gaze()
    expected = sum(papers(alpha[n]) / R for n in range(N)) / N
    assert float(doubly_stochastic(alpha)) == pytest.approx(expected, abs=1e-14)


def test_a_gaze_that_rests_once_on_each_region_costs_nothing():
    visits = torch.eye(R).index_select(0, torch.tensor([2, 0, 3, 1])).expand(N, R, R)
    assert float(doubly_stochastic(visits)) == 0
    even = torch.full((N, R, R), 1 / R)
    assert float(doubly_stochastic(even)) == 0
    fixed = torch.zeros(N, R, R)
    fixed[:, :, 0] = 1  # R looks at the first region, none at the R-1 others
    assert float(doubly_stochastic(fixed)) == ((R - 1) ** 2 + (R - 1)) / R


def test_its_gradient_draws_the_gaze_to_what_was_seen_too_little():
    alpha = gaze().requires_grad_()
    (gradient,) = torch.autograd.grad(doubly_stochastic(alpha), alpha)
    assert torch.equal(gradient < 0, (alpha.sum(1) < 1).unsqueeze(1).expand(N, T, R))


def batch():
    tokenizer = Tokenizer.train(["a red box", "two blue balls on a box"], min_frequency=1)
    rows = tokenizer.encode_batch(["two blue balls", "a box", "red"], 10)
    tokens = torch.full((3, len(rows[0])), tokenizer.pad)
    for n, row in enumerate(rows):
        tokens[n, : len(row)] = torch.tensor(row)
    lengths = torch.tensor([len(row) - 1 for row in rows])
    owner = torch.tensor([1, 0, 1])
    return tokenizer, CaptionBatch(torch.zeros(2), torch.arange(2), owner, tokens, lengths)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["lstm", "attention-lstm", "dual-attention"])
def test_the_loss_takes_the_penalty_where_there_is_a_gaze(architecture):
    tokenizer, captions = batch()
    torch.manual_seed(0)
    sizes = {"channels": 6, "vocabulary": tokenizer.vocab_size, "embedding": 4, "hidden": 5}
    captioner = build_captioner(architecture, **sizes).eval()
    task = CaptionTask(None, captioner, tokenizer, TrainOptions(), [])
    grid = Grid.of(torch.randn(2, R, 6), 2, 2)
    without, penalised = (float(task.loss(grid, captions, penalty=x)) for x in (0.0, 0.5))
    _, attention = captioner(
        Grid.of(grid.cells[captions.owner], 2, 2), captions.tokens[:, :-1], captions.lengths
    )
    expected = 0.0 if attention is None else 0.5 * float(doubly_stochastic(attention))
    assert (expected > 0.01) == (architecture != "lstm")
    assert penalised - without == pytest.approx(expected, abs=1e-5)
