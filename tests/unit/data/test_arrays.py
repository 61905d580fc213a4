"""Arrays that somebody has cut: what is taken, and what is refused with which words."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from kdsearch.data import DataSettings, load_beats, load_dataset
from kdsearch.errors import DataError

X = np.random.default_rng(0).standard_normal((20, 2, 64)).astype(np.float32)
Y = np.arange(20) % 4 == 0


def load(source: Path, leads: int = 1):
    return load_beats(DataSettings(source=str(source), leads=leads), source.parent / "cache")


def npz(folder: Path, **arrays) -> Path:
    path = folder / "beats.npz"
    np.savez(path, **arrays)
    return path


def with_value(value: float) -> np.ndarray:
    x = X.astype(np.float64)
    x[3, 0, 5] = value
    return x


def test_an_npz_of_zeros_and_ones(tmp_path: Path):
    beats = load(npz(tmp_path, x=X.astype(np.float64), y=Y), leads=2)
    np.testing.assert_array_equal(beats.x, X)
    assert beats.x.dtype == np.float32
    assert beats.classes.tolist() == ["abnormal" if y else "N" for y in Y]
    assert beats.record is None
    assert beats.description == "beats.npz, 20 beats"
    assert not beats.simulated


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.float32, np.bool_])
def test_labels_of_any_number_type(tmp_path: Path, kind):
    beats = load(npz(tmp_path, x=X, y=Y.astype(kind)))
    assert (beats.classes == "abnormal").sum() == 5


def test_class_names_records_and_a_single_lead(tmp_path: Path):
    names = np.array(["N", "normal", " Normal ", "VT"] * 5)
    record = np.arange(20) // 10
    beats = load(npz(tmp_path, x=X[:, 0], y=names, record=record))
    assert beats.x.shape == (20, 1, 64)
    assert beats.classes.tolist() == ["N", "N", "N", "VT"] * 5
    assert beats.record is not None
    assert beats.record.tolist() == ["0"] * 10 + ["1"] * 10


@pytest.mark.parametrize("kind", [str, np.bytes_])
def test_zeros_and_ones_as_text(tmp_path: Path, kind):
    beats = load(npz(tmp_path, x=X, y=Y.astype(np.int64).astype(kind)))
    assert beats.classes.tolist() == ["abnormal" if y else "N" for y in Y]


def test_symbols_of_wfdb_are_their_aami_classes(tmp_path: Path):
    beats = load(npz(tmp_path, x=X, y=np.array(["N", "L", "A", "V", "r"] * 4)))
    assert beats.classes.tolist() == ["N", "N", "S", "V", "V"] * 4
    (note,) = beats.notes
    assert note == (
        "beats.npz: labels are read as WFDB's symbols: A as S (4), L as N (4), r as V (4)"
    )
    # Other names are nobody's symbols, and one that is no symbol makes the others names, too.
    for names in (["N", "A", "VT"], ["normal", "L", "tachy"]):
        named = load(npz(tmp_path, x=X[:18], y=np.array(names * 6)))
        assert named.classes.tolist() == ["N", *names[1:]] * 6
        assert named.notes == ()


def test_integers_are_beats_too(tmp_path: Path):
    beats = load(npz(tmp_path, x=(100 * X).astype(np.int16), y=Y))
    assert beats.x.dtype == np.float32


def test_float16_is_read_without_a_warning(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beats = load(npz(tmp_path, x=X.astype(np.float16), y=Y))
    assert beats.x.dtype == np.float32


def test_the_fingerprint_is_of_what_is_learned_from(tmp_path: Path):
    first = load(npz(tmp_path, x=X, y=Y)).fingerprint
    assert load(npz(tmp_path, x=X, y=Y)).fingerprint == first
    changed = [
        load(npz(tmp_path, x=with_value(9), y=Y)).fingerprint,
        load(npz(tmp_path, x=X, y=~Y)).fingerprint,
        load(npz(tmp_path, x=X, y=Y, record=np.arange(20))).fingerprint,
    ]
    assert len({first, *changed}) == 4


OBJECTS = np.array([{}] * 20, dtype=object)
BAD = {
    "no x": ({"y": Y}, r"beats\.npz: no array 'x' in it \(found: y\)"),
    "no y": ({"x": X}, r"no array 'y' in it \(found: x\)"),
    "NaN": ({"x": with_value(np.nan), "y": Y}, "x: beat 3, lead 0, sample 5 is nan"),
    "infinite": ({"x": with_value(-np.inf), "y": Y}, "beat 3, lead 0, sample 5 is -inf"),
    "infinite in float16": (
        {"x": with_value(np.inf).astype(np.float16), "y": Y},
        "beat 3, lead 0, sample 5 is inf",
    ),
    "huge": ({"x": with_value(1e300), "y": Y}, r"sample 5 is 1e\+300"),
    "text for beats": ({"x": X.astype("U8"), "y": Y}, "x: beats must be real numbers, but"),
    "complex beats": ({"x": X.astype(complex), "y": Y}, "real numbers, but are complex128"),
    "objects for beats": ({"x": OBJECTS, "y": Y}, "holds Python objects"),
    "objects for labels": ({"x": X, "y": OBJECTS}, "holds Python objects"),
    "one dimension": ({"x": X[:, 0, 0], "y": Y}, r"x: expected the shape .* found \(20,\)"),
    "four dimensions": ({"x": X[None], "y": Y}, r"found \(1, 20, 2, 64\)"),
    "no beats": ({"x": X[:0], "y": Y[:0]}, r"found \(0, 2, 64\)"),
    "too short": ({"x": X[..., :15], "y": Y}, "16 to 16,384 samples, but has 15"),
    "too long": ({"x": np.zeros((20, 20000)), "y": Y}, "but has 20,000"),
    "too few labels": ({"x": X, "y": Y[:7]}, r"y: expected one label for each of 20 .* \(7,\)"),
    "labels in a table": ({"x": X, "y": Y[:, None]}, r"found \(20, 1\)"),
    "unknown label": (
        {"x": X, "y": np.arange(20)},
        r"y: labels must be 0 .* but 2 was found",
    ),
    "NaN label": ({"x": X, "y": np.where(Y, np.nan, 0)}, "but nan was found"),
    "bytes for labels": (
        {"x": X, "y": np.array([b"\xff"] * 20)},
        r"y: not labels in UTF-8 \(UnicodeDecodeError",
    ),
    "dates for labels": (
        {"x": X, "y": np.zeros(20, "M8[s]")},
        r"0 and 1 or text, but are datetime64\[s\]",
    ),
    "empty label": ({"x": X, "y": np.array(["N", " "] * 10)}, "label of beat 1 is empty"),
    "only normal": ({"x": X, "y": Y & False}, "no abnormal beats, but both kinds are needed"),
    "only abnormal": ({"x": X, "y": Y | True}, "no normal beats, but both kinds are needed"),
    "few records": ({"x": X, "y": Y, "record": np.arange(3)}, r"record: .* found int64 \(3,\)"),
    "odd records": ({"x": X, "y": Y, "record": Y * 0.5}, "record: expected a number or a text"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD.keys())
def test_bad_npz_files_are_refused(tmp_path: Path, arrays, message: str):
    with pytest.raises(DataError, match=message) as error:
        load(npz(tmp_path, **arrays))
    assert str(error.value).startswith(str(tmp_path / "beats.npz"))


def test_more_leads_than_there_are(tmp_path: Path):
    with pytest.raises(DataError, match=r"x: data\.leads is 3, but the beats have 2"):
        load(npz(tmp_path, x=X, y=Y), leads=3)


def cut_off(path: Path) -> None:
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:2000])


NOT_ARCHIVES = {
    "empty": (lambda p: p.write_bytes(b""), "not a readable .npz file"),
    "text": (
        lambda p: p.write_text("x,y\n1,2\n"),
        "not a readable .npz file .holds Python objects",
    ),
    "cut off": (cut_off, r"not a readable \.npz file"),
    "single array": (lambda p: np.save(p.open("wb"), X), "a single array, not an .npz file"),
}


@pytest.mark.parametrize(("write", "message"), NOT_ARCHIVES.values(), ids=NOT_ARCHIVES.keys())
def test_files_that_are_no_npz(tmp_path: Path, write, message: str):
    write(tmp_path / "beats.npz")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "beats.npz")


def beatgan(folder: Path, **arrays) -> Path:
    for name, array in arrays.items():
        np.save(folder / f"{name}_samples.npy", array)
    return folder


def test_a_folder_as_beatgan_publishes_it(tmp_path: Path):
    beats = load(beatgan(tmp_path, N=X, V=X[:3] + 1.0, F=X[:2].astype(np.float64)), leads=2)
    assert beats.classes.tolist() == ["N"] * 20 + ["V"] * 3 + ["F"] * 2
    np.testing.assert_array_equal(beats.x[20:23], X[:3] + 1)
    assert beats.record is None


def test_an_empty_file_is_a_class_without_beats(tmp_path: Path):
    beats = load(beatgan(tmp_path, N=X, V=X[:3], Q=X[:0]))
    assert beats.classes.tolist() == ["N"] * 20 + ["V"] * 3


def test_a_folder_gives_the_leads_that_are_asked_for(tmp_path: Path):
    assert load(beatgan(tmp_path, N=X, V=X)).x.shape == (40, 1, 64)


BAD_FOLDERS = {
    "no normal": ({"V": X}, r"N_samples\.npy: missing"),
    "no abnormal": ({"N": X}, "no abnormal beats: none of S, V, F, Q"),
    "empty classes": ({"N": X, "V": X[:0], "Q": X[:0]}, "no abnormal beats: none of S, V"),
    "empty normal class": ({"N": X[:0], "V": X}, r"N_samples\.npy: expected the shape"),
    "other lengths": (
        {"N": X, "V": X[..., :32]},
        r"V_samples\.npy: 32 samples a beat, but N_samples\.npy has 64",
    ),
    "NaN": ({"N": X, "S": with_value(np.nan)}, r"S_samples\.npy: beat 3, .* is nan"),
    "pickles": (
        {"N": X, "Q": OBJECTS},
        r"Q_samples\.npy: not a readable \.npy .*Python objects",
    ),
    "few leads": ({"N": X[:, :0], "V": X}, r"N_samples\.npy: expected the shape"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS.keys())
def test_bad_folders_are_refused(tmp_path: Path, arrays, message: str):
    with pytest.raises(DataError, match=message):
        load(beatgan(tmp_path, **arrays))


def test_a_truncated_npy_is_named(tmp_path: Path):
    path = beatgan(tmp_path, N=X, V=X) / "V_samples.npy"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"V_samples\.npy: not a readable \.npy file"):
        load(tmp_path)


def test_beats_have_the_name_that_the_settings_give(tmp_path: Path, cache: Path):
    source = npz(tmp_path, x=X, y=Y)
    settings = DataSettings(source=str(source), unit="window")
    dataset = load_dataset(settings, cache)
    assert dataset.description.startswith("beats.npz, 20 windows; ")
    assert dataset.notes
    assert not [note for note in dataset.notes if re.search(r"\bbeats?\b", note)]
    with pytest.raises(DataError, match=r"data\.leads is 3, but the windows have 2"):
        load_dataset(settings.changed(leads=3), cache)
