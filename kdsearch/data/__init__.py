"""Beats: sources, splits, and the arrays that a method gets."""

from kdsearch.data.beats import (
    Beats,
    Dataset,
    LabelledBeats,
    Moments,
    Split,
    TrainingData,
    normalise,
    pad,
)
from kdsearch.data.dataset import load_dataset, prepare
from kdsearch.data.settings import DataSettings, SimulatedSettings
from kdsearch.data.sources import load_beats
from kdsearch.files.cache import cache_dir

__all__ = [
    "Beats",
    "DataSettings",
    "Dataset",
    "LabelledBeats",
    "Moments",
    "SimulatedSettings",
    "Split",
    "TrainingData",
    "cache_dir",
    "load_beats",
    "load_dataset",
    "normalise",
    "pad",
    "prepare",
]
