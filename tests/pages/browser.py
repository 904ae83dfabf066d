"""A page as a real browser shows it."""

from pathlib import Path
from typing import Any


def look(browser: Any, page: Path, width: int, scheme: str) -> Any:
    """The page in a window of this width; its errors are in `page.wrong`."""
    tab = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab.wrong = []
    tab.on("console", lambda message: tab.wrong.append(message.text))
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or tab.wrong.append(request.url))
    tab.goto(page.as_uri())
    return tab
