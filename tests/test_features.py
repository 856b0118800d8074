"""Feature caches: what is in them, that a killed pass goes on, that damage is told."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from gazetell import features
from gazetell.data.records import CaptionRecord, Dataset
from gazetell.errors import DataError, ImageError, WriteError
from gazetell.features import FeatureCache, build_cache, cache_fingerprint, cache_folder
from gazetell.models.encoders import Encoder, EncoderConfig
from gazetell.pictures import open_image

COUNT, BLOCK, BATCH = 11, 4, 2


@pytest.fixture(scope="module")
def names(pictures):
    return sorted(path.name for path in pictures.iterdir())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of noise of many sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for n in range(COUNT):
        shape = (int(random.integers(40, 90)), int(random.integers(40, 90)), 3)
        noise = random.integers(0, 256, shape, np.uint8)
        Image.fromarray(noise).save(folder / f"{n:02d}.png")
    return folder


def make_encoder(seed=0, size=32):
    torch.manual_seed(seed)
    encoder = Encoder(EncoderConfig("small-cnn", size=size)).eval()
    encoder.trunk[-2].weight.data *= 1000  # values of about 1, as trained networks have
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(features, "BLOCK", BLOCK)


@pytest.fixture(scope="module")
def whole(encoder, pictures, names, tmp_path_factory):
    """The bytes of an uninterrupted pass."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BLOCK", BLOCK)
        build(encoder, pictures, names, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def build(encoder, root, names, folder, **options):
    options = {"flip": True, "batch": BATCH, "workers": 0, "precision": "fp32", **options}
    return build_cache(encoder, root, names, folder, **options)


class Stop(Exception):
    pass


def stopped_after(blocks, encoder, pictures, names, folder, **options):
    """A pass that stops once so many blocks are written."""
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) == blocks:
            raise Stop

    with pytest.raises(Stop):
        build(encoder, pictures, names, folder, progress=progress, **options)
    return seen[-1]


# -- what is in it ---------------------------------------------------------------------------


def test_the_cache_holds_what_the_encoder_sees(encoder, pictures, names, whole, tmp_path):
    cache = build(encoder, pictures, names, tmp_path)
    assert cache.names == names
    assert (cache.variants, cache.height, cache.width, cache.channels) == (2, 2, 2, 128)
    order = [7, 0, 3, 3]
    mirrored = np.array([False, True, True, False])
    cells = cache.load([names[n] for n in order], mirrored)
    assert cells.shape == (4, 4, 128)
    assert cells.dtype == torch.float16
    for row, (n, flip) in enumerate(zip(order, mirrored, strict=True)):
        picture = open_image(pictures / names[n])
        pixels = torch.from_numpy(encoder.pixels(picture))[None]
        with torch.no_grad():
            expected = encoder.encode(pixels.flip(3) if flip else pixels).cells[0]
        scale = float(expected.abs().max())
        assert torch.allclose(cells[row].float(), expected, rtol=1e-3, atol=1e-3 * scale)
    assert not torch.equal(cells[2], cells[3])
    plain = cache.load([names[3]])
    assert torch.equal(plain[0], cells[3])


def test_without_mirrored_copies(encoder, pictures, names, tmp_path):
    one = build(encoder, pictures, names, tmp_path / "one", flip=False)
    two = build(encoder, pictures, names, tmp_path / "two", flip=True)
    assert one.variants == 1
    assert torch.equal(one.load(names), two.load(names))
    assert (tmp_path / "one" / "grids.f16").stat().st_size == COUNT * 4 * 128 * 2
    with pytest.raises(DataError, match="no mirrored copies"):
        one.load(names[:2], np.array([False, True]))
    assert torch.equal(one.load(names, np.zeros(COUNT, bool)), one.load(names))


def test_workers_and_batches_change_nothing(encoder, pictures, names, whole, tmp_path):
    build(encoder, pictures, names, tmp_path / "w", workers=2)
    assert (tmp_path / "w" / "grids.f16").read_bytes() == whole["grids.f16"]
    other = build(encoder, pictures, names, tmp_path / "b", batch=5)
    expected = np.frombuffer(whole["grids.f16"], np.float16).reshape(COUNT, 2, 4, 128)
    assert 0.1 < expected.max() < 100
    assert np.allclose(other.grids, expected, rtol=2e-3, atol=1e-3 * expected.max())


def test_progress_counts_to_the_end(encoder, pictures, names, tmp_path):
    seen = []
    build(encoder, pictures, names, tmp_path, progress=lambda *at: seen.append(at))
    assert seen == [(4, 11), (8, 11), (11, 11)]


def test_a_whole_cache_is_not_made_again(encoder, pictures, names, tmp_path):
    build(encoder, pictures, names, tmp_path)
    before = (tmp_path / "grids.f16").stat().st_mtime_ns
    shutil.copytree(tmp_path, tmp_path.parent / "kept")
    cache = build(encoder, pictures.parent / "gone", names, tmp_path)
    assert cache.load(names[:1]).shape == (1, 4, 128)
    assert (tmp_path / "grids.f16").stat().st_mtime_ns >= before
    for path in (tmp_path.parent / "kept").iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_reading_maps_the_file(encoder, pictures, names, tmp_path):
    cache = build(encoder, pictures, names, tmp_path)
    assert isinstance(cache.grids, np.memmap)
    assert not cache.grids.flags.writeable
    cells = cache.load(names[:2])
    before = cells.clone()
    cells += 1  # a copy of its own: the file stays as it is
    assert torch.equal(cache.load(names[:2]), before)


def test_values_beyond_float16_are_cut_and_not_infinite(pictures, names, tmp_path):
    encoder = make_encoder()
    encoder.trunk[-2].weight.data *= 1e9
    cache = build(encoder, pictures, names[:2], tmp_path)
    assert np.isfinite(cache.grids).all()
    assert cache.grids.max() == 65504


def test_unknown_pictures_are_named(encoder, pictures, names, tmp_path):
    cache = build(encoder, pictures, names, tmp_path)
    with pytest.raises(DataError, match=r"no features of 'other\.png'"):
        cache.load([names[0], "other.png"])


# -- stopped and gone on ---------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_stopped_pass_goes_on(encoder, pictures, names, whole, tmp_path, blocks):
    done = stopped_after(blocks, encoder, pictures, names, tmp_path)
    assert done == blocks * BLOCK
    with pytest.raises(DataError, match=f"holds {done} of {COUNT} pictures"):
        FeatureCache(tmp_path)
    seen = []
    build(encoder, pictures, names, tmp_path, progress=lambda at, total: seen.append(at))
    assert seen[0] == min(done + BLOCK, COUNT)
    for name, data in whole.items():
        assert (tmp_path / name).read_bytes() == data, name


@pytest.mark.parametrize("extra", [b"x", b"half a block" * 99, bytes(4 * 4 * 128 * 2 * 2 * 9)])
def test_what_was_written_after_the_last_block_is_written_anew(
    encoder, pictures, names, whole, tmp_path, extra
):
    stopped_after(1, encoder, pictures, names, tmp_path)
    with (tmp_path / "grids.f16").open("ab") as file:
        file.write(extra)
    build(encoder, pictures, names, tmp_path)
    assert (tmp_path / "grids.f16").read_bytes() == whole["grids.f16"]


def test_a_state_older_than_the_bytes_is_believed(encoder, pictures, names, whole, tmp_path):
    stopped_after(1, encoder, pictures, names, tmp_path)
    earlier = (tmp_path / "features.json").read_bytes()
    build(encoder, pictures, names, tmp_path)
    (tmp_path / "features.json").write_bytes(earlier)
    build(encoder, pictures, names, tmp_path)
    for name, data in whole.items():
        assert (tmp_path / name).read_bytes() == data, name


def test_bytes_without_a_state_are_written_anew(encoder, pictures, names, whole, tmp_path):
    (tmp_path / "grids.f16").write_bytes(b"from a pass that was killed in its first block")
    (tmp_path / "names.json").write_text('["of", "other", "pictures"]')
    build(encoder, pictures, names, tmp_path)
    for name, data in whole.items():
        assert (tmp_path / name).read_bytes() == data, name


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from gazetell import features
from gazetell.models.encoders import Encoder, EncoderConfig

features.BLOCK = 4
torch.manual_seed(0)
encoder = Encoder(EncoderConfig("small-cnn", size=32))
encoder.trunk[-2].weight.data *= 1000
names = sorted(path.name for path in Path(sys.argv[1]).iterdir())
def progress(done, total):
    if done == 8:
        os.kill(os.getpid(), signal.SIGKILL)
features.build_cache(encoder, Path(sys.argv[1]), names, sys.argv[2], flip=True, batch=2, workers=0,
                     precision="fp32", progress=progress)
"""


def test_a_killed_process_loses_no_block(encoder, pictures, names, whole, tmp_path):
    ended = subprocess.run([sys.executable, "-c", KILLED, pictures, tmp_path], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "features.json").read_text())["done"] == 8
    seen = []
    build(encoder, pictures, names, tmp_path, progress=lambda at, total: seen.append(at))
    assert seen == [11]
    assert (tmp_path / "grids.f16").read_bytes() == whole["grids.f16"]


# -- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 5000, -1])
def test_a_damaged_byte_is_told(encoder, pictures, names, tmp_path, where):
    build(encoder, pictures, names, tmp_path)
    data = bytearray((tmp_path / "grids.f16").read_bytes())
    data[where] ^= 1
    (tmp_path / "grids.f16").write_bytes(data)
    with pytest.raises(DataError, match=r"grids\.f16: block \d is damaged"):
        FeatureCache(tmp_path)
    with pytest.raises(DataError, match="damaged"):
        build(encoder, pictures, names, tmp_path)


@pytest.mark.parametrize("cut", [0, 1000, -1])
def test_a_file_of_another_length_is_told(encoder, pictures, names, tmp_path, cut):
    build(encoder, pictures, names, tmp_path)
    data = (tmp_path / "grids.f16").read_bytes()
    (tmp_path / "grids.f16").write_bytes(data[:cut])
    with pytest.raises(DataError, match=r"grids\.f16: has \d+ bytes, expected"):
        FeatureCache(tmp_path)


@pytest.mark.parametrize("left", [None, 0, 1000])
def test_a_pass_does_not_go_on_where_records_are_lost(encoder, pictures, names, tmp_path, left):
    stopped_after(2, encoder, pictures, names, tmp_path)
    path = tmp_path / "grids.f16"
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match=r"grids\.f16: has \d+ bytes"):
        build(encoder, pictures, names, tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 0}'])
def test_a_foreign_state_is_told(encoder, pictures, names, tmp_path, text):
    (tmp_path / "features.json").write_text(text)
    for attempt in (
        lambda: FeatureCache(tmp_path),
        lambda: build(encoder, pictures, names, tmp_path),
    ):
        with pytest.raises(DataError, match=r"features\.json"):
            attempt()


def test_no_cache_is_told(tmp_path):
    with pytest.raises(DataError, match="is no feature cache"):
        FeatureCache(tmp_path)


def test_a_cache_of_something_else_is_not_overwritten(encoder, pictures, names, tmp_path):
    build(encoder, pictures, names, tmp_path)
    before = (tmp_path / "grids.f16").read_bytes()
    others = [
        (make_encoder(seed=1), names, True),
        (make_encoder(size=64), names, True),
        (encoder, names[1:], True),
        (encoder, names[::-1], True),
        (encoder, names, False),
    ]
    for other, listed, flip in others:
        with pytest.raises(DataError, match="another encoder or other pictures"):
            build(other, pictures, listed, tmp_path, flip=flip)
    assert (tmp_path / "grids.f16").read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_is_named_and_can_be_mended(
    encoder, pictures, names, whole, tmp_path, workers
):
    root = tmp_path / "root"
    shutil.copytree(pictures, root)
    (root / names[9]).write_bytes(b"no picture")
    with pytest.raises(ImageError, match=rf"{names[9]}: is no picture") as caught:
        build(encoder, root, names, tmp_path / "cache", workers=workers)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "cache" / "features.json").read_text())["done"] == 8
    shutil.copy(pictures / names[9], root)
    build(encoder, root, names, tmp_path / "cache")
    assert (tmp_path / "cache" / "grids.f16").read_bytes() == whole["grids.f16"]


# -- the disk --------------------------------------------------------------------------------


def test_a_disk_too_small_is_told_before_the_work(encoder, pictures, names, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage(9, 9, 20_000))
    with pytest.raises(WriteError, match=r"needs 0\.0 GB, 0\.0 GB are free"):
        build(encoder, pictures, names, tmp_path)
    assert not (tmp_path / "grids.f16").exists()
    # 2 variants of 4 cells of 128 float16 are 2048 bytes a picture.
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage(9, 9, 2048 * COUNT))
    build(encoder, pictures, names, tmp_path)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: usage(9, 9, 0))
    build(encoder, pictures, names, tmp_path)  # nothing left to write


def test_a_disk_that_fills_up_is_told_and_the_pass_goes_on(
    encoder, pictures, names, whole, tmp_path, monkeypatch
):
    real, calls = os.fsync, []

    def fsync(number):
        calls.append(number)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(features.os, "fsync", fsync)
    with pytest.raises(WriteError, match=r"grids\.f16: cannot be written: No space left"):
        build(encoder, pictures, names, tmp_path)
    assert json.loads((tmp_path / "features.json").read_text())["done"] == BLOCK
    build(encoder, pictures, names, tmp_path)
    assert (tmp_path / "grids.f16").read_bytes() == whole["grids.f16"]


def test_a_folder_that_cannot_be_made_is_told(encoder, pictures, names, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        build(encoder, pictures, names, tmp_path / "file" / "cache")


# -- where it lies ---------------------------------------------------------------------------


def test_a_dataset_has_its_caches_beside_it(encoder, pictures, tmp_path):
    records = tuple(
        CaptionRecord(str(n), name, ("a",), "train") for n, name in enumerate(["b", "a", "b"])
    )
    dataset = Dataset("d", "table", pictures, records, folder=tmp_path)
    folder, listed = cache_folder(dataset, encoder, flip=False)
    assert listed == ["a", "b"]
    assert folder.parent == tmp_path / "features"
    assert folder.name.startswith("small-cnn-32-")
    others = {
        cache_folder(dataset, encoder, flip=True)[0],
        cache_folder(dataset, make_encoder(seed=1), flip=False)[0],
        cache_folder(
            Dataset("d", "t", pictures, records[:1], folder=tmp_path), encoder, flip=False
        )[0],
        cache_folder(Dataset("d", "t", pictures, records), encoder, flip=False)[0],
    }
    assert len(others | {folder}) == 5
    same = Dataset("d", "t", pictures, records[::-1], folder=tmp_path)
    assert cache_folder(same, make_encoder(), flip=False)[0] == folder


def test_the_fingerprint_does_not_run_names_together(encoder):
    one = cache_fingerprint(encoder, ["a", "bc"], flip=False)
    assert one != cache_fingerprint(encoder, ["ab", "c"], flip=False)
    assert one == cache_fingerprint(encoder, ["a", "bc"], flip=False)
