"""The key ``seed`` of dataset.yaml: one number for all that chance decides, or one for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

from mlaas4hep_dask.config.problems import invalid, problems_of
from mlaas4hep_dask.config.section import Section

Number = Annotated[int, Field(ge=0, lt=2**63, strict=True)]


class Seed(Section):
    """What chance decides; equal numbers are written as one."""

    split: Number = Field(
        default=0, description="Decides which events are for training, validation and test."
    )
    order: Number = Field(default=0, description="Decides the order of events in every epoch.")
    weights: Number = Field(
        default=0, description="Decides the initial weights of the network, and its dropout."
    )

    @model_serializer
    def as_json(self) -> int | dict[str, int]:
        """One number where all are equal, or else a mapping of all."""
        numbers = {name: getattr(self, name) for name in type(self).model_fields}
        return self.split if len({*numbers.values()}) == 1 else numbers


_NUMBER: TypeAdapter[int] = TypeAdapter(Number)


def _from_number(value: Any) -> Any:
    if isinstance(value, Seed | Mapping):
        return value
    try:
        return in_full(_NUMBER.validate_python(value))
    except ValidationError as error:
        raise invalid(*problems_of(error, Seed)) from None


def in_full(number: int) -> dict[str, int]:
    """What a seed of one number means, as a mapping of all."""
    return dict.fromkeys(Seed.model_fields, number)


SeedField = Annotated[Seed, BeforeValidator(_from_number, json_schema_input_type=Number | Seed)]
