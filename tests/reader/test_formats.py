from importlib import import_module
from pkgutil import iter_modules

import pytest

from mlaas4hep_dask.config import Reading
from mlaas4hep_dask.formats import COMPRESSIONS, FORMATS, TABLES, format_of
from mlaas4hep_dask.reader import Access, formats
from mlaas4hep_dask.reader.tables import OpenTable


def test_every_format_of_tables_has_a_module_of_its_name_and_every_module_a_format():
    assert {module.name for module in iter_modules(formats.__path__)} == set(TABLES)
    for name in TABLES:
        assert issubclass(import_module(f"{formats.__name__}.{name}").Table, OpenTable)


def test_a_suffix_tells_one_format():
    suffixes = [suffix for each in FORMATS.values() for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert not set(suffixes) & set(COMPRESSIONS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_known_to_the_configuration_and_by_its_suffixes(name):
    assert Reading(format=name).format == name
    for suffix in FORMATS[name].suffixes:
        assert format_of(suffix) == name
        assert Access().format_of(f"https://example.org/a.B{suffix.upper()}?x=.root") == name
        assert suffix in Reading.model_fields["format"].description or name == "root"
