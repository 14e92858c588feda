"""Configures the documentation site, which `make docs` builds."""

import os
import pathlib
import sys

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import absum_jax  # noqa: E402
from docs.links import repository_url, resolve_links  # noqa: E402

project = "absum-jax"
author = "the absum-jax developers"
copyright = "2026, the absum-jax developers"
release = version = absum_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

# Notebooks are executed anew by each build, with XLA's faulty fusions off.
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give shapes and units
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "sphinx_book_theme"
html_title = "absum-jax"
html_theme_options = {
    "repository_url": repository_url(),
    "use_repository_button": bool(repository_url()),
    "navbar_persistent": [],  # the sidebar has the search
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}
html_copy_source = False


def setup(app):
    """Resolves links to files of the repository that are not pages of the site."""

    def read(app, name, source):
        folder = (DOCS / name).parent.relative_to(ROOT).as_posix()
        source[0] = resolve_links(
            source[0],
            folder,
            repository_url(),
            is_present=lambda path: path.startswith("docs/") or path.endswith(".png"),
        )

    app.connect("source-read", read)
