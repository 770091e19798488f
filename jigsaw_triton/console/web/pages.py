"""Pages that the console sends before its own page can be opened."""

from html import escape

from aiohttp import web


def page(title: str, text: str, *, status: int, form: bool = False) -> web.Response:
    """Returns a page with a sentence.

    Args:
        title: Title of the page.
        text: Sentences below it.
        status: Status of HTTP.
        form: True to ask for the password.
    """
    asked = (
        '<form method="post" action="/login"><label>Password '
        '<input type="password" name="password" autocomplete="current-password" autofocus required></label> '
        "<button>Open</button></form>"
        if form
        else ""
    )
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title></head><body><main><h1>{escape(title)}</h1><p>{escape(text)}</p>{asked}"
        "</main></body></html>"
    )
    return web.Response(text=body, content_type="text/html", charset="utf-8", status=status)
