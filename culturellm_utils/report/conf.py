"""Sphinx configuration of the report. The sources are made by ``report.build``; nothing is fetched from a network.

What depends on the study (title, folders) is given when Sphinx is called.
"""

import re

extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_code_prompt_show = "Show code"
nb_code_prompt_hide = "Hide code"
nb_merge_streams = True
nb_ipywidgets_js = {}               # the default loads two scripts from a CDN
myst_heading_anchors = 0

html_theme = "sphinx_book_theme"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "toc_title": "On this page",
    "search_bar_text": "Search this report",
    "navbar_persistent": [],        # the search field is in the side bar already
    "footer_content_items": "",
}
html_context = {"default_mode": "auto"}
html_sidebars = {"**": ["navbar-logo.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
html_copy_source = False
html_show_search_summary = False    # it fetches pages, which browsers refuse on file://
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False
html_domain_indices = False
html_permalinks = False


def enlarge(app, pagename, templatename, context, doctree):
    """Let a click or tap on a figure open it alone, where it can be zoomed."""
    if "body" in context:
        context["body"] = re.sub(
            r'<img [^>]*src="([^"]+\.(?:svg|png|jpe?g))"[^>]*/>',
            r'<a class="enlarge" href="\1" title="Open the figure alone">\g<0></a>',
            context["body"],
        )


def setup(app):
    app.connect("html-page-context", enlarge)
