"""Sphinx: Markdown pages, the Python API from docstrings."""

from __future__ import annotations

import liontool

project = "liontool"
author = "the liontool authors"
copyright = "2026, the liontool authors"
version = release = liontool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"liontool {version}"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
