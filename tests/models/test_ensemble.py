"""Ensembles: the mean of probabilities, by hand and by exhaustive search."""

import pytest
import torch

from gazetell.errors import ModelError
from gazetell.inference.predictor import Captioner, load
from gazetell.models.captioners import CAPTIONERS, build_captioner
from gazetell.models.decoding import DecodingOptions, decode
from gazetell.models.encoders import Grid
from gazetell.models.ensemble import Ensemble
from gazetell.models.folder import save_model

V = 9


class Plain(torch.nn.Module):
    """An encoder without projection."""

    def project_grid(self, grid):
        return grid


class Doubled(Plain):
    """One whose projection doubles the grid."""

    def project_grid(self, grid):
        return Grid.of(grid.cells * 2, grid.height, grid.width)


def captioner(architecture, seed):
    torch.manual_seed(seed)
    sizes = {"channels": 5, "vocabulary": V, "embedding": 4, "hidden": 6}
    return build_captioner(architecture, **sizes).eval().double()


def grid(batch=3):
    random = torch.Generator().manual_seed(7)
    return Grid.of(torch.randn(batch, 4, 5, generator=random, dtype=torch.float64), 2, 2)


def test_a_step_is_the_mean_of_the_members_probabilities():
    parts = [captioner(name, seed) for seed, name in enumerate(CAPTIONERS)]
    encoders = [Plain(), Doubled(), Plain(), Doubled(), Plain()]
    ensemble = Ensemble(list(zip(encoders, parts, strict=True)))
    together = ensemble.start(grid())
    alone = [p.start(e.project_grid(grid())) for e, p in zip(encoders, parts, strict=True)]
    for word in ([1, 1, 1], [4, 5, 6], [0, 7, 2]):
        tokens = torch.tensor(word)
        logits, together, gaze = ensemble.step(tokens, together)
        found = [part.step(tokens, state) for part, state in zip(parts, alone, strict=True)]
        alone = [state for _, state, _ in found]
        expected = sum(one.softmax(1) for one, _, _ in found) / len(parts)
        assert torch.allclose(logits.double().exp(), expected, atol=1e-6)
        gazes = [one for _, _, one in found if one is not None]
        assert len(gazes) == 3
        assert torch.allclose(gaze, sum(gazes) / 3, atol=1e-12)


def test_states_move_together():
    parts = [captioner("lstm", 0), captioner("attention-lstm", 1)]
    ensemble = Ensemble([(Plain(), part) for part in parts])
    tokens, rows = torch.tensor([3, 4, 5]), torch.tensor([2, 0, 0])
    _, state, _ = ensemble.step(tokens, ensemble.start(grid()))
    whole, _, _ = ensemble.step(tokens, state)
    some, _, _ = ensemble.step(tokens[rows], state.select(rows))
    assert torch.allclose(some, whole[rows], atol=1e-6)
    moved = state.reorder(torch.tensor([1, 1, 2]))
    assert moved.members[1].memory[0] is state.members[1].memory[0]
    assert torch.equal(moved.members[0].recurrent[0][0], state.members[0].recurrent[0][1])


@pytest.mark.parametrize("beam", [1, 3])
def test_one_member_or_twice_the_same_is_that_member(beam):
    part, options = captioner("attention-lstm", 3), DecodingOptions(beam=beam, max_length=6)
    plain = decode(part, grid(), options, start=1, end=2)
    for members in (1, 2):
        ensemble = Ensemble([(Plain(), part)] * members)
        found = decode(ensemble, grid(), options, start=1, end=2)
        assert [c.tokens for c in found] == [c.tokens for c in plain]
        assert [c.log_prob for c in found] == pytest.approx([c.log_prob for c in plain], abs=1e-5)


def test_models_are_loaded_as_an_ensemble(untrained, scenes_dataset, tmp_path):
    for seed in (0, 1):
        save_model(tmp_path / str(seed), untrained(seed=seed))
    with pytest.raises(ModelError, match="model 2 of the ensemble has another encoder"):
        load(tmp_path / "0", tmp_path / "1")
    one, other = untrained(seed=0), untrained(seed=1)
    other.encoder.load_state_dict(one.encoder.state_dict())
    pair = Captioner(one, other, precision="fp32")
    assert pair.members == 2
    picture = scenes_dataset.path(scenes_dataset.captions[0])
    caption = pair.caption(picture)
    assert caption.words
    assert caption.attention is not None


def test_another_vocabulary_is_refused(untrained):
    from gazetell.data.text import Tokenizer

    one, other = untrained(), untrained()
    other.tokenizer = Tokenizer.train(["other words"], min_frequency=1)
    with pytest.raises(ModelError, match="another vocabulary"):
        Captioner(one, other)
