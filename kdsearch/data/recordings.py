"""Cut beats from WFDB records as BeatGAN does from the MIT-BIH Arrhythmia Database.

Each lead is resampled to 360 Hz and filtered to 3-45 Hz; a window of 320 samples is cut around
each annotated beat (Zhou et al., BeatGAN, IJCAI 2019).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.beats import (
    NORMAL,
    Beats,
    BoolArray,
    FloatArray,
    IndexArray,
    Moments,
    TextArray,
)
from kdsearch.data.ecg import (
    CUTTING,
    FILTER_ORDER,
    SAMPLES_AFTER,
    SAMPLES_BEFORE,
    band_pass,
    distance,
    inside_record,
    r_peaks,
    windows,
)
from kdsearch.data.mitbih import is_mitbih
from kdsearch.data.progress import show_progress
from kdsearch.data.record_folder import Records, find_records, reason_to_skip
from kdsearch.data.settings import DataSettings
from kdsearch.data.signal_files import TABLE_SUFFIX
from kdsearch.data.wfdb_files import (
    ANNOTATOR,
    SAMPLING_RATE_HZ,
    Header,
    first_leads,
    named_leads,
    read_signal,
)
from kdsearch.errors import DataError
from kdsearch.files.cache import cached_arrays, sha256_of_files

# Part of the fingerprint: raise it whenever the same files would give other beats. MIT-BIH,
# which is cut as published, has a separate number.
RECIPE_VERSION, PUBLISHED_RECIPE = 3, "wfdb recipe 2, {leads} leads"
# Of the entries in the cache, which hold more than the fingerprint vouches for.
CACHE_VERSION = 1

NEAREST_R_PEAK_SAMPLES = 10
LEADS_KEPT = 2
# Fraction of left-out normal beats in a record above which there is a warning.
LOST_SHARE = 0.05
# Of names in a note; what is left is counted.
NAMED = 8

# Normal beats without an R peak nearby: left out as BeatGAN does, left out if the inverted lead
# has none either, or kept.
Rule = Literal["published", "either sign", "none"]
# The columns of what is counted in each record.
COUNTS = ("beats", "outside", "in a gap", "normal", "unconfirmed")
# Why beats are left out, by the column that counts them.
LEFT_OUT = {
    "outside": "too near the ends of their records",
    "in a gap": "over missing values of the signal",
    "unconfirmed": "labelled normal where a detector finds no R peak (data.unconfirmed)",
}


@dataclass(frozen=True)
class CutBeats:
    """The beats of one record, in the order in which they came.

    Attributes:
        x: Filtered, shape (n, leads, 320).
        classes: AAMI classes, shape (n,).
        moments: When they came; intervals are those to any annotated beat, cut or not.
        counts: By the names of ``COUNTS``: annotated beats; of these the ones too near the
            record's ends, and over a gap in the signal; of the rest the normal ones, and of
            these those without an R peak.
        notes: Notes for the user, a sentence each.
    """

    x: FloatArray
    classes: TextArray
    moments: Moments
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def load(folder: Path, settings: DataSettings, cache: Path) -> Beats:
    """Beats of all WFDB records in a folder, cut once and then memory-mapped from the cache.

    Args:
        folder: Holds NAME.hea, its signal files and its annotations, of each record; or
            folders of such records. MIT-BIH's paced records are left out.
        settings: Leads, annotator, and the rules for bad records and unconfirmed beats.
        cache: Where cut beats are kept.

    Raises:
        DataError: A record cannot be used and ``on_bad`` does not allow to skip it, or no
            record can.
    """
    records = find_records(folder, settings)
    headers, kept = _with_leads(records, settings)
    key = _key(headers, kept, settings)
    entry = cache / "beats" / f"{key}-{CACHE_VERSION}"
    arrays = cached_arrays(entry, lambda: _cut_all(headers, kept, settings))
    counts = dict(zip(COUNTS, arrays["counts"].T, strict=True))
    names = [header.name for header in headers]
    columns = ({header.leads[i] for header in headers} for i in range(kept))
    leads = tuple(column.pop() if len(column) == 1 else None for column in columns)
    return Beats(
        x=arrays["x"],
        classes=arrays["classes"],
        record=arrays["record"],
        fingerprint=key,
        description=_describe(headers, len(arrays["x"])),
        cutting=replace(CUTTING, leads=leads),
        moments=Moments(*arrays["moments"]),
        left_out=dict(zip(names, counts["unconfirmed"].tolist(), strict=True)),
        notes=(
            *records.notes,
            *_skipped([*records.skipped, *map(str, arrays["skipped"])]),
            *_mixed_leads(headers, settings),
            *_left_out(names, counts),
            *map(str, arrays["notes"]),
        ),
    )


def _with_leads(records: Records, settings: DataSettings) -> tuple[list[Header], int]:
    """The headers with their leads in the order of use, and how many are cut."""
    if isinstance(settings.leads, int):
        headers = [first_leads(header) for header in records.headers]
        poorest = min(headers, key=lambda header: len(header.leads))
        if len(poorest.leads) < settings.leads:
            raise DataError(
                f"{poorest.file}: data.leads is {settings.leads}, but the record has "
                f"{len(poorest.leads)} ({', '.join(poorest.leads)})"
            )
        # Two are kept even for a search on one, so that both searches share one cutting.
        return headers, min(max(settings.leads, LEADS_KEPT), len(poorest.leads))
    headers = []
    for header in records.headers:
        try:
            headers.append(named_leads(header, settings.leads))
        except DataError as error:
            records.skipped.append(reason_to_skip(error, settings))
    if not headers:
        raise DataError(f"no record can be used; the first: {records.skipped[0]}")
    return headers, len(settings.leads)


def _rule(header: Header, settings: DataSettings) -> Rule:
    if settings.unconfirmed == "keep":
        return "none"
    if is_mitbih(header):
        return "published"
    return "either sign" if settings.unconfirmed == "drop" else "none"


def _key(headers: Sequence[Header], leads: int, settings: DataSettings) -> str:
    files = [file for header in headers for file in header.needed_files(settings.annotator)]
    rules = {_rule(header, settings) for header in headers}
    usual = settings.annotator == ANNOTATOR and isinstance(settings.leads, int)
    if rules == {"published"} and usual and settings.on_bad == "refuse":
        return sha256_of_files(files, PUBLISHED_RECIPE.format(leads=leads))
    recipe = {
        "version": RECIPE_VERSION,
        "leads": leads,
        "records": [(header.name, header.leads[:leads]) for header in headers],
        "rules": [_rule(header, settings) for header in headers],
        "annotator": settings.annotator,
        "on_bad": settings.on_bad,
    }
    return sha256_of_files(files, f"wfdb {json.dumps(recipe, sort_keys=True)}")


def _cut_all(
    headers: Sequence[Header], leads: int, settings: DataSettings
) -> Mapping[str, NDArray[Any]]:
    import joblib  # type: ignore[import-untyped]  # noqa: PLC0415  # slow to import

    # joblib's processes need no guarded main module, unlike those of concurrent.futures.
    # To start one costs as much as cutting a few records.
    processes = min(max(1, len(headers) // 4), joblib.cpu_count())
    jobs = joblib.Parallel(n_jobs=processes, return_as="generator")
    cuts = jobs(joblib.delayed(_cut_or_skip)(header, leads, settings) for header in headers)
    parts = list(show_progress(cuts, "Cutting beats", total=len(headers)))
    beats = [part for part in parts if isinstance(part, CutBeats)]
    skipped = [part for part in parts if isinstance(part, str)]
    total = sum(len(part.classes) for part in beats)
    if total == 0:
        why = f"; the first: {skipped[0]}" if skipped else ""
        raise DataError(
            f"{headers[0].path.parent}: not one beat could be cut from its records{why}"
        )
    moments = Moments.join([part.moments for part in beats])
    sizes = [len(part.classes) if isinstance(part, CutBeats) else 0 for part in parts]
    counts = [part.counts if isinstance(part, CutBeats) else {} for part in parts]
    return {
        "x": np.concatenate([part.x for part in beats]),
        "classes": np.concatenate([part.classes for part in beats]),
        "record": np.repeat([header.name for header in headers], sizes),
        "moments": np.stack([moments.time_s, moments.before_s, moments.after_s]),
        "counts": np.array([[c.get(name, 0) for name in COUNTS] for c in counts]),
        "skipped": np.array(skipped, dtype=np.str_),
        "notes": np.array([note for part in beats for note in part.notes], dtype=np.str_),
    }


def _cut_or_skip(header: Header, leads: int, settings: DataSettings) -> CutBeats | str:
    try:
        return cut_record(
            header,
            leads,
            rule=_rule(header, settings),
            annotator=settings.annotator,
            gaps=settings.on_bad == "skip",
        )
    except DataError as error:
        return reason_to_skip(error, settings)


def cut_record(
    header: Header,
    leads: int,
    *,
    rule: Rule = "published",
    annotator: str = ANNOTATOR,
    gaps: bool = False,
) -> CutBeats:
    """Filter one record and cut a window around each annotated beat.

    Args:
        header: Its leads are in the order of use.
        leads: How many of them to cut.
        rule: Which normal beats are left out.
        annotator: The extension of the file of annotations.
        gaps: Leave out beats without all their samples instead of refusing the record.

    Raises:
        DataError: The signal or the annotations cannot be read, hold NaN or no beat.
    """
    raw, gap = read_signal(header, leads, gaps=gaps)
    signal = band_pass(raw)
    marks = header.marks(annotator)
    if marks is None:
        raise DataError(f"{header.file}: none of its beats is annotated")
    is_beat = marks.classes != ""
    moments = Moments.of_times(marks.position / SAMPLING_RATE_HZ)[is_beat]
    position, classes = marks.position[is_beat], marks.classes[is_beat]
    inside = inside_record(position, signal)
    # Without a missing value within reach of the filter.
    missing = np.concatenate([[0], np.cumsum(gap)])
    low = (position - SAMPLES_BEFORE - FILTER_ORDER).clip(0, len(gap))
    high = (position + SAMPLES_AFTER + FILTER_ORDER).clip(0, len(gap))
    whole = inside & (missing[high] == missing[low])
    normal = whole & (classes == NORMAL)
    kept = whole & (~normal | _confirmed(position, signal, rule))
    return CutBeats(
        x=windows(signal, position[kept]),
        classes=classes[kept],
        moments=moments[kept],
        counts={
            "beats": len(position),
            "outside": int(np.count_nonzero(~inside)),
            "in a gap": int(np.count_nonzero(inside & ~whole)),
            "normal": int(np.count_nonzero(normal)),
            "unconfirmed": int(np.count_nonzero(whole & ~kept)),
        },
        notes=marks.notes,
    )


def _confirmed(position: IndexArray, signal: NDArray[np.float64], rule: Rule) -> BoolArray:
    """Which beats have an R peak of the first lead nearby, shape (n,).

    A detector looks for peaks that point up. If the rule allows it, the lead is also tried
    inverted, and the sign with more confirmed beats is used.
    """
    if rule == "none" or len(position) == 0 or signal.shape[1] == 0:
        return np.ones(len(position), dtype=np.bool_)
    signs = (1,) if rule == "published" else (1, -1)
    peaks = [r_peaks(sign * signal[0]) for sign in signs]
    near = [np.asarray(distance(position, p) < NEAREST_R_PEAK_SAMPLES) for p in peaks]
    return max(near, key=np.count_nonzero)


def _describe(headers: Sequence[Header], beats: int) -> str:
    folder = headers[0].path.parent
    for _ in range(headers[0].name.count("/")):
        folder = folder.parent
    kinds = {".hea": "WFDB records", TABLE_SUFFIX: "tables of samples"}
    kind = kinds.get(headers[0].file.suffix.lower(), "EDF files")
    source = "MIT-BIH" if all(map(is_mitbih, headers)) else f"{kind} of {folder.name}"
    plural = "" if len(headers) == 1 else "s"
    return f"{source}, {len(headers)} record{plural}, {beats:,} beats"


def _skipped(reasons: Sequence[str]) -> list[str]:
    if not reasons:
        return []
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    plural = "s" * (len(reasons) > 1)
    return [
        f"warning: {len(reasons)} record{plural} skipped: {'; '.join(reasons[:NAMED])}{more}"
    ]


def _mixed_leads(headers: Sequence[Header], settings: DataSettings) -> list[str]:
    notes = []
    for number in range(settings.lead_count):
        found: dict[str, list[str]] = defaultdict(list)
        for header in headers:
            found[header.leads[number]].append(header.name)
        if len(found) > 1:
            which = ", ".join(
                f"{lead} ({_names(records)})"
                for lead, records in sorted(found.items(), key=lambda item: -len(item[1]))
            )
            notes.append(
                f"warning: records differ in lead {number + 1}, which is chosen by its "
                f"number: {which}; data.leads also takes names, as [II, V5]"
            )
    return notes


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED // 2 else f"{len(names)} records"


def _left_out(names: Sequence[str], counts: Mapping[str, IndexArray]) -> list[str]:
    """Return how many beats were left out and why, by record."""
    notes = []
    for column, reason in LEFT_OUT.items():
        of = counts["normal" if column == "unconfirmed" else "beats"]
        # One or two beats at the ends of a record are normal.
        lost = counts[column] * (counts[column] > (2 if column == "outside" else 0))
        share = lost / np.maximum(of, 1)
        if lost.any():
            each = ", ".join(
                f"{name} {number:,} ({part:.1%})"
                for name, number, part in zip(names, lost, share, strict=True)
                if number
            )
            warning = "warning: " if (share > LOST_SHARE).any() else ""
            total = int(lost.sum())
            plural = "s" * (total > 1)
            notes.append(f"{warning}{total:,} beat{plural} left out, {reason}: {each}")
    return notes
