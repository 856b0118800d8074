"""``gazetell features`` and ``gazetell vectors``: what is computed once, before training."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..data.records import Dataset
from ..data.vectors import Word2VecModel, write_word2vec
from ..errors import DataError, StoppedError, UsageError
from ..process import bar
from .terminal import on_terminal, report
from .train import Recipe, check_data, declared, given, named_class

# What a run has of an encoder, but what it trains.
TRAINED = ("encoder_trainable", "encoder_project", "encoder_learning_rate")
NAMES = [x for x in declared() if x.startswith("encoder") and x not in TRAINED] + ["flip"]
Seen = named_class("Seen", NAMES)


def features(
    data: Path,
    *,
    recipe: Recipe = None,
    options: Annotated[Seen, Parameter(name="*")] = Seen(),  # type: ignore[valid-type]  # noqa: B008
    batch: int = 64,
    workers: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    trust: bool = False,
) -> None:
    """Encode the pictures of a prepared dataset once; goes on where it was stopped.

    Args:
        data: A prepared dataset.
        recipe: Take the encoder's options from a training recipe; any given beside it wins.
        options: Of the encoder; with --flip each picture is also encoded mirrored.
        batch: Number of pictures per forward pass.
        workers: Processes that open pictures meanwhile, 1 if not given.
        seed: Random seed of the weights where --encoder-weights is none; 0 if not given.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, bf16 or fp32.
        engine: local, or ray for all devices of a cluster, whose machines see the same folder of
            pictures (extra cluster).
        address: Ray cluster, auto or host:port; if not given, one starts on this machine.
        trust: Run the code of an architecture that is not of gazetell, which the recipe or
            --encoder-from names.
    """
    if engine == "local" and address is not None:
        raise UsageError("--address: has no effect without --engine ray")
    check_data(data, recipe)
    import torch

    from ..features import build_cache
    from ..inference.cluster import check_ready, ray_records
    from ..models.precision import choose_device, choose_precision
    from ..training.options import train_options
    from ..training.task import first_encoder

    if engine == "ray":
        check_ready(device, address)
        if workers is not None:
            raise UsageError("--workers: has no effect with --engine ray")
        if precision == "auto":
            # The machines may differ, and a cache is of one precision.
            precision = choose_precision(choose_device("auto"), "auto").name
            report(f"all machines compute in {precision}, as this one does (see --precision)")
    workers = 1 if workers is None else workers
    numbers = {"batch": batch, "workers": workers, "seed": seed or 0}  # checked as those of a run
    run = train_options(recipe, trust=trust, **numbers, **given(options))
    if run.encoder_trainable != "none":
        raise UsageError(f"--recipe {recipe}: trains its encoder, so its features cannot be kept")
    given_weights = run.encoder_from or run.encoder_weights
    if seed is not None and given_weights != "none":
        raise UsageError(f"--seed: has no effect on weights {given_weights}")
    dataset = Dataset.open(data)
    # As a training run of this seed does: random weights then have one cache, not one a run.
    torch.manual_seed(seed or 0)
    network = first_encoder(run)
    where = choose_device(device if engine == "local" else "cpu")
    chosen = choose_precision(where, precision)
    report(
        f"{run.encoder} grid {network.height}x{network.width}x{network.trunk_channels}; "
        f"{where if engine == 'local' else 'Ray'}, {chosen.name} ({chosen.reason})"
    )
    encode = None
    if engine == "ray":
        how: dict[str, Any] = {"flip": run.flip, "batch": batch, "device": device}
        encode = ray_records(network, precision, dataset.root, address=address, **how)
    began = time.perf_counter()
    try:
        with bar("features", on_terminal(), report) as progress:
            cache = build_cache(
                *(dataset, network, where, chosen),
                flip=run.flip,
                batch=batch,
                workers=workers,
                encode=encode,
                progress=progress,
                report=report,
            )
    except KeyboardInterrupt as stop:
        report("stopped; the same command goes on with the pictures that are left")
        raise StoppedError from stop
    seconds = time.perf_counter() - began
    report(f"{len(cache.rows)} pictures, {cache.size / 1e6:.0f} MB, {seconds:.0f} s")
    print(cache.folder)


def vectors(
    data: Path,
    *,
    out: Path,
    model: Word2VecModel = "skipgram",
    size: int = 256,
    epochs: int = 20,
    window: int = 5,
    min_frequency: int = 5,
    seed: int = 0,
) -> None:
    """Pretrain word vectors on the training captions and questions of a dataset (word2vec).

    Args:
        data: A prepared dataset.
        out: The file to write, text in the format of word2vec; gzip'd if it ends in .gz.
        model: skipgram, or cbow, which is faster.
        size: Numbers per word; the embedding of the model that will start from them.
        epochs: Passes over the texts.
        window: Neighbours to each side that a word is learnt from, at most.
        min_frequency: Words rarer than this are unknown; give training the same.
        seed: Random seed.
    """
    dataset = Dataset.open(data)
    if out.is_file() and out.resolve().parent == data.resolve():
        raise UsageError(f"--out {out}: is a file of the dataset; expected another name")
    texts = [text for r in dataset.captions if r.split == "train" for text in r.captions]
    texts += [record.question for record in dataset.questions if record.split == "train"]
    if not texts:
        raise DataError(f"{data}: split 'train' has no captions and no questions")
    began = time.perf_counter()
    options: dict[str, Any] = {"model": model, "size": size, "epochs": epochs, "window": window}
    words, running = write_word2vec(out, texts, min_frequency=min_frequency, seed=seed, **options)
    seconds = time.perf_counter() - began
    report(
        f"{model}: {words} words of {size} numbers, from {running} running words "
        f"in {len(texts)} texts, {epochs} epochs in {seconds:.1f} s"
    )
    print(out)
