"""Texts as task files, survey files, raters and models may hold them, each an attempt at what a text must never do."""

#: An address that nothing may ask.
ELSEWHERE = "http://127.0.0.1:9/asked"
MARKUP = [
    "<script>window.hacked = 1</script>",
    f"<img src='{ELSEWHERE}' onerror='window.hacked = 2'>",
    "</td></table></details><b class='injected'>out</b>",
    "'\"><svg onload=window.hacked=3><b class=injected>",
    f"![x]({ELSEWHERE}) and <style>@import '{ELSEWHERE}'</style>",
    "[click](javascript:window.hacked=4)",
    f"[r][1]\n\n[1]: {ELSEWHERE}\n\n# A heading\n",
    "$\\href{javascript:window.hacked=5}{x}$, $$y$$ and \\\\$z$",
    "{download}`conf.py` {raw-html}`<b class=injected>`",
    "```{include} conf.py\n```",
    "(a-target)= | cell | ` *",
    "]]> --> {{ x }} {% raw %} ${x} %(x)s {0} &lt;b&gt; &#60;b class=injected&#62;",
]
SIGNS = ["\x1b[31mred\x1b]0;title\x07", "\u202etxt.exe\u2066", "ze\u200bro\ufeff\u00ad", "a\0b\x85\u2028c", "W" * 3000]
FORMULAS = [
    "=cmd|' /C calc'!A0", "@SUM(1+1)", "+1", "-1+2", "\t=1+1", "\r=1+1", "\n=1+1", " =1", "a\r=1+1", "a\r\n@b", "'=1",
    "\ufeff=1", "\0=1", "＝1", f'=HYPERLINK("{ELSEWHERE}","x")', '";=1;"', "a,=1", 'a"\n=1',
]
EVERY = [*MARKUP, *SIGNS, *FORMULAS]
