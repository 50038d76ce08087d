from importlib import import_module
from pkgutil import iter_modules

import pytest

from mlaas4hep_dask.cluster import places
from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.places import PLACES, SCHEMES


def test_every_place_has_a_module_of_its_name_and_every_module_a_word():
    assert {module.name for module in iter_modules(places.__path__)} == set(PLACES)
    for word in PLACES:
        assert callable(import_module(f"{places.__name__}.{word}").start)


@pytest.mark.parametrize("address", [*PLACES, *(f"{scheme}://[::1]:8786" for scheme in SCHEMES)])
def test_a_place_and_the_address_of_a_scheduler_are_known_to_the_configuration(address):
    assert Cluster(address=address).address == address
    assert address.split("[")[0] in Cluster.model_fields["address"].description
