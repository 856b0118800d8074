"""``gazetell data course``: from the file of a course to a prepared dataset."""

import json

import pytest
import torch

from gazetell.data.records import Dataset

WORDS = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "dog"]


@pytest.fixture
def file(tmp_path):
    """Four training pictures, one with an unknown word, and six of val."""
    images = torch.randint(256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    captions = torch.tensor([[1, 4, 5, 2, 0]]).repeat(10, 1)
    captions[1, 2] = WORDS.index("<UNK>")
    content = {
        "train_images": images[:4],
        "train_captions": captions[:4],
        "val_images": images[4:],
        "val_captions": captions[4:],
        "vocab": {"idx_to_token": WORDS, "token_to_idx": {}},
    }
    torch.save(content, tmp_path / "coco.pt")
    return tmp_path / "coco.pt"


def test_it_prepares_a_dataset(run, file, tmp_path):
    status, out, err = run(
        "data", "course", file, "--out", tmp_path / "out", "--test-from-val", 0.33, "--json"
    )
    assert (status, err) == (0, "")
    summary = json.loads(out)
    assert summary["splits"] == {"train": 3, "val": 4, "test": 2}
    assert summary["notes"][0].startswith("captions of train with <UNK>, left out: 1")
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.root == tmp_path / "out/images"
    assert all(dataset.path(record).is_file() for record in dataset.captions)
    status, out, _ = run("data", "course", file, "--out", tmp_path / "out", "--unknown", "keep")
    assert status == 0
    assert "train with a minimum frequency of at least 2" in out


def test_a_bad_file_leaves_nothing(run, file, tmp_path):
    file.write_bytes(file.read_bytes()[:900])
    status, out, err = run("data", "course", file, "--out", tmp_path / "out")
    assert (status, out) == (3, "")
    assert err.startswith(f"error: {file}: cannot be read")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
