"""Tables of samples and EDF files hold the same recording as a WFDB record."""

from collections.abc import Callable
from pathlib import Path

import edfio
import numpy as np
import pytest
from wfdb_cases import PEAKS, RATE, SECONDS, SYMBOLS, ecg, write_record

from kdsearch.data import Beats, DataSettings, load_beats
from kdsearch.data.pieces import pieces
from kdsearch.data.signal_files import is_signal, read_csv_signal, read_edf
from kdsearch.data.wfdb_files import Header
from kdsearch.errors import DataError

SIGNAL = np.stack([ecg(PEAKS / RATE, SECONDS, RATE)] * 2, axis=1) * [1, 0.5]
AT = {int(at): symbol for at, symbol in zip(PEAKS, SYMBOLS, strict=True)}


def write_csv(
    path: Path, *, head: str | None = "time,MLII,V5,symbol", symbols: bool = True
) -> Path:
    lines = [] if head is None else [head]
    for i, (mlii, v5) in enumerate(SIGNAL):
        cells = [f"{mlii:.6f}", f"{v5:.6f}"]
        if head is not None and "time" in head:
            cells.insert(0, f"{100 + i / RATE:.3f}")
        if head is not None and "symbol" in head:
            cells.append(AT.get(i, "") if symbols else "")
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_edf(path: Path, *, symbols: bool = True, rates: tuple[int, ...] = (360, 360)) -> Path:
    signals = [
        edfio.EdfSignal(
            column[:: RATE // rate],
            sampling_frequency=rate,
            label=label,
            physical_dimension="mV",
            physical_range=(-5, 5),
        )
        for column, rate, label in zip(SIGNAL.T, rates, ("ECG MLII", "V5"), strict=True)
    ]
    breath = edfio.EdfSignal(np.zeros(SECONDS), 1, label="Resp", physical_dimension="%")
    marks = [edfio.EdfAnnotation(at / RATE, None, text) for at, text in AT.items()]
    marks.append(edfio.EdfAnnotation(1.0, None, "the patient coughs"))
    edfio.Edf([breath, *signals], annotations=marks if symbols else marks[-1:]).write(path)
    return path


def whole(header: Header) -> np.ndarray:
    (piece,) = pieces(header, 2, 60, 1)
    return piece.signal


@pytest.mark.parametrize("head", ["time,MLII,V5,symbol", "MLII,V5", None])
def test_a_table_of_samples(tmp_path: Path, head: str | None):
    path = write_csv(tmp_path / "r1.csv", head=head)
    timed = head is not None and "time" in head
    assert is_signal(path) == timed
    header = read_csv_signal(path, None if timed else 360)
    assert header.rate_hz == 360
    assert header.leads == (("column 1", "column 2") if head is None else ("MLII", "V5"))
    assert (header.frames, header.name) == (len(SIGNAL), "r1")
    (block,) = header.blocks(2, 10_000)
    np.testing.assert_allclose(np.stack(block, axis=1), SIGNAL, atol=1e-6)
    blocks = [np.stack(block) for block in header.blocks(2, 1000)]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), block)


def test_annotations_of_a_table_and_of_an_edf_file(tmp_path: Path):
    for header in (
        read_csv_signal(write_csv(tmp_path / "r1.csv"), None),
        read_edf(write_edf(tmp_path / "r1.edf")),
    ):
        marks = header.marks()
        assert marks is not None
        np.testing.assert_array_equal(marks.sample, np.delete(PEAKS, SYMBOLS.index("+")))
        np.testing.assert_array_equal(marks.position, marks.sample + 1)
        assert "".join(marks.classes).startswith("NNSVFQ")
    assert read_edf(write_edf(tmp_path / "plain.edf", symbols=False)).marks() is None
    plain = write_csv(tmp_path / "plain.csv", symbols=False)
    assert read_csv_signal(plain, None).marks() is None


@pytest.mark.parametrize("rates", [(360, 360), (360, 180)])
def test_an_edf_file(tmp_path: Path, rates: tuple[int, int]):
    header = read_edf(write_edf(tmp_path / "r1.edf", rates=rates))
    assert header.leads == ("MLII", "V5")
    assert header.rate_hz == rates[1]
    assert header.frame == (360 // rates[1], 1)
    for block in (next(header.blocks(2, 10_000)), *list(header.blocks(2, 7))[2:3]):
        start = 0 if len(block[1]) > 7 else 14
        for column, expected, step in zip(block, SIGNAL.T, (1, RATE // rates[1]), strict=True):
            first = start * header.frame[0] if step == 1 else start
            found = expected[::step][first : first + len(column)]
            np.testing.assert_allclose(column, found, atol=2e-4)
    table = read_csv_signal(write_csv(tmp_path / "r1.csv"), None)
    np.testing.assert_allclose(whole(header)[0], whole(table)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.000000,0.000000,\n", ",0.0,\n", "line 2, column MLII: expected a number, found ''"),
        ("100.003,0.000000", "100.003,nan", r"no value \(NaN\) in lead MLII, sample 1"),
        (
            "100.003,",
            "100.503,",
            "line 3: samples must be evenly spaced, but at 360 Hz the time",
        ),
        ("100.000", "noon", "column time: expected seconds, found 'noon,"),
        ("100.000", "200.000", "its times do not increase"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, old: str, new: str, message: str):
    path = write_csv(tmp_path / "r1.csv", symbols=False)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        list(read_csv_signal(path, None).blocks(2, 1000))


@pytest.mark.parametrize(
    ("write", "suffix", "kind"),
    [(write_edf, ".edf", "EDF files"), (write_csv, ".csv", "tables of samples")],
)
def test_training_beats_from_single_files(
    tmp_path: Path, write: Callable[..., Path], suffix: str, kind: str
):
    def load(folder: Path, **settings: object) -> Beats:
        return load_beats(
            DataSettings.model_validate({"source": str(folder), **settings}), tmp_path / "cache"
        )

    write_record(tmp_path / "wfdb", "a1")
    write_record(tmp_path / "wfdb", "a2")
    folder = tmp_path / "files"
    (folder / "s1").mkdir(parents=True)
    for name in ("a1", "a2"):
        write(folder / "s1" / f"{name}{suffix}")
    # Not a table of samples.
    (folder / "patients.csv").write_text("record,patient\ns1/a1,1\ns1/a2,1\n")
    expected, found = load(tmp_path / "wfdb"), load(folder)
    assert found.description == f"{kind} of files, 2 records, 36 beats"
    assert sorted(set(found.record)) == ["s1/a1", "s1/a2"]
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-3)
    plain = write(folder / "s1" / f"a3{suffix}", symbols=False)
    with pytest.raises(DataError, match=rf"a3\{suffix}: none of its beats is annotated"):
        load(folder)
    skipped = load(folder, on_bad="skip")
    assert len(skipped.x) == 36
    assert any("1 record skipped" in note for note in skipped.notes)
    plain.unlink()
    assert load(folder).fingerprint == found.fingerprint


def test_edf_files_at_other_rates_are_other_beats(tmp_path: Path):
    settings = DataSettings(source=str(tmp_path / "edf"))
    (tmp_path / "edf").mkdir()
    # Tables beside EDF files are not even opened.
    (tmp_path / "edf" / "notes.csv").write_bytes("Größe".encode("latin-1"))
    prints = set()
    for rates in ((360, 360), (360, 180)):
        write_edf(tmp_path / "edf" / "a1.edf", rates=rates)
        prints.add(load_beats(settings, tmp_path / "cache").fingerprint)
    assert len(prints) == 2


def test_tables_without_times_are_no_recordings(tmp_path: Path):
    write_csv(tmp_path / "a1.csv", head="MLII,V5,symbol")
    with pytest.raises(DataError, match=r"nor tables of samples \(\.csv with a column"):
        load_beats(DataSettings(source=str(tmp_path)), tmp_path / "cache")


def test_a_bdf_file_has_24_bits(tmp_path: Path):
    lead = edfio.BdfSignal(
        SIGNAL[:, 0], 360, label="EKG II", physical_dimension="uV", physical_range=(-5, 5)
    )
    mark = edfio.EdfAnnotation(PEAKS[3] / RATE, None, "V")
    edfio.Bdf([lead], annotations=[mark]).write(tmp_path / "r1.bdf")
    header = read_edf(tmp_path / "r1.bdf")
    assert (header.leads, header.name) == (("II",), "r1")
    ((column,),) = header.blocks(1, 10_000)
    np.testing.assert_allclose(column, SIGNAL[:, 0], atol=1e-6)
    marks = header.marks()
    assert marks is not None
    assert (marks.sample.tolist(), marks.classes.tolist()) == ([PEAKS[3]], ["V"])


def test_tables_without_samples_are_refused(tmp_path: Path):
    for text in ("", "\n", "time,II\n", "time\n0\n1\n", "II\n1.0"):
        (tmp_path / "r1.csv").write_text(text)
        with pytest.raises(DataError, match="no samples in it"):
            read_csv_signal(tmp_path / "r1.csv", 360)
    with pytest.raises(DataError, match="must be sampled at 50 to 100,000 Hz, but found 0 Hz"):
        read_csv_signal(write_csv(tmp_path / "r1.csv", head=None), 0.0)


def test_edf_files_that_are_refused(tmp_path: Path):
    path = tmp_path / "r1.edf"
    path.write_bytes(b"no EDF")
    with pytest.raises(DataError, match=r"r1\.edf: not a readable EDF file"):
        read_edf(path)
    with pytest.raises(
        DataError, match="must be multiples of the lowest, but found 120, 180 Hz"
    ):
        read_edf(write_edf(path, rates=(180, 120)))
    content = write_edf(path).read_bytes()
    path.write_bytes(content.replace(b"EDF+C", b"EDF+D", 1).replace(b"+19\x14", b"+29\x14", 1))
    with pytest.raises(DataError, match=r"EDF\+D file, which has gaps in time"):
        read_edf(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"truncated: 9 data records, but the header says 20"):
        read_edf(path)
