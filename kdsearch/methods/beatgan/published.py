"""Read generators and discriminators that were published as plain state dicts.

The names and shapes are those of the published code (`kdsearch.methods.beatgan.networks`); the
width, the latent size, the leads and the length of a beat follow from the shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from kdsearch.data.beats import LENGTH_MULTIPLE
from kdsearch.methods.beatgan.networks import Architecture, Discriminator, Generator
from kdsearch.methods.beatgan.scoring import check_values, weights_state
from kdsearch.methods.protocol import State

FIRST, LAST = "encoder1.main.0.weight", "encoder1.main.14.weight"
FEATURES, ANSWER = "features.0.weight", "classifier.0.weight"
# First layers of BeatGAN's networks for motion capture, which are fully connected.
LINEAR = ("encoder.0.weight", FEATURES)
COUNTER = "num_batches_tracked"
# What torch.nn.DataParallel puts in front of every name.
PARALLEL = "module."

Values = Mapping[str, Tensor]


def adopt(tensors: Mapping[str, Any], beside: Mapping[str, Any]) -> State | None:
    """A generator, with its discriminator if there is one, as this method's weights.

    Args:
        tensors: A state dict, bare or below some key.
        beside: Likewise of the discriminator, or empty.

    Returns:
        None if these are no weights of a BeatGAN.

    Raises:
        ValueError: They are of a BeatGAN that cannot score beats.
    """
    found = [*_state_dicts(tensors), *_state_dicts(beside)]
    for values in found:
        layer = next((values[name] for name in LINEAR if name in values), None)
        if layer is not None and layer.ndim == 2:
            raise ValueError(
                "BeatGAN's network for motion capture, fully connected layers for windows of "
                f"{layer.shape[1]} values; only the convolutional network for beats can teach"
            )
    generator = next((values for values in found if FIRST in values), None)
    discriminator = next((values for values in found if FEATURES in values), None)
    if generator is None:
        if discriminator is None:
            return None
        raise ValueError("BeatGAN's discriminator alone; name the file of its generator")
    architecture = _architecture(generator)
    check_values(Generator, architecture, generator, part="generator")
    if discriminator is not None:
        check_values(Discriminator, architecture, discriminator, part="discriminator")
    return weights_state(
        architecture, dict(generator), None if discriminator is None else dict(discriminator)
    )


def _state_dicts(content: Mapping[str, Any]) -> Iterator[Values]:
    """State dicts in the content of a file, with plain names and in full precision."""
    tensors = {
        name.removeprefix(PARALLEL): value.float()
        for name, value in content.items()
        if isinstance(name, str) and torch.is_tensor(value) and not name.endswith(COUNTER)
    }
    if tensors:
        yield tensors
    for inner in content.values():
        if isinstance(inner, Mapping):
            yield from _state_dicts(inner)


def _architecture(generator: Values) -> Architecture:
    first, last = generator[FIRST], generator.get(LAST)
    if first.ndim != 3 or last is None or last.ndim != 3:
        raise ValueError(
            f"a generator's {FIRST} and {LAST} have three dimensions, but found "
            f"{tuple(first.shape)} and {None if last is None else tuple(last.shape)}"
        )
    return Architecture(
        width=first.shape[0],
        latent=last.shape[0],
        leads=first.shape[1],
        length=last.shape[2] * LENGTH_MULTIPLE,
    )
