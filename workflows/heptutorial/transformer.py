"""A small particle transformer: objects attend to each other and to the rest of the event."""

import torch

from mlaas4hep_dask.encode.input_layout import InputLayout
from mlaas4hep_dask.train.views import CollectionViews


class Block(torch.nn.Module):
    """Attention and two layers, each beside what comes in (He et al. 2016; Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before = torch.nn.LayerNorm(width)
        self.attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        self.layers = torch.nn.Sequential(
            torch.nn.LayerNorm(width),
            torch.nn.Linear(width, 2 * width),
            torch.nn.GELU(),
            torch.nn.Linear(2 * width, width),
        )

    def forward(self, tokens: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        x = self.before(tokens)
        attended, _ = self.attention(x, x, x, key_padding_mask=absent, need_weights=False)
        tokens = tokens + attended
        return tokens + self.layers(tokens)


class Transformer(torch.nn.Module):
    """One token for each object, and one for the event, which is read at the end."""

    def __init__(
        self, layout: InputLayout, width: int, heads: int, depth: int, num_outputs: int
    ) -> None:
        super().__init__()
        self.views = CollectionViews(layout)
        self.of_object = torch.nn.ModuleDict(
            {each.name: torch.nn.Linear(len(each.branches), width) for each in layout.collections}
        )
        self.of_flat = torch.nn.Linear(len(layout.flat), width)
        self.blocks = torch.nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.last = torch.nn.Sequential(
            torch.nn.LayerNorm(width), torch.nn.Linear(width, num_outputs)
        )

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        views = self.views(x, missing)
        event = self.of_flat(views.flat).unsqueeze(1)  # (events, 1, width)
        tokens = [event]
        absent = [torch.zeros_like(event[:, :, 0], dtype=torch.bool)]  # the event is always there
        for name, of_object in self.of_object.items():
            tokens.append(of_object(views.objects[name]))  # (events, objects, width)
            absent.append(views.missing[name])
        every, is_absent = torch.cat(tokens, dim=1), torch.cat(absent, dim=1)
        for block in self.blocks:
            every = block(every, is_absent)
        return self.last(every[:, 0])


def build(
    layout: InputLayout, num_outputs: int, *, width: int = 32, heads: int = 4, depth: int = 2
) -> torch.nn.Module:
    return Transformer(layout, width, heads, depth, num_outputs)
