"""Sphinx's settings; build.py calls Sphinx with the folder of prepared pages."""

from docstrings import to_rst

project = "Gen-AFFECT from scratch"
author = "the contributors of the kit"
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]

suppress_warnings = ["ref.python"]  # the type bytes in a signature has the name of two attributes

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sourcelink_suffix = ""
html_copy_source = False  # of a notebook that would be the prepared page; each page offers the notebook itself
html_last_updated_fmt = None
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "home_page_in_toc": True,
}

nb_execution_mode = "off"  # the pages show the outputs that the notebooks hold
nb_merge_streams = True
nb_remove_code_source = False
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

mathjax_path = "mathjax/tex-svg.js"  # served with the site
mathjax3_config = {"options": {"enableMenu": False}}

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch describes `forward` for people who write modules
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 90

copybutton_selector = "div.cell_input div.highlight pre, div.highlight-sh pre"
exclude_patterns = ["_build"]


def setup(app):
    # Before napoleon, which reads the sections (Args, Returns …).
    app.connect("autodoc-process-docstring", lambda app, kind, name, thing, options, lines: to_rst(lines), priority=100)
