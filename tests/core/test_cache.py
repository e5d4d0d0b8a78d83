"""The cache gives back what was put in, goes on where it stopped, and makes damaged entries anew."""

import numpy as np
import pytest

from stabilitykit.base.errors import StabilityKitError
from stabilitykit.base.files import write_json
from stabilitykit.evaluation.cache import TrajectoryCache, content_key, scratch_array, usable_default_root

SHAPE = (3, 10, 2)
TRUTH = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


class Filler:
    """Copies TRUTH in batches of 2 rows; stops with an error after ``stop`` rows."""

    def __init__(self, stop=None):
        self.stop, self.starts = stop, []

    def __call__(self, out, start, on_batch):
        self.starts.append(start)
        for row in range(start, SHAPE[1], 2):
            if self.stop is not None and row >= self.stop:
                raise KeyboardInterrupt
            out[:, row : row + 2] = TRUTH[:, row : row + 2]
            on_batch(row + 2)


@pytest.fixture(autouse=True)
def _flush_always(monkeypatch):
    monkeypatch.setattr("stabilitykit.evaluation.cache.FLUSH_SECONDS", 0.0)


def test_hit_after_miss(tmp_path):
    cache, fill = TrajectoryCache(tmp_path), Filler()
    first, info = cache.get({"a": 1}, SHAPE, fill)
    again, hit = cache.get({"a": 1}, SHAPE, fill)
    assert not info["hit"] and hit["hit"] and fill.starts == [0]
    assert np.array_equal(first, TRUTH) and np.array_equal(again, TRUTH)
    cache.get({"a": 2}, SHAPE, fill)
    assert fill.starts == [0, 0]


def test_interrupted_extraction_resumes(tmp_path):
    cache, broken, whole = TrajectoryCache(tmp_path), Filler(stop=6), Filler()
    with pytest.raises(KeyboardInterrupt):
        cache.get({}, SHAPE, broken)
    array, info = cache.get({}, SHAPE, whole)
    assert whole.starts == [6] and info["resumed_from"] == 6 and np.array_equal(array, TRUTH)


def test_a_flipped_bit_in_an_unfinished_entry_is_seen(tmp_path, capsys):
    cache, whole = TrajectoryCache(tmp_path), Filler()
    with pytest.raises(KeyboardInterrupt):
        cache.get({}, SHAPE, Filler(stop=6))
    data = next(tmp_path.rglob("logits.npy"))
    raw = bytearray(data.read_bytes())
    raw[-SHAPE[1] * SHAPE[2] * 4 + 3] ^= 1  # the first row at the last depth
    data.write_bytes(raw)
    array, _ = cache.get({}, SHAPE, whole)
    assert whole.starts == [0] and np.array_equal(array, TRUTH) and "damaged" in capsys.readouterr().err


def test_scratch_arrays_have_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("stabilitykit.evaluation.cache.SCRATCH_BYTES", 8)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = scratch_array(SHAPE, "float32")
    array[:] = TRUTH
    assert np.array_equal(array, TRUTH) and not list(tmp_path.iterdir())
    with pytest.raises(StabilityKitError, match="TMPDIR"):
        scratch_array((1 << 20, 1 << 20, 1 << 10), "float32")


def test_a_default_folder_that_cannot_be_written_is_done_without(monkeypatch, capsys):
    monkeypatch.delenv("STABILITYKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    assert usable_default_root() is None and "not kept" in capsys.readouterr().err
    monkeypatch.setenv("STABILITYKIT_CACHE", "/proc/nothing")  # asked for by name: an error later, no silent change
    assert usable_default_root() is not None


@pytest.mark.parametrize("damage", ["flip", "truncate", "record", "delete"])
def test_damaged_entry_is_made_again(tmp_path, damage):
    cache = TrajectoryCache(tmp_path)
    array, info = cache.get({}, SHAPE, Filler())
    del array
    folder = tmp_path / "trajectories" / info["key"][:2] / info["key"]
    data = folder / "logits.npy"
    raw = bytearray(data.read_bytes())
    if damage == "flip":
        raw[-3] ^= 1
        data.write_bytes(raw)
    elif damage == "truncate":
        data.write_bytes(raw[:-8])
    elif damage == "record":
        (folder / "record.json").write_text("{not json")
    else:
        data.unlink()
    again, info = cache.get({}, SHAPE, Filler())
    assert not info["hit"] and np.array_equal(again, TRUTH)


def test_lying_progress_file(tmp_path):
    cache = TrajectoryCache(tmp_path)
    folder = tmp_path / "trajectories" / content_key({})[:2] / content_key({})
    write_json(folder / "progress.json", {"rows": 8})
    array, _ = cache.get({}, SHAPE, Filler())
    assert np.array_equal(array, TRUTH)


def test_unwritable_root_names_the_cure(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StabilityKitError, match="--no-cache"):
        TrajectoryCache(tmp_path / "file").get({}, SHAPE, Filler())


def test_key_ignores_order_and_sees_values():
    assert content_key({"a": 1, "b": [np.int64(2)]}) == content_key({"b": [2], "a": 1})
    assert content_key({"a": 1, "b": [2]}) != content_key({"a": 1, "b": [3]})


@pytest.mark.parametrize("shape, dtype", [((3, 10, 2), "float64"), ((3, 10, 4), "float32"), ((2, 10, 3), "float32")])
def test_an_array_of_another_form_is_not_taken(tmp_path, shape, dtype):
    """One of the right number of rows, or of numbers, is not enough."""
    cache = TrajectoryCache(tmp_path)
    cache.get({}, SHAPE, Filler())

    def fill(out, start, on_batch):
        out[:] = 1

    found, info = cache.get({}, shape, fill, dtype)
    assert found.shape == shape and found.dtype == dtype and not info["hit"]


@pytest.mark.parametrize("place", range(0, TRUTH.nbytes, 37))
def test_a_flipped_bit_is_seen_wherever_it_is(tmp_path, place):
    cache = TrajectoryCache(tmp_path)
    array, info = cache.get({}, SHAPE, Filler())
    del array
    data = next(tmp_path.rglob("logits.npy"))
    raw = bytearray(data.read_bytes())
    raw[len(raw) - TRUTH.nbytes + place] ^= 1
    data.write_bytes(raw)
    again, info = cache.get({}, SHAPE, Filler())
    assert not info["hit"] and np.array_equal(again, TRUTH)
