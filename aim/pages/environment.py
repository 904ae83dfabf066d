"""Templates of a page, and the common ones: style, axes, sortable tables."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def environment(package: str) -> Environment:
    """The renderer of the templates of `package`; inserted values are text, never markup."""
    loader = ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("aim.pages", "templates")])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
