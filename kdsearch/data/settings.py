"""What can be configured of the beats; the only place of defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdsearch.settings import Count, Section

SplitKind = Literal["fold", "inter_patient", "stratified"]

Millivolts = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]


class SimulatedSettings(Section):
    """The beats that are made up where there are no real ones."""

    patients: Annotated[int, Field(ge=2, le=1000)] = 24
    """Patients, each with a heart rate, wave shapes and ectopic foci of its own."""
    beats: Annotated[int, Field(ge=100, le=1_000_000)] = 7000
    """Beats of all patients together; at least ten per patient."""
    abnormal: Annotated[float, Field(ge=0.001, le=0.9)] = 0.16
    """Share of abnormal beats, divided among S, V, F and Q roughly as in MIT-BIH."""
    noise_mv: Millivolts = 0.02
    """Standard deviation of the muscle noise; single patients have more or less of it."""

    @model_validator(mode="after")
    def _enough_beats(self) -> SimulatedSettings:
        if self.beats < 10 * self.patients:
            raise ValueError(
                f"needs at least ten beats per patient, but beats={self.beats} "
                f"and patients={self.patients}"
            )
        return self


class DataSettings(Section):
    """The section ``data``: which beats, and which of them train, validate and test."""

    source: Annotated[str, Field(min_length=1)] = "simulated"
    """``simulated``, ``mitbih`` (downloaded once), or a path: WFDB records, .npz or .npy."""
    leads: (
        Annotated[int, Field(ge=1, le=1000)] | Annotated[tuple[str, ...], Field(min_length=1)]
    ) = 1
    """How many leads are used, the first ones (MLII is first where a record has it); or their
    names, as ``[II, V5]``, which each WFDB record has to have."""
    annotator: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] = "atr"
    """Extension of the files that annotate WFDB records."""
    patients: str | None = None
    """A .csv file of two columns, ``record`` and ``patient``, where a patient has several
    records. Otherwise a record is taken for a patient; MIT-BIH's 201 and 202 for one."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """What becomes of WFDB records that cannot be used, and of beats over missing values:
    ``refuse`` stops with the first, ``skip`` leaves them out and says which."""
    unconfirmed: Literal["auto", "drop", "keep"] = "auto"
    """What becomes of beats labelled normal where a detector finds no R peak: BeatGAN drops
    them from MIT-BIH, and so does ``auto``, which keeps them in all other records."""
    split: Literal["auto"] | SplitKind = "auto"
    """``auto``: ``fold`` where beats have AAMI classes, ``stratified`` where they are 0/1.
    ``fold`` has the proportions of BeatGAN's division, but other beats: its authors shuffled
    without a seed. ``inter_patient`` is DS1 and DS2 for MIT-BIH, where the records 201, to
    train, and 202, to test, are of one man; figures without 202 are given beside."""
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    """Which fifth of the normal beats is the test set; only the split ``fold`` asks."""
    context: Literal["none", "patient"] = "none"
    """``patient``: each beat is also compared with its patient's own late beats of the first
    five minutes, unlabelled, and comes with the intervals around it, as further leads."""
    n_aug: Annotated[int, Field(ge=0, le=100)] = 0
    """Time-warped copies of each training beat, besides the beat itself."""
    train_limit: Count | None = None
    """Train on a random choice of so many normal beats; all where nothing is said."""
    validation_limit: Annotated[int, Field(ge=2)] | None = None
    """Validate on a random choice of so many beats, by class; all where nothing is said."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of split, limits, augmentation and simulation."""
    simulated: SimulatedSettings = SimulatedSettings()
    """How beats are simulated; only the source ``simulated`` asks."""

    @property
    def lead_count(self) -> int:
        """How many leads are used."""
        return self.leads if isinstance(self.leads, int) else len(self.leads)
