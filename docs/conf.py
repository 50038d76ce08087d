"""How Sphinx makes the site of these pages: ``make docs``."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

project = "mlaas4hep_dask"
author = "the mlaas4hep_dask developers"
release = re.search(r'__version__ = "(.+)"', (ROOT / "mlaas4hep_dask/__init__.py").read_text())[1]
extensions = [
    "myst_parser",  # the pages, which are Markdown
    "autoapi.extension",  # the reference of the package, from its docstrings
    "sphinx.ext.napoleon",  # which have the sections of NumPy
]
exclude_patterns = ["index.md", "_site"]  # index.rst holds it, with the order of pages
default_role = "py:obj"  # a name in a docstring is a link where there is such a thing
add_module_names = False
toc_object_entries = False

myst_heading_anchors = 4  # as those of GitHub
myst_enable_extensions = ["alert"]
myst_links_external_new_tab = False
suppress_warnings = [
    "autoapi.python_import_resolution",  # of what a room finds on first use
    "ref.python",  # a name that two rooms have leads to one of them
]

html_theme = "furo"
html_title = f"mlaas4hep_dask {release}"
html_copy_source = False

# The package is read and not imported: the site needs neither torch nor Dask.
autoapi_dirs = [str(ROOT / "mlaas4hep_dask")]
autoapi_ignore = ["*/__main__.py"]
autoapi_root = "reference/api"
autoapi_add_toctree_entry = False
autoapi_own_page_level = "module"
autoapi_python_class_content = "class"
autoapi_member_order = "bysource"
autoapi_options = ["members", "show-inheritance", "show-module-summary"]


def setup(app: Any) -> None:
    """Keep the tree beside a page short: all modules beside each of them took minutes to write."""
    app.connect("html-page-context", _with_short_tree, priority=100)  # before the theme


def _with_short_tree(_app: Any, page: str, _template: str, context: Any, _doctree: Any) -> None:
    tree = context.get("toctree")
    if tree is not None:
        limits = {"collapse": True} if page.startswith(autoapi_root) else {"maxdepth": 2}
        context["toctree"] = lambda **options: tree(**{**options, **limits})
