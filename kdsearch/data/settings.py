"""Settings of the data, with their defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kdsearch.settings import Count, Section
from kdsearch.texts import BEAT

SplitKind = Literal["fold", "inter_patient", "stratified"]

Millivolts = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]


class SimulatedSettings(Section):
    """Simulated beats, used when there are no real ones."""

    patients: Annotated[int, Field(ge=2, le=1000)] = 24
    """Number of patients, each with its own heart rate, wave shapes and ectopic foci."""
    beats: Annotated[int, Field(ge=100, le=1_000_000)] = 7000
    """Total number of beats; at least ten per patient."""
    abnormal: Annotated[float, Field(ge=0.001, le=0.9)] = 0.16
    """Fraction of abnormal beats; S, V, F and Q have roughly the proportions of MIT-BIH."""
    noise_mv: Millivolts = 0.02
    """Standard deviation of the muscle noise; individual patients have more or less."""

    @model_validator(mode="after")
    def _enough_beats(self) -> SimulatedSettings:
        if self.beats < 10 * self.patients:
            raise ValueError(
                f"needs at least ten beats per patient, but beats={self.beats} "
                f"and patients={self.patients}"
            )
        return self


class DataSettings(Section):
    """The section ``data``: the beats, and how they are split for training, validation and
    test."""

    source: Annotated[str, Field(min_length=1)] = "simulated"
    """``simulated``, ``mitbih`` (downloaded once), or a path to WFDB records, annotated EDF
    files or tables of samples, .npz or .npy files."""
    unit: Annotated[str, Field(pattern=r"^[a-z]([a-z ]{0,18}[a-z])?$")] = BEAT
    """What a sample is called in messages and in the report, in the singular, for example
    ``window``."""
    leads: (
        Annotated[int, Field(ge=1, le=1000)] | Annotated[tuple[str, ...], Field(min_length=1)]
    ) = 1
    """Number of leads, counted from the first (MLII comes first if a record has it), or a list
    of names such as ``[II, V5]`` that every WFDB record must have."""
    annotator: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] = "atr"
    """File extension of the annotations of WFDB records."""
    patients: str | None = None
    """A .csv file with two columns, ``record`` and ``patient``, for patients with several
    records. Default: one patient per record, except that MIT-BIH's 201 and 202 are one
    patient."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """WFDB records that cannot be used and beats with missing values: ``refuse`` stops at the
    first, ``skip`` leaves them out and lists them."""
    unconfirmed: Literal["auto", "drop", "keep"] = "auto"
    """Beats labelled normal at which a detector finds no R peak: ``drop`` or ``keep`` them.
    ``auto`` drops them from MIT-BIH, as BeatGAN does, and keeps them in all other records."""
    split: Literal["auto"] | SplitKind = "auto"
    """``auto``: ``fold`` if beats have AAMI classes, ``stratified`` if they are labelled 0/1.
    ``fold`` has the proportions of BeatGAN's split, but other beats: its authors shuffled
    without a seed. ``inter_patient`` is DS1 and DS2 for MIT-BIH, in which records 201
    (training) and 202 (test) are of the same man; figures without 202 are also given."""
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    """Which fifth of the normal beats is the test set; used only by the split ``fold``."""
    context: Literal["none", "patient"] = "none"
    """``patient`` adds leads to each beat: its difference from the patient's own late beats of
    the first five minutes (no labels are used), and the intervals around it. Beats of those
    minutes are neither validated nor tested, except in shorter records."""
    n_aug: Annotated[int, Field(ge=0, le=100)] = 0
    """Number of time-warped copies that are added for each training beat."""
    train_limit: Count | None = None
    """Maximum number of normal training beats, selected at random. Default: all."""
    validation_limit: Annotated[int, Field(ge=2)] | None = None
    """Maximum number of validation beats, selected at random by class. Default: all."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the split, limits, augmentation and simulation."""
    simulated: SimulatedSettings = SimulatedSettings()
    """How beats are simulated; used only by the source ``simulated``."""

    @property
    def lead_count(self) -> int:
        """How many leads are used."""
        return self.leads if isinstance(self.leads, int) else len(self.leads)
