"""Resolves links to files of the repository where these files are absent."""

import configparser
import pathlib
import posixpath
import re
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
# A block of code, a span of code, or a link: `!` of an image, label and target.
_LINK = re.compile(
    r"^```.*?^```|`[^`\n]+`"
    r"|(!?)\[((?:!\[[^\]]*\]\([^)\s]+\)|[^\]])*)\]\(([^)\s]+)\)",
    re.DOTALL | re.MULTILINE,
)


def repository_url() -> str:
    """Returns the repository's address from setup.cfg, empty until it is known."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config["repository"]["url"].rstrip("/")


def resolve_links(
    text: str, folder: str, url: str, is_present: Callable[[str], bool]
) -> str:
    """Replaces relative links of a Markdown text by addresses in the repository.

    Without an address the text of a link remains, and images are dropped. Code is left
    as it is. An image may be a link.

    Args:
      text: the Markdown text.
      folder: the folder that links are relative to, itself relative to the root.
      url: the repository's address, or an empty string.
      is_present: whether a path, relative to the root, can be linked as it is.
    """

    def resolve(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        if target is None:
            return match[0]
        label = _LINK.sub(resolve, label)
        path = posixpath.normpath(posixpath.join(folder, target))
        if re.match(r"[a-z]+:|#", target) or is_present(path.partition("#")[0]):
            return f"{image}[{label}]({target})"
        if url:
            view = "raw" if image else "blob"
            return f"{image}[{label}]({url}/{view}/main/{path})"
        return "" if image else label

    return _LINK.sub(resolve, text)
