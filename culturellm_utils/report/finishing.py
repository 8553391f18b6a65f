"""What a rendered report still needs: less of the theme, and what keyboards and screen readers want.

The theme's pages draw their ten icons by a script of a megabyte and a half. Here each icon is put into the page as the
picture that the script would have made of it, and the script is dropped::

    <i class="fa-solid fa-sun" title="Light"></i>
    <svg class="svg-inline--fa fa-sun" title="Light" viewBox="0 0 576 512" role="img"><path .../></svg>
"""

import re
import shutil
from functools import cache
from pathlib import Path

ICONS = Path("_static", "scripts", "fontawesome.js")
_ICON = re.compile(r'<(i|span) class="([^"]*\bfa-solid fa-([a-z-]+)[^"]*)"([^>]*)>\s*</\1>')
_SCRIPT = re.compile(r'\s*<script[^>]*src="[^"]*fontawesome\.js[^"]*"></script>')
#: Boxes that scroll sideways when a table is wider than the page.
_SCROLLS = re.compile(r'<div (style="overflow-x:auto"|class="(?:scroll|pst-scrollable-table-container)")>')


def finish(html: Path) -> None:
    """Take from a rendered report what its readers never see, and make every page whole for those who use no mouse."""
    for path in [*html.rglob("*.map"), *html.glob("_static/*.html"), html / ".buildinfo", html / "objects.inv"]:
        path.unlink(missing_ok=True)
    for folder in (html / "_sources", html / "_static" / "locales"):
        shutil.rmtree(folder, ignore_errors=True)
    for path in [*html.rglob("*.js"), *html.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        if "sourceMappingURL" in text:
            path.write_text(re.sub(r"(//|/\*)# sourceMappingURL=\S+( ?\*/)?", "", text), encoding="utf-8")
    script = (html / ICONS).read_text(encoding="utf-8")
    for path in html.rglob("*.html"):
        page = _SCRIPT.sub("", with_icons(path.read_text(encoding="utf-8"), script))
        path.write_text(accessible(page), encoding="utf-8")
    (html / ICONS).unlink()


def with_icons(page: str, script: str) -> str:
    """A page whose icons are pictures. ``script`` is Font Awesome's, which holds them as ``name:[width, height, ...]``;
    an icon that it lacks is left out, as the script itself does."""
    def drawn(icon: re.Match) -> str:
        _, classes, name, others = icon.groups()
        shape = _shape(name, script)
        if not shape:
            return ""
        width, height, path = shape
        hidden = "" if "title=" in others or "aria-hidden" in others else ' aria-hidden="true"'
        return (f'<svg class="{classes.replace("fa-solid", "svg-inline--fa")}"{others}{hidden} role="img" '
                f'viewBox="0 0 {width} {height}"><path fill="currentColor" d="{path}"></path></svg>')

    return _ICON.sub(drawn, page)


@cache
def _shape(name: str, script: str) -> tuple[str, str, str] | None:
    found = re.search(rf'[{{,]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]', script)
    return found and found.groups()


def accessible(page: str) -> str:
    """A page whose side bar is a landmark, and whose wide tables a keyboard can scroll."""
    page = page.replace('id="pst-primary-sidebar"', 'id="pst-primary-sidebar" role="region" aria-label="Pages"')
    return _SCROLLS.sub(r'<div \1 tabindex="0" role="group" aria-label="Table">', page)
