import html
from html.parser import HTMLParser
from pathlib import Path

import awkward as ak
import pytest

from mlaas4hep_dask.config import Selection
from mlaas4hep_dask.dataset.plan import Plan, Skipped
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.prepare import Preparation
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.objective import BINARY
from mlaas4hep_dask.run.result import RunResult
from mlaas4hep_dask.specs.measure import measure

NAME = "<script>alert('x')</script>&"
EVENTS = Events.from_awkward(ak.Array({NAME: [1.0, 2.0], "Jet_pt": [[3.0], []]}))


def shown():
    selection = Selection(["a"], [NAME], [NAME], {NAME: NAME})
    supervision = Supervision(BINARY, labels={NAME: 1})
    skipped = (Skipped(NAME, NAME, 0, None, NAME),)
    plan = Plan(
        *((), (), EVENTS.branches, selection, (NAME,)),
        Context(Preparation((), ()), (), supervision, (0.6, 0.2, 0.2), 0, skip=False),
        skipped=skipped,
        notes=(NAME,),
    )
    summary = {"name": NAME, "test": {"auc": None, "loss": None, "num_events": 0}}
    return {
        "plan": plan,
        "specs": measure(EVENTS, sample=NAME),
        "run": RunResult(Path(NAME), summary, None),
    }


class Tags(HTMLParser):
    """Fails on a tag that closes another than the last one opened."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002  # the parser's own signature
        assert tag != "script"
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", ["plan", "specs", "run"])
def test_a_name_from_a_file_stays_text_in_a_notebook(kind):
    page = shown()[kind]._repr_html_()
    assert html.escape(NAME) in page
    tags = Tags()
    tags.feed(page)
    assert not tags.open
