"""The MIT-BIH Arrhythmia Database: its records, its usual split, and its download.

Of its 48 records the 44 without a pacemaker are used, which gives 97,568 beats as BeatGAN cut
them: N 86,717, S 3,026, V 7,008, F 802, Q 15 (Zhou et al., BeatGAN, IJCAI 2019; the database
is by Moody and Mark, IEEE Eng. in Med. and Biol. 20(3), 2001).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tempfile
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from kdsearch.data.progress import show_progress
from kdsearch.data.wfdb_files import SAMPLING_RATE_HZ, Header
from kdsearch.errors import DataError
from kdsearch.extras import needs
from kdsearch.files.atomic import make_folder, put_folder

PACED = ("102", "104", "107", "217")
# de Chazal, O'Dwyer and Reilly, IEEE Trans. Biomed. Eng. 51(7), 2004.
# fmt: off
DS1 = (
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122",
    "124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230",
)
DS2 = (
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210",
    "212", "213", "214", "219", "221", "222", "228", "231", "232", "233", "234",
)
# fmt: on
NOT_PACED = tuple(sorted(DS1 + DS2))
ALL_RECORDS = frozenset(NOT_PACED + PACED)
SAMPLES = 650_000  # of each record
# According to the header of 202, both records are of the same man; all others are of one
# patient each. The literature has 201 in DS1 and 202 in DS2.
PATIENT_OF = {"202": "201"}

PHYSIONET_NAME = "mitdb"
SUMS = "SHA256SUMS.txt"
EXTENSIONS = ("hea", "dat", "atr")


def is_mitbih(header: Header) -> bool:
    """Whether this is a record of the database, by its number and its form.

    Records of other databases may have the same numbers.
    """
    form = header.rate_hz, header.frames
    return header.path.name in ALL_RECORDS and form == (SAMPLING_RATE_HZ, SAMPLES)


def fetch(cache: Path) -> Path:
    """The folder of the downloaded MIT-BIH records, downloaded if it is not there yet."""
    folder = cache / "mitdb-1.0.0"
    if not folder.is_dir():
        download(folder)
    return folder


def download(folder: Path) -> None:
    """Fetch the 44 records from PhysioNet; the folder appears once all of it is there.

    Raises:
        DataError: PhysioNet cannot be reached, or a checksum differs.
    """
    try:
        make_folder(folder.parent)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if folder.is_dir():
                return  # another process has fetched it while we waited
            for leftover in folder.parent.glob(f"{folder.name}.tmp*"):
                shutil.rmtree(leftover)
            fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp", dir=folder.parent))
            try:
                _download_into(fresh)
                put_folder(fresh, folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except (OSError, HTTPException) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise DataError(
            "data.source: cannot download MIT-BIH from PhysioNet; if you have its records, "
            f"give their folder with --data ({reason})"
        ) from None


def _download_into(folder: Path) -> None:
    with needs("ecg", "the download of MIT-BIH"):
        import wfdb  # noqa: PLC0415

    files = [[SUMS], *([f"{name}.{end}" for end in EXTENSIONS] for name in NOT_PACED)]
    for batch in show_progress(files, "Downloading MIT-BIH from PhysioNet", total=len(files)):
        with contextlib.redirect_stdout(io.StringIO()):  # wfdb prints as it goes
            wfdb.dl_files(PHYSIONET_NAME, str(folder), batch)
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    expected = {name: digest for digest, name in (line.split() for line in lines if line)}
    for name in (name for batch in files[1:] for name in batch):
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected.get(name):
            raise OSError(f"{name}: wrong checksum after the download; try again")
