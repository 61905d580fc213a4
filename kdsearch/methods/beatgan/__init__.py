"""BeatGAN: networks, losses, one mini-batch step, stacks of students, scoring."""

from kdsearch.methods.beatgan.method import BeatGan

__all__ = ["BeatGan"]
