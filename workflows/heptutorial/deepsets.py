"""DeepSets (Zaheer et al. 2017): what is said of an event does not depend on the objects' order."""

import torch

from mlaas4hep_dask.encode.input_layout import InputLayout
from mlaas4hep_dask.train.views import CollectionViews


class DeepSets(torch.nn.Module):
    """Each object on its own, the sum over the objects of each collection, and then the event."""

    def __init__(self, layout: InputLayout, width: int, num_outputs: int) -> None:
        super().__init__()
        self.views = CollectionViews(layout)
        self.of_object = torch.nn.ModuleDict(
            {each.name: layers(len(each.branches), width) for each in layout.collections}
        )
        size = len(layout.flat) + width * len(layout.collections)
        self.of_event = torch.nn.Sequential(
            layers(size, width), torch.nn.Linear(width, num_outputs)
        )

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        views = self.views(x, missing)
        parts = [views.flat]
        for name, of_object in self.of_object.items():
            objects = of_object(views.objects[name])  # (events, objects, width)
            parts.append(objects.masked_fill(views.missing[name].unsqueeze(2), 0.0).sum(dim=1))
        return self.of_event(torch.cat(parts, dim=1))


def layers(size: int, width: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(size, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
    )


def build(layout: InputLayout, num_outputs: int, *, width: int = 64) -> torch.nn.Module:
    return DeepSets(layout, width, num_outputs)
