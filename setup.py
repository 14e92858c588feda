"""Adds the README to the metadata in setup.cfg, without links that lead nowhere."""

import pathlib
import sys

from setuptools import setup

ROOT = pathlib.Path(__file__).parent
sys.path.insert(0, str(ROOT))

from docs.links import repository_url, resolve_links  # noqa: E402

setup(
    long_description=resolve_links(
        (ROOT / "README.md").read_text(encoding="utf-8"),
        "",
        repository_url(),
        is_present=lambda path: False,
    )
)
