"""The expression engine against awkward, its rules, and what it refuses."""

import pickle
import warnings
from operator import add, floordiv, mod, mul, sub

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BRANCHES, events, num_examples

from mlaas4hep_dask.derive import Expression
from mlaas4hep_dask.derive.grammar import MAX_DEPTH, parse, shown
from mlaas4hep_dask.errors import ExpressionError
from mlaas4hep_dask.events import Events


def f64(array):
    return ak.values_astype(array, np.float64)


def lacking(array):
    return ak.fill_none(f64(array), np.nan)


# Each expression beside the same quantity as a user of awkward would write it.
PAIRS = {
    "met": lambda e: e.met,
    "met * mass + 2 ** 3 ** 2": lambda e: f64(e.met) * e.mass + 512,
    "-met ** 2": lambda e: -(f64(e.met) ** 2),
    "7 - 3 - 2 * 4 / 2": lambda e: f64(e.met) * 0,
    "sum(Jet_pt)": lambda e: ak.sum(f64(e.Jet_pt), axis=1),
    "sum(Jet_id)": lambda e: ak.sum(e.Jet_id, axis=1),
    "mean(Jet_pt)": lambda e: ak.sum(f64(e.Jet_pt), axis=1) / ak.num(e.Jet_pt),
    "min(Jet_pt)": lambda e: lacking(ak.min(e.Jet_pt, axis=1)),
    "max(Muon_pt)": lambda e: lacking(ak.max(e.Muon_pt, axis=1)),
    "max(met, mass, 3)": lambda e: np.maximum(np.maximum(e.met, e.mass), 3),
    "count(Jet_id)": lambda e: ak.num(e.Jet_id),
    "count(Jet_pt > 30)": lambda e: ak.sum(e.Jet_pt > 30, axis=1),
    "any(Jet_pt > met)": lambda e: ak.any(e.Jet_pt > e.met, axis=1),
    "all(Jet_pt > met)": lambda e: ak.all(e.Jet_pt > e.met, axis=1),
    "Jet_pt[:, 0]": lambda e: lacking(ak.firsts(e.Jet_pt)),
    "Jet_pt[:, 1]": lambda e: lacking(ak.pad_none(e.Jet_pt, 2)[:, 1]),
    "Jet_pt[:, -2]": lambda e: lacking(ak.pad_none(e.Jet_pt[:, ::-1], 2)[:, 1]),
    "Jet_pt[:, :2]": lambda e: e.Jet_pt[:, :2],
    "Jet_pt[:, 1:]": lambda e: e.Jet_pt[:, 1:],
    "Jet_pt[:, -2:]": lambda e: e.Jet_pt[:, -2:],
    "Jet_pt[:, -3:-1]": lambda e: e.Jet_pt[:, -3:-1],
    "Jet_pt[:, 1:][:, 0]": lambda e: lacking(ak.firsts(e.Jet_pt[:, 1:])),
    "Jet_pt[Jet_pt > 30 & Jet_id >= 0]": lambda e: e.Jet_pt[(e.Jet_pt > 30) & (e.Jet_id >= 0)],
    "sum(Jet_pt[Jet_id > 0] * Jet_id[Jet_id > 0])": lambda e: ak.sum(
        f64(e.Jet_pt[e.Jet_id > 0]) * e.Jet_id[e.Jet_id > 0], axis=1
    ),
    "Jet_pt * mass": lambda e: f64(e.Jet_pt) * e.mass,
    "where(Jet_pt > met, Jet_pt, 0)": lambda e: ak.where(e.Jet_pt > e.met, e.Jet_pt, 0),
    "sqrt(abs(Muon_pt)) + log(exp(1)) + cos(0)": lambda e: np.sqrt(np.abs(e.Muon_pt)) + 2,
    "met > 1e1 & mass < 2.5E+2 | trigger": lambda e: ((e.met > 1e1) & (e.mass < 250)) | e.trigger,
    "met > 1e1 && (mass < 250 || trigger)": lambda e: (e.met > 1e1) & ((e.mass < 250) | e.trigger),
    "!met > 3 and not trigger": lambda e: ~(e.met > 3) & ~e.trigger,
    "-10 < met <= 10": lambda e: (e.met > -10) & (e.met <= 10),
    "(Jet_id & 6) != 0": lambda e: (e.Jet_id & 6) != 0,
    "count(Jet_pt) >= 2 & max(Jet_pt) > 1": lambda e: (
        (ak.num(e.Jet_pt) >= 2) & ak.fill_none(ak.max(e.Jet_pt, axis=1) > 1, False)
    ),
}


@pytest.mark.parametrize("text", PAIRS)
@given(made=events(finite=True))
@num_examples(20)
def test_expressions_give_what_awkward_gives(text, made):
    value = Expression(text).value(made)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = PAIRS[text](made.to_awkward())
    if value.collection is None:
        assert value.values.shape == (len(made),)
    else:
        np.testing.assert_array_equal(np.diff(value.offsets), ak.num(expected))
        expected = ak.flatten(expected)
    np.testing.assert_allclose(value.values, ak.to_numpy(expected), rtol=1e-12)


def some_events():
    """Two events, the second without any object."""
    return Events.from_awkward(
        ak.Array(
            [
                {"nJet": 2, "met": 10.0, "Jet_pt": [30.0, 20.0], "Muon_pt": [5.0]},
                {"nJet": 0, "met": 200.0, "Jet_pt": [], "Muon_pt": []},
            ]
        )
    )


def test_an_object_that_an_event_lacks_is_missing_and_fails_every_cut():
    made = some_events()
    np.testing.assert_array_equal(Expression("Jet_pt[:, 0]").value(made).values, [30, np.nan])
    for cut in ("Jet_pt[:, 0] > 1", "Jet_pt[:, 0] <= 1", "max(Jet_pt) == max(Jet_pt)"):
        assert not Expression(cut).value(made).values[1]


def test_whole_numbers_do_not_wrap_around():
    made = Events.from_awkward(ak.Array({"n": np.array([0, 255], dtype=np.uint8)}))
    np.testing.assert_array_equal(Expression("n - 1").value(made).values, [-1, 254])
    np.testing.assert_array_equal(Expression("n * n").value(made).values, [0, 65025])
    np.testing.assert_array_equal(Expression("-n").value(made).values, [0, -255])
    np.testing.assert_array_equal(Expression("n > -1").value(made).values, [True, True])
    np.testing.assert_array_equal(Expression("abs(n)").value(made).values, [0, 255])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("where(n > 0, n, -1)", [-1, 255]),
        ("where(n > 0, 300, n)", [0, 300]),
        ("where(i < 0, i, 1000)", [-5, 1000]),
        ("where(u > 0, u, -1)", [-1, 2**64 - 1]),
        ("where(u > 0, u, 0)", [0, 2**64 - 1]),
        ("where(n > 0, 18446744073709551615, n)", [0, 2**64 - 1]),
        ("where(n > 0, 18446744073709551615, 0)", [0, 2**64 - 1]),
        ("where(n > 0, x, -1e300)", [-1e300, 2.5]),
        ("where(n > 0, x, -inf)", [-np.inf, 2.5]),
        ("where(n > 0, n, nan)", [np.nan, 255]),
    ],
)
def test_a_choice_holds_both_of_its_values_whatever_the_branch_is(text, expected):
    made = Events.from_awkward(
        ak.Array(
            {
                "n": np.array([0, 255], dtype=np.uint8),
                "i": np.array([-5, 7], dtype=np.int8),
                "u": np.array([0, 2**64 - 1], dtype=np.uint64),
                "x": np.array([1.5, 2.5], dtype=np.float32),
            }
        )
    )
    expression = Expression(text)
    values = expression.value(made).values
    assert values.tolist() == pytest.approx(expected, rel=1e-15, nan_ok=True)
    available = {branch.name: branch for branch in made.branches}
    assert expression.result("chosen", available).dtype == values.dtype


def test_a_float32_branch_is_compared_in_its_own_precision():
    made = Events.from_awkward(ak.Array({"btag": np.array([0.1, 0.2], dtype=np.float32)}))
    np.testing.assert_array_equal(Expression("btag == 0.1").value(made).values, [True, False])


def test_objects_chosen_alike_are_of_one_collection():
    made = some_events()
    doubled = Expression("Jet_pt[Jet_pt > 25] * 2").value(made)
    assert doubled.values.tolist() == [60]
    assert doubled.collection == Expression("Jet_pt[(Jet_pt>25)]").value(made).collection


def test_any_branch_can_be_named_between_backticks():
    array = ak.Array({"x-y z": [1.0, 2.0], "Aux.pt": [3.0, 4.0], "a__b": [1, 1], "pi": [0, 0]})
    made = Events.from_awkward(array)
    text = "`x-y z` + Aux.pt + `a__b` + `pi`"
    assert Expression(text).names == ("Aux.pt", "a__b", "pi", "x-y z")
    np.testing.assert_array_equal(Expression(text).value(made).values, [5, 7])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event == 9007199254740993", [False, True, False]),
        ("event >= 9007199254740993", [False, True, True]),
        ("event != 18446744073709551615", [True, True, False]),
        ("event < 99999999999999999999", [True, True, True]),
        ("signed == -9223372036854775807", [True, False, False]),
        ("18446744073709551615 > 1", [True, True, True]),
        ("(event & 18446744073709551614) == 9007199254740992", [True, True, False]),
        ("(event & signed) == 9007199254740992", [False, True, False]),
        ("(event & -1) == event", [True, True, True]),
        ("(byte & 300) == 300", [True, True, False]),
        ("(byte > 0) != 18446744073709551615", [True, True, True]),
        ("true < 18446744073709551615", [True, True, True]),
        ("(byte | 256) == 255", [False, False, False]),
        ("(byte | 256) == -1", [True, True, False]),
    ],
)
def test_whole_numbers_are_exact_up_to_uint64(text, expected):
    array = ak.Array(
        {
            "event": np.array([2**53, 2**53 + 1, 2**64 - 1], dtype=np.uint64),
            "signed": np.array([1 - 2**63, -2, 0], dtype=np.int64),
            "byte": np.array([-1, -1, 2], dtype=np.int8),
        }
    )
    assert Expression(text).value(Events.from_awkward(array)).values.tolist() == expected


EXACTLY = {"+": add, "-": sub, "*": mul, "//": floordiv, "%": mod}
WHOLE = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-9, 9), st.integers(2**53, 2**55))


@num_examples(200)
@given(
    st.lists(st.tuples(WHOLE, WHOLE), min_size=1, max_size=5),
    st.sampled_from(sorted(EXACTLY)),
    st.booleans(),
)
def test_arithmetic_of_long_whole_numbers_is_rounded_once(pairs, operator, is_unsigned):
    """Python's integers have no largest one."""
    x, y = zip(*pairs, strict=True)
    x = [each % 2**64 for each in x] if is_unsigned else list(x)
    columns = {"x": np.array(x, dtype=np.uint64 if is_unsigned else np.int64), "y": np.array(y)}
    events = Events.from_awkward(ak.Array(columns))
    same = [abs(y[0])] * len(x)
    for text, others in ((f"x {operator} y", y), (f"x {operator} {same[0]}", same)):
        with np.errstate(divide="ignore", invalid="ignore"):
            values = Expression(text).value(events).values
        assert values.dtype == np.float64
        for value, one, other in zip(values.tolist(), x, others, strict=True):
            if other or operator not in ("//", "%"):
                assert value == float(EXACTLY[operator](one, other))


def test_the_parity_of_an_event_number_beyond_float64_is_right():
    events = Events.from_awkward(ak.Array({"event": np.arange(2**60, 2**60 + 4)}))
    assert Expression("event % 2").value(events).values.tolist() == [0, 1, 0, 1]
    assert Expression(f"event - {2**60}").value(events).values.tolist() == [0, 1, 2, 3]


def test_sums_beyond_int64_do_not_wrap_around():
    times = ak.Array({"Hit_time": [[17 * 10**17] * 8, [], [17 * 10**17]]})
    sums = Expression("sum(Hit_time)").value(Events.from_awkward(times)).values
    assert sums.tolist() == [8 * 1.7e18, 0, 1.7e18]


def test_conditions_joined_at_the_top_come_one_by_one():
    cut = Expression("met > 1 & (nJet > 2 | `x-y` < 3) & !(met == -2)")
    texts = [each.text for each in cut.conjuncts]
    assert texts == ["(met > 1)", "((nJet > 2) | (`x-y` < 3))", "(!(met == (-2)))"]
    assert Expression("met > 1").conjuncts == (Expression("met > 1"),)


def test_the_kind_of_a_result_is_known_without_events():
    branches = {branch.name: branch for branch in BRANCHES}
    result = Expression("Jet_pt * met").result("scaled", branches)
    assert (result.kind, result.dtype, result.collection) == ("jagged", "float64", "Jet")
    result = Expression("count(Jet_pt > 3)").result("num", branches)
    assert (result.kind, result.dtype, result.collection) == ("flat", "int64", None)
    with pytest.raises(ExpressionError, match=r"no branch 'Jet_Pt'; did you mean 'Jet_pt'\?"):
        Expression("Jet_Pt").result("x", branches)


@pytest.mark.parametrize("text", PAIRS)
def test_an_expression_survives_its_own_text_and_pickling(text):
    again = shown(parse(shown(parse(text))))
    assert again == shown(parse(text))
    assert pickle.loads(pickle.dumps(Expression(text))) == Expression(text)  # noqa: S301


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Jet_Pt > 3", "column 1: there is no branch 'Jet_Pt'; did you mean 'Jet_pt'?"),
        ("met > 0 & True", "column 11: there is no branch 'True'; did you mean 'true'?"),
        ("met + summ(Jet_pt)", "column 7: there is no function 'summ'; did you mean 'sum'?"),
        ("Jet_pt + Muon_pt", "objects of 'Jet' and of 'Muon' cannot be combined"),
        ("Jet_pt[nJet > 1]", "chosen by a condition on them, found one on events"),
        ("Jet_pt[0]", "one object of every event is [:, 0]"),
        ("sum(met)", "sum() needs one value per object, found one per event"),
        (
            "nJet & met > 3",
            "on both sides, found whole numbers beside a condition; bits are compared",
        ),
        ("!nJet", "'!' needs a condition, found whole numbers"),
        ("any(Jet_pt)", "any() needs a condition, found numbers"),
        ("met ^ 2", "a power is written **"),
        ("met = 2", "equality is written =="),
        ("met >", "it ends too early"),
        ("", "it ends too early"),
        ("sqrt(met, 2)", "sqrt() takes 1 arguments, found 2"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_is_near(text, message):
    with pytest.raises(ExpressionError) as raised:
        Expression(text).value(some_events())
    assert message in str(raised.value)
    assert raised.value.expression == text
    copy = pickle.loads(pickle.dumps(raised.value))  # noqa: S301
    assert copy.facts == raised.value.facts


HOSTILE = [
    "__import__('os').system('id')",
    "met.__class__",
    "().__class__.__bases__",
    "met.__class__.__mro__",
    "(met).real",
    "1 .real",
    "open('/etc/passwd')",
    "eval(met)",
    "getattr(met, met)",
    "lambda: met",
    "[x for x in met]",
    "{met}",
    "'a' * 1000000000",
    '"a"',
    "met := 3",
    "met; met",
    "f'{met}'",
    "met if met else met",
    "*met",
    "sum(*Jet_pt)",
    "sum(axis=0)",
    "Jet_pt[:, 99999999999999]",
    "Jet_pt[:, met]",
    "Jet_pt[::2]",
    "import os",
    "\x00",
    "met\N{FULLWIDTH PLUS SIGN}1",
    "met + " * 2000 + "met",
    "1" * 5000,
    "sqrt(" * (MAX_DEPTH + 1) + "met" + ")" * (MAX_DEPTH + 1),
    "+".join(["met"] * (MAX_DEPTH + 2)),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_expressions_are_refused(text):
    with pytest.raises(ExpressionError):
        Expression(text).value(some_events())


def test_huge_powers_are_infinite_and_harmless():
    made = some_events()
    assert np.isinf(Expression("9 ** 9 ** 9 ** 9").value(made).values).all()
    assert np.isinf(Expression("met ** 1e308").value(made).values).all()
    assert np.isinf(Expression("1e999").value(made).values).all()
    assert np.isinf(
        Expression("99999999999999999999 ** 99999999999999999999").value(made).values
    ).all()


@given(st.text(alphabet="()[]&|!<>=+-*/:,. 0123eE`_metJptsu", max_size=40))
def test_any_text_is_an_expression_or_a_clear_error(text):
    try:
        values = Expression(text).value(some_events()).values
    except ExpressionError:
        return
    assert values.ndim == 1
