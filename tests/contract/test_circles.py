"""No module imports, over whatever others, itself: each can be read and changed by itself."""

import graphlib

import grimp

PACKAGE = "mlaas4hep_dask"


def imports():
    """By module: the modules that it imports, in a function or for its types too."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    # The package itself, of which all take the version, gives Dataset on first use.
    return {
        module: graph.find_modules_directly_imported_by(module) - {PACKAGE}
        for module in graph.modules - {PACKAGE}
    }


def circle(graph):
    """The modules of a circle, each of which is imported by the next; none when there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_over_others():
    graph = imports()
    assert len(graph) > 200
    assert circle(graph) == []


def test_a_circle_would_be_found():
    graph = imports()
    module = f"{PACKAGE}.report.records"
    imported = f"{PACKAGE}.report.page"
    assert imported in graph[module]
    graph[imported] |= {module}
    assert set(circle(graph)) == {imported, module}
