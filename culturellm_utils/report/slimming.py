"""What a rendered report does without: files of the theme's developers, and the library of two thousand icons.

The theme's pages draw their ten icons by a script of a megabyte and a half. Here each icon is put into the page as the
picture that the script would have made of it, and the script is dropped::

    <i class="fa-solid fa-sun" title="Light"></i>
    <svg class="svg-inline--fa fa-sun" title="Light" viewBox="0 0 576 512" aria-hidden="true"><path .../></svg>
"""

import re
import shutil
from functools import cache
from pathlib import Path

ICONS = Path("_static", "scripts", "fontawesome.js")
_ICON = re.compile(r'<(i|span) class="([^"]*\bfa-solid fa-([a-z-]+)[^"]*)"([^>]*)>\s*</\1>')
_SCRIPT = re.compile(r'\s*<script[^>]*src="[^"]*fontawesome\.js[^"]*"></script>')


def slim(html: Path) -> None:
    """Take from a rendered report what its readers never see."""
    for path in [*html.rglob("*.map"), *html.glob("_static/*.html"), html / ".buildinfo", html / "objects.inv"]:
        path.unlink(missing_ok=True)
    for folder in (html / "_sources", html / "_static" / "locales"):
        shutil.rmtree(folder, ignore_errors=True)
    for path in [*html.rglob("*.js"), *html.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        if "sourceMappingURL" in text:
            path.write_text(re.sub(r"(//|/\*)# sourceMappingURL=\S+( ?\*/)?", "", text), encoding="utf-8")
    _draw_icons(html)


def _draw_icons(html: Path) -> None:
    """Put every icon into its page, and drop the script."""
    script = (html / ICONS).read_text(encoding="utf-8")

    @cache
    def picture(name: str) -> str:
        found = re.search(rf'[{{,]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]', script)
        if not found:
            return ""
        return f'viewBox="0 0 {found[1]} {found[2]}"><path fill="currentColor" d="{found[3]}"></path></svg>'

    def drawn(icon: re.Match) -> str:
        _, classes, name, others = icon.groups()
        classes = classes.replace("fa-solid", "svg-inline--fa")
        hidden = "" if "title=" in others else ' aria-hidden="true"'
        return f'<svg class="{classes}"{others}{hidden} role="img" {picture(name)}' if picture(name) else ""

    for path in html.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(_SCRIPT.sub("", _ICON.sub(drawn, text)), encoding="utf-8")
    (html / ICONS).unlink()
