"""Adds the address and the README, with links that work elsewhere, to the metadata."""

import pathlib
import sys

from setuptools import setup

ROOT = pathlib.Path(__file__).parent
sys.path.insert(0, str(ROOT))

from docs.links import repository_url, resolve_links  # noqa: E402

setup(
    url=repository_url() or None,
    long_description=resolve_links(
        (ROOT / "README.md").read_text(encoding="utf-8"),
        "",
        repository_url(),
        is_present=lambda path: False,
    ),
)
