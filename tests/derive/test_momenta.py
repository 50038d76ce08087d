"""Four-momenta in expressions against vector, whose they are, and words from elsewhere."""

import pickle

import awkward as ak
import numpy as np
import pytest
import vector

from mlaas4hep_dask.derive import Expression
from mlaas4hep_dask.derive.recipe import Recipe
from mlaas4hep_dask.errors import ExpressionError
from mlaas4hep_dask.events import Events

vector.register_awkward()


def some_events():
    """The same events as records with momenta, and as ours; some without any object."""
    rng = np.random.default_rng(13)
    momenta, columns = {}, {}
    for name, mean in (("Muon", 1.5), ("Jet", 3)):
        counts = rng.poisson(mean, 400)
        size = counts.sum()
        parts = {
            "pt": rng.exponential(30, size),
            "eta": rng.uniform(-4, 4, size),
            "phi": rng.uniform(-np.pi, np.pi, size),
            "mass": rng.exponential(5, size),
        }
        parts = {key: part.astype(np.float32) for key, part in parts.items()}
        columns |= {f"{name}_{key}": ak.unflatten(part, counts) for key, part in parts.items()}
        wide = {key: ak.unflatten(part.astype(float), counts) for key, part in parts.items()}
        momenta[name] = ak.zip(wide, with_name="Momentum4D")
    return momenta, Events.from_awkward(ak.Array(columns))


MOMENTA, MADE = some_events()


def lacking(array):
    return ak.fill_none(array, np.nan)


def two(momenta):
    return ak.pad_none(momenta["Muon"], 2)


def apart(many, one):
    eta, phi = lacking(one.eta), lacking(one.phi)
    return np.hypot(many.eta - eta, (many.phi - phi + np.pi) % (2 * np.pi) - np.pi)


PAIRS = {
    "mass(Muon[:, 0] + Muon[:, 1])": lambda m: lacking((two(m)[:, 0] + two(m)[:, 1]).mass),
    "pt(Muon[:, 0] + Muon[:, 1])": lambda m: lacking((two(m)[:, 0] + two(m)[:, 1]).pt),
    "eta(Muon[:, 0] + Muon[:, 1])": lambda m: lacking((two(m)[:, 0] + two(m)[:, 1]).eta),
    "energy(Muon[:, 0] - Muon[:, 1])": lambda m: lacking(two(m)[:, 0].energy - two(m)[:, 1].energy),
    "mass(Muon)": lambda m: m["Muon"].mass,
    "mass(Muon_pt, Muon_eta, Muon_phi, Muon_mass)": lambda m: m["Muon"].mass,
    "energy(Muon)": lambda m: m["Muon"].energy,
    "mass(sum(Muon))": lambda m: ak.sum(m["Muon"], axis=1).mass,
    "pt(sum(Muon[Muon_pt > 20]))": lambda m: ak.sum(m["Muon"][m["Muon"].pt > 20], axis=1).pt,
    "delta_r(Jet, Muon[:, 0])": lambda m: apart(m["Jet"], two(m)[:, 0]),
    "delta_r(Muon_eta[:, 0], Muon_phi[:, 0], Muon_eta[:, 1], Muon_phi[:, 1])": lambda m: lacking(
        two(m)[:, 0].deltaR(two(m)[:, 1])
    ),
    "mass(sum(Muon) + sum(Jet))": lambda m: (
        (ak.sum(m["Muon"], axis=1) + ak.sum(m["Jet"], axis=1)).mass
    ),
}


@pytest.mark.parametrize("text", PAIRS)
def test_momenta_are_those_of_vector(text):
    found = Expression(text).bound(MADE.contents).value(MADE).values
    expected = PAIRS[text](MOMENTA)
    expected = ak.to_numpy(expected if expected.ndim == 1 else ak.flatten(expected))
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=1e-9, atol=1e-6)


def test_two_massless_objects_have_the_mass_of_the_textbook():
    made = Events.from_awkward(
        ak.Array({"g_pt": [[40.0, 30.0]], "g_eta": [[0.5, -1.5]], "g_phi": [[3.0, -3.0]]})
    )
    pair = Expression("mass(g_pt[:,0],g_eta[:,0],g_phi[:,0],0, g_pt[:,1],g_eta[:,1],g_phi[:,1],0)")
    square = 2 * 40 * 30 * (np.cosh(2.0) - np.cos(6.0))
    assert pair.value(made).values == pytest.approx([np.sqrt(square)], rel=1e-12)
    apart = Expression("delta_r(g_eta[:,0], g_phi[:,0], g_eta[:,1], g_phi[:,1])").value(made).values
    assert apart == pytest.approx([np.hypot(2.0, 2 * np.pi - 6.0)], rel=1e-12)


def test_the_mass_of_a_light_object_is_not_lost_in_its_energy():
    made = Events.from_awkward(ak.Array({"pt": [1e4], "eta": [4.0], "phi": [1.0], "m": [5e-4]}))
    assert Expression("mass(pt, eta, phi, m)").value(made).values.tolist() == [5e-4]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("lep_pt lep_eta lep_phi lep_E", "p4_energy(lep_pt, lep_eta, lep_phi, lep_E)"),
        ("lep.PT lep.Eta lep.Phi lep.Mass", "p4(lep.PT, lep.Eta, lep.Phi, lep.Mass)"),
        ("lep.px lep.py lep.pz lep.E", "p4_xyz(lep.px, lep.py, lep.pz, lep.E)"),
        (
            "lep_pt lep_eta lep_phi lep_mass lep_E lep_px lep_py lep_pz",
            "p4(lep_pt, lep_eta, lep_phi, lep_mass)",
        ),
        (
            "a/lep.PT a/lep.Eta a/lep.Phi a/lep.M",
            "p4(`a/lep.PT`, `a/lep.Eta`, `a/lep.Phi`, `a/lep.M`)",
        ),
    ],
)
def test_objects_are_found_by_the_names_that_experiments_use(names, expected):
    found = Expression("mass(lep[:, 0])").bound(names.split())
    assert found.text == f"mass({expected}[:, 0])"
    assert found.written == "mass(lep[:, 0])"
    assert pickle.loads(pickle.dumps(found)).written == found.written  # noqa: S301


def test_a_bundle_keeps_which_branches_the_momenta_were_made_of():
    available = {branch.name: branch for branch in MADE.branches}
    recipe = Recipe.of(
        available,
        derive={"Z_mass": "mass(Muon[:, 0] + Muon[:, 1])", "near": "min(delta_r(Jet, Muon[:, 0]))"},
        objects={"Muon": "pt(Muon) > 10"},
        select=["Z_mass > 60", "mass(sum(Jet)) > 1"],
    )
    texts = recipe.to_json()
    assert texts["derive"]["Z_mass"].startswith("mass((p4(Muon_pt, Muon_eta, Muon_phi, Muon_mass)[")
    assert texts["objects"] == {"Muon": "(pt(p4(Muon_pt, Muon_eta, Muon_phi, Muon_mass)) > 10)"}
    assert texts["select"] == ["Z_mass > 60", "mass(sum(Jet)) > 1"]
    steps = recipe.steps(["Z_mass"], select=False)
    reads = {name: available[name] for name in steps.read}
    assert sorted(reads) == ["Muon_eta", "Muon_mass", "Muon_phi", "Muon_pt"]
    # the server's recipe, which knows no branches but those
    served = Recipe.of(
        reads, derive={"Z_mass": texts["derive"]["Z_mass"]}, objects=texts["objects"]
    )
    assert served.derived["Z_mass"] == recipe.derived["Z_mass"]


NAMES = [f"{name}_{key}" for name in ("Muon", "Photon") for key in ("pt", "eta", "phi")]
NAMES += ["Muon_mass", "MET_pt", "MET_phi", "nMuon"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mass(Muons)", "there are no objects 'Muons'"),
        ("mass(Muons)", "did you mean 'Muon'?"),
        ("mass(Photon)", "have no mass; write p4(Photon_pt, Photon_eta, Photon_phi, …)"),
        ("mass(MET_pt)", "mass() needs momenta, found numbers"),
        ("Muon", "'Muon' are objects, and numbers are needed"),
        ("Muon + Muon > 3", "'Muon' are objects, and numbers are needed"),
        ("mass(p4(MET_pt, 0, MET_phi, 0) * 2)", "'*' needs numbers, found momenta"),
        ("p4(MET_pt, 0, MET_phi, 0)", "numbers were expected, found momenta"),
        ("p4(MET_pt, 0, MET_phi, 0) > 3", "'>' needs numbers, found momenta"),
        ("mass(MET_pt + p4(MET_pt, 0, MET_phi, 0))", "'+' of momenta needs momenta, found numbers"),
        ("mass(Muon, Muon)", "mass() takes one object, as in"),
        ("delta_r(Muon_eta, Muon_phi, 0)", "delta_r() takes two objects, as in"),
        ("mass(Muon[0] + Muon[1])", "one object of every event is [:, 0]"),
        ("sum(p4(MET_pt, 0, MET_phi, 0))", "sum() needs one value per object"),
        ("len(Muon_pt)", "no function 'len'; the number of objects is count(x)"),
        ("Muon_pt.size()", "the number of objects is count(x)"),
        ("Length$(Muon_pt)", "the number of objects is count(x)"),
        ("Sum$(Muon_pt)", "it is sum(x) here"),
        ("Max$(Muon_pt)", "it is max(x) here"),
        ("Min$(Muon_pt)", "it is min(x) here"),
        ("MaxIf$(Muon_pt, Muon_eta > 0)", "it is max(x[condition]) here"),
        ("Entry$ > 3", "numbers of entries and of objects cannot be written here"),
        ("TMath::Abs(MET_phi)", "it is abs(x) here"),
        ("MET_phi < TMath::Pi()", "it is pi here"),
        ("TMath::Power(MET_pt, 2)", "a power is x ** y or pow(x, y) here"),
        ("std::sqrt(MET_pt)", "it is sqrt(x) here"),
        ("fabs(MET_phi)", "it is abs(x) here"),
        ("np.abs(MET_phi)", "it is abs(x) here"),
        ("ak.num(Muon_pt)", "the number of objects is count(x)"),
        ("ROOT::VecOps::DeltaR(1, 2, 3, 4)", "it is delta_r(eta, phi, eta, phi) here"),
        ("InvariantMass(Muon_pt)", "mass(sum(p4(…))) that of their sum"),
        ("arctan2(MET_pt, 1)", "it is atan2(y, x) here"),
        ("MET_pt if MET_pt > 3 else 0", "a choice is written where(condition, a, b)"),
        ("nMuon in (1, 2)", "x in (1, 2) is x == 1 | x == 2"),
        ("nMuon <> 2", "unequal is written !="),
    ],
)
def test_words_from_elsewhere_are_told_what_replaces_them(text, message):
    array = {name: [[1.0]] if "_" in name and "MET" not in name else [1.0] for name in NAMES}
    made = Events.from_awkward(ak.Array(array))
    with pytest.raises(ExpressionError) as raised:
        Expression(text).bound(NAMES).value(made)
    assert message in str(raised.value)
    assert pickle.loads(pickle.dumps(raised.value)).facts == raised.value.facts  # noqa: S301


def test_logic_may_be_written_in_capitals():
    capitals = Expression("MET_pt > 3 AND NOT (MET_phi < 0 OR nMuon > 1)")
    assert capitals.written_out == Expression("MET_pt > 3 & !(MET_phi < 0 | nMuon > 1)").written_out
    assert Expression("ANDROID + ORANGE + NOTHING").names == ("ANDROID", "NOTHING", "ORANGE")
