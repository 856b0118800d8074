"""What many tests share: a small scenes dataset and an untrained model folder, made once."""

import functools
import gc
import os
from functools import cache
from pathlib import Path

import pytest

# Before torch is first imported. The tests are many small sums: threads that wait for each other
# on a busy machine make them twenty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Equal runs are equal to the bit on a CPU. CUDA_VISIBLE_DEVICES=0 pytest tries a GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# What is imported stays: looking for garbage takes a third of the time of importing torch.
gc.disable()


# One process of two runs all tests of a group, which share what takes seconds to make or import.
FILES = ("contributing", "gaze", "onnx", "page", "photo", "review")
TOGETHER = {f"test_{name}.py": name for name in FILES}
TOGETHER |= dict.fromkeys(("test_cluster.py", "test_replicas.py"), "ray")
# All of transformers.
LARGE = ("test_large.py", "test_compare_large.py", "test_cli_large.py", "test_distil.py")
TOGETHER |= dict.fromkeys(LARGE, "large")
# These take longest and come first, so that both processes end at about the same time.
LONG = ("test_devices.py", "test_overfit.py", "test_house.py", "test_faults.py")


def pytest_collection_modifyitems(items):
    """Both processes sort alike."""
    items.sort(key=lambda item: item.path.name not in LONG)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """See ``TOGETHER``. xdist's own groups have no effect with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Shared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].rpartition("/")[2]
            return "ray" if "[ray" in nodeid else TOGETHER.get(file, nodeid)

    return Shared(config, log)


@pytest.fixture(scope="session", autouse=True)
def same_on_every_cpu():
    """``auto`` is float32 on the CPU, whatever is fastest here; bfloat16 is tested by name."""
    import torch

    from gazetell.models import precision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_cpu_flags", set)
        # Cached as the real one is: torch's compiler unwraps it when it is first imported.
        patch.setattr(torch.backends.mps, "is_available", functools.cache(lambda: False))
        yield


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A function from a family of ``large_models.FAMILIES`` to a tiny repository of it."""
    pytest.importorskip("transformers")
    from large_models import save_large

    home = tmp_path_factory.mktemp("large")

    @cache
    def repository(family: str) -> Path:
        return save_large(home / family, family)

    return repository


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset: 12 training, 6 validation and 6 test scenes. Not to be written to."""
    from gazetell import scenes

    folder = tmp_path_factory.mktemp("scenes") / "data"
    scenes.generate(folder, train=12, val=6, test=6, captions_per_image=3, questions_per_image=1)
    return folder


@pytest.fixture(scope="session")
def scenes_dataset(scenes_folder):
    """The dataset in ``scenes_folder``, opened."""
    from gazetell.data.records import Dataset

    return Dataset.open(scenes_folder)


@pytest.fixture(scope="session")
def untrained(scenes_dataset):
    """A function that builds an untrained model of the scenes' words; options by name."""
    import torch

    from gazetell.data.text import Tokenizer
    from gazetell.models.captioners import build_captioner
    from gazetell.models.encoders import Encoder, EncoderConfig
    from gazetell.models.folder import CaptionerFolder

    def build(
        seed: int = 0,
        size: int = 64,
        trainable: str = "none",
        architecture: str = "attention-lstm",
        blind: bool = False,
        **more,
    ) -> CaptionerFolder:
        torch.manual_seed(seed)
        texts = [text for record in scenes_dataset.captions for text in record.captions]
        tokenizer = Tokenizer.train(texts, min_frequency=1)
        encoder = Encoder(EncoderConfig("small-cnn", size=size, trainable=trainable)).eval()
        encoder.trunk[-2].weight.data *= 1000  # cells of about 1, so that pictures differ
        sizes = {"channels": encoder.channels, "vocabulary": tokenizer.vocab_size}
        sizes |= {"embedding": 12, "hidden": 16}
        captioner = build_captioner(architecture, **sizes, blind=blind).eval()
        for parameter in captioner.parameters():
            parameter.data *= 3  # decided opinions: captions of some words that differ
        return CaptionerFolder(captioner=captioner, encoder=encoder, tokenizer=tokenizer, **more)

    return build


@pytest.fixture(scope="session")
def confidence():
    """A function that makes a confidence for the captioners of ``untrained``; fields by name."""
    from gazetell.models.confidence import Confidence

    def build(**changes) -> Confidence:
        weights = (0.5, 0.1, -1.0, 0.0, -0.2)
        values = {"bias": 1.0, "threshold": 0.5, "centre": (0.0,) * 128, "scale": (1.0,) * 128}
        return Confidence(weights, **values | changes)

    return build


@pytest.fixture(scope="session")
def untrained_answerer(scenes_dataset):
    """A function that builds an untrained model of the scenes' questions; options by name.

    Its encoder is the one of ``untrained`` with the same seed.
    """
    import torch

    from gazetell.data.answers import AnswerVocabulary
    from gazetell.data.text import Tokenizer
    from gazetell.models.answerers import build_answerer
    from gazetell.models.encoders import Encoder, EncoderConfig
    from gazetell.models.folder import AnswererFolder

    def build(
        seed: int = 0,
        architecture: str = "dmn-plus",
        blind: bool = False,
        trainable: str = "none",
        options: dict | None = None,
        **more,
    ) -> AnswererFolder:
        torch.manual_seed(seed)
        training = scenes_dataset.questions_of("train")
        tokenizer = Tokenizer.train([record.question for record in training], min_frequency=1)
        answers = AnswerVocabulary.train(training)
        encoder = Encoder(EncoderConfig("small-cnn", size=64, trainable=trainable)).eval()
        encoder.trunk[-2].weight.data *= 1000  # cells of about 1, so that pictures differ
        own = {
            "bow-mlp": {"layers": 2, "width": 20},
            "lstm-vqa": {"hidden": 16, "layers": 2, "width": 20},
            "attention-vqa": {"hidden": 16, "width": 20},
            "dmn-plus": {"hidden": 16, "attention_width": 10},
        }
        answerer = build_answerer(
            architecture,
            channels=encoder.channels,
            vocabulary=tokenizer.vocab_size,
            answers=len(answers),
            embedding=12,
            blind=blind,
            **own[architecture] | (options or {}),
        ).eval()
        for parameter in answerer.parameters():
            parameter.data *= 3  # decided opinions: answers that differ
        return AnswererFolder(
            answerer=answerer, encoder=encoder, tokenizer=tokenizer, answers=answers, **more
        )

    return build


@pytest.fixture(scope="session")
def whole_pretrained(untrained, untrained_answerer, tmp_path_factory) -> Path:
    """A folder with ``photo``, a pair of untrained models; not to be written to."""
    from gazetell.models.folder import save_pair

    folder = tmp_path_factory.mktemp("pretrained")
    save_pair(folder / "photo", untrained(seed=2), untrained_answerer(seed=2), compact=True)
    return folder


@pytest.fixture
def photo(whole_pretrained, monkeypatch) -> Path:
    """The folder of ``photo``, as if it came with gazetell."""
    monkeypatch.setattr("gazetell.models.folder.PRETRAINED", whole_pretrained)
    return whole_pretrained / "photo"


@pytest.fixture
def model_folder(untrained, tmp_path) -> Path:
    """The folder of an untrained model, the test's own to damage."""
    from gazetell.models.folder import save_model

    folder = tmp_path / "model"
    save_model(folder, untrained(about={"dataset": "scenes", "seed": 0}))
    return folder
