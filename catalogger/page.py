"""A self-contained HTML page, light and dark: no script, nothing fetched from anywhere."""

from __future__ import annotations

import html

_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5a6068; --back: #ffffff; --line: #d9dce0; --good: #116329;
  --bad: #a40e26; --note: #7a4d00; --code: #f3f4f6; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --soft: #a3abb5; --back: #14171a; --line: #373d44;
  --good: #6fdd8b; --bad: #ff9492; --note: #f0b95a; --code: #22272d; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } p { margin: .2rem 0; } .soft { color: var(--soft); }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .45rem .7rem .45rem 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; } code { background: var(--code); border-radius: 3px; padding: 0 .25em; }
.whole { white-space: nowrap; } .good { color: var(--good); } .bad { color: var(--bad); } .note { color: var(--note); }
ul { margin: .2rem 0; padding-left: 1.1rem; } a { color: inherit; }
"""


def page(title: str, body: str) -> str:
    """The page; `body` is HTML whose texts are escaped already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>{body}</body></html>\n"
    )
