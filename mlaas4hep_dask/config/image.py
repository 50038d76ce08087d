"""The section ``image`` of dataset.yaml: events as images instead of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mlaas4hep_dask.config.fields import Text, listed
from mlaas4hep_dask.config.problems import Problem, invalid
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.errors import nearest
from mlaas4hep_dask.formulas import COMBINES

if TYPE_CHECKING:
    Combine = str
else:
    Combine = Literal[COMBINES]

NETWORK = "mlaas4hep_dask.train.network:cnn"  # that an image is given to by default

Names = Annotated[list[Text], BeforeValidator(listed, json_schema_input_type=Text | list[Text])]


class Axis(Section):
    """One direction of the planes, in equal cells."""

    branches: Names = Field(
        default=[],
        description="Branch with the coordinate, one for each collection that a channel shows; by "
        "default the branch that is called as the axis.",
        examples=["Jet_eta", ["Jet_eta", "Muon_eta"]],
    )
    range: list[float] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="The two ends, in the branch's unit. null means the extremes in the specs, or "
        "-π and π of a periodic axis.",
        examples=[[-5.0, 5.0]],
    )
    cells: int | None = Field(
        default=None, ge=1, description="Number of cells; 32 if size is not given either."
    )
    size: float | None = Field(
        default=None,
        gt=0,
        description="Size of a cell in the branch's unit, instead of their number.",
    )
    periodic: bool = Field(
        default=False, description="The two ends are one point, as for an angle."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.cells is not None and self.size is not None:
            raise invalid(Problem("size", "expected cells or size, not both"))
        if self.range is not None and not self.range[0] < self.range[1]:
            low, high = self.range
            text = f"expected the lower end and a higher one, found {low:g} and {high:g}"
            raise invalid(Problem("range", text))
        return self


class Channel(Section):
    """One layer of the image."""

    value: Text | None = Field(
        default=None, description="Jagged branch that is shown, normalised as encode says."
    )
    collection: Text | None = Field(
        default=None, description="With combine: count, the collection whose objects are counted."
    )
    combine: Combine = Field(
        default="sum", description="What stands in a cell with several objects."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.combine == "count":
            if self.value is not None or self.collection is None:
                text = "expected a collection and no value with combine: count"
                raise invalid(Problem("collection", text))
        elif self.value is None or self.collection is not None:
            text = f"expected a value and no collection with combine: {self.combine}"
            raise invalid(Problem("value", text))
        return self


class Image(Section):
    """Events as images: planes of cells side by side, in several channels."""

    axes: dict[Text, Axis] = Field(min_length=1, description="Axes by name.")
    planes: list[list[Text]] = Field(
        min_length=1,
        description="Pairs of axes, x before y; several planes stand side by side along x. May be "
        "left out when there are two axes.",
        examples=[[["Jet_Px", "Jet_Py"], ["Jet_Py", "Jet_Pz"], ["Jet_Px", "Jet_Pz"]]],
    )
    channels: list[Channel] = Field(min_length=1, description="What the image shows, in order.")
    flat: list[Text] = Field(
        default=[], description="Flat branches; each fills a channel of its own with its value."
    )

    @model_validator(mode="before")
    @classmethod
    def _has_one_plane_of_two_axes(cls, section: Any) -> Any:
        if isinstance(section, dict) and "planes" not in section:
            axes = section.get("axes")
            if isinstance(axes, dict) and len(axes) == 2:
                return {**section, "planes": [list(axes)]}
        return section

    @field_validator("axes", mode="before")
    @classmethod
    def _may_say_nothing(cls, axes: Any) -> Any:
        if isinstance(axes, dict):  # 'Jet_eta:' with nothing behind it
            return {name: {} if axis is None else axis for name, axis in axes.items()}
        return axes

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = []
        for place, plane in enumerate(self.planes):
            if len(plane) != 2 or plane[0] == plane[1]:
                text = f"expected two different axes, found {', '.join(plane) or 'none'}"
                problems.append(Problem(f"planes.{place}", text))
            problems += [
                Problem(f"planes.{place}", f"there is no axis {name!r}", nearest(name, self.axes))
                for name in plane
                if name not in self.axes
            ]
        names = {name for plane in self.planes for name in plane}
        problems += [
            Problem(f"axes.{name}", "no plane has this axis")
            for name in self.axes
            if name not in names
        ]
        if not problems:
            heights = {axis.cells for _, y in self.planes if (axis := self.axes[y]).cells}
            if len(heights) > 1:
                text = "planes side by side need y axes with one number of cells, found "
                problems.append(Problem("planes", text + ", ".join(map(str, sorted(heights)))))
        if problems:
            raise invalid(*problems)
        return self


def with_image_network(document: Any) -> Any:
    """The keys of dataset.yaml, with a network of images if there is an image and no network."""
    if not isinstance(document, dict) or document.get("image") is None:
        return document
    model = document.get("model", {})
    if not isinstance(model, dict) or "callable" in model:
        return document
    return {**document, "model": {"callable": NETWORK, **model}}
