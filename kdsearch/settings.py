"""Base class and number types of the sections of the space file."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

# Bounds that no search needs to exceed: beyond them a typing error is more likely.
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]
Few = Annotated[int, Field(ge=1, le=1000)]
# Layers with more units than this need more memory than any machine has.
Units = Annotated[int, Field(ge=1, le=16_384)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """A part of the space file: unknown keys are refused, values never change.

    The docstring below each field is its description in the reference and in the schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def changed(self, **values: object) -> Self:
        """Return a copy with other values, validated; pydantic's own copy would not be.

        Raises:
            pydantic.ValidationError: The new values, or their combination, are not allowed.
        """
        return type(self).model_validate(self.model_dump() | values)
