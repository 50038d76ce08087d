import copy
import importlib
import pickle
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlaas4hep_dask
from mlaas4hep_dask import errors
from mlaas4hep_dask.errors import MissingExtraError, MLaaSError, did_you_mean, nearest

FACTS = {"file": "a.root", "branch": "Jet_pt", "entries": (3, 7), "nearest": None}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


ACTING = ("__main__", ".forked")  # what is imported for what it does: forked ignores Ctrl-C


def all_errors():
    for module in pkgutil.walk_packages(mlaas4hep_dask.__path__, "mlaas4hep_dask."):
        if not module.name.endswith(ACTING):
            importlib.import_module(module.name)
    found = [MLaaSError]
    for error in found:
        found.extend(sub for sub in error.__subclasses__() if sub not in found)
    return [error for error in found if error.__module__.startswith("mlaas4hep_dask.")]


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])  # noqa: S301  # our own bytes
def test_an_error_survives_the_network(error, copied):
    raised = error("what is wrong", **FACTS)
    back = copied(raised)
    assert type(back) is error
    assert str(back) == str(raised)
    assert back.message == raised.message
    assert back.facts == raised.facts
    for name, value in FACTS.items():
        assert getattr(back, name) == value
    ours = {name: value for name, value in vars(raised).items() if not name.startswith("__")}
    assert repr({name: getattr(back, name) for name in ours}) == repr(ours)


@given(st.text(), st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), JSON))
def test_any_message_and_any_facts_survive_the_network(message, facts):
    facts.pop("self", None)
    facts.pop("message", None)
    back = pickle.loads(pickle.dumps(MLaaSError(message, **facts)))  # noqa: S301  # our own bytes
    assert str(back) == message
    assert back.facts == facts


def test_every_error_a_user_can_cause_has_the_base_of_the_package():
    defined = [value for value in vars(errors).values() if isinstance(value, type)]
    public = [value for value in defined if value.__module__ == errors.__name__]
    assert len(public) > 5
    assert all(issubclass(value, MLaaSError) for value in public)


def test_a_fact_that_was_not_given_is_no_attribute():
    error = MLaaSError("text", file="a.root")
    assert error.file == "a.root"
    with pytest.raises(AttributeError, match="branch"):
        _ = error.branch


def test_a_missing_extra_names_the_command_that_installs_it():
    error = MissingExtraError.of("serve", module="uvicorn")
    assert "pip install 'mlaas4hep_dask[serve]'" in str(error)
    assert (error.extra, error.module) == ("serve", "uvicorn")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Jet_Pt", "Jet_pt"), ("jet_pt", "Jet_pt"), ("Jet_p", "Jet_pt"), ("zzz", None), ("", None)],
)
def test_the_nearest_name_is_found_whatever_its_case(name, expected):
    assert nearest(name, ["Muon_eta", "Jet_pt", "MET"]) == expected


def test_a_question_is_asked_only_when_something_is_near():
    assert did_you_mean("Evnts", ["Events"]) == "; did you mean 'Events'?"
    assert did_you_mean("Evnts", ["tree"]) == ""
    assert did_you_mean("Evnts", []) == ""


@given(st.lists(st.text(), min_size=1), st.data())
def test_a_name_that_exists_is_its_own_nearest_name(names, data):
    name = data.draw(st.sampled_from(names))
    assert nearest(name, names).casefold() == name.casefold()
