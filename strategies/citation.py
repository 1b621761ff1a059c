"""The papers behind a strategy as BibTeX, read from its module's references."""

from __future__ import annotations

import re
import sys

from strategies.discovery import alias

__all__ = ["bibtex"]

# One reference: surnames, a title in quotes, and where it appeared, up to the next one's surnames.
_REFERENCE = re.compile(r"(?P<authors>[^\"]+?), \"(?P<title>[^\"]+?),?\"(?P<rest>[^\"]*)")
_YEAR = re.compile(r"\b(19|20)\d\d\b")
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi (10\.\S+?)[),;.]*(\s|$)")
_SPECIAL = re.compile(r"([&%$#_])")


def bibtex(cls: type, name: str = "") -> str:
    """Return an entry for each paper that a strategy's module cites.

    Parameters
    ----------
    cls : type
        The strategy.
    name : str
        The first key; default: its alias. Further entries bear a letter behind it.

    Returns
    -------
    str
        ``@misc`` entries with surnames as authors, as the references have them; a comment where
        no paper is cited.

    Examples
    --------
    >>> from strategies.local_model.no_t import NoT
    >>> print(bibtex(NoT))
    @misc{no-t,
      author = {Khalil and Brunswic and Lamghari and Li and Beitollahi and Chen},
      title = {{NoT: Federated Unlearning via Weight Negation}},
      howpublished = {CVPR 2025},
      year = {2025},
      eprint = {2503.05657},
      archiveprefix = {arXiv},
    }
    """
    key = name or alias(cls)
    text = sys.modules[cls.__module__].__doc__ or ""
    paragraphs = text.partition("References\n----------\n")[2].split("\n\n")
    found = [match for part in paragraphs for match in _REFERENCE.finditer(" ".join(part.split()))]
    if not found:
        return f"% {key}: no paper is cited"
    keys = [key, *(f"{key}-{chr(ord('b') + i)}" for i in range(len(found) - 1))]
    return "\n\n".join(_entry(key, match) for key, match in zip(keys, found, strict=True))


def _entry(key: str, match: re.Match[str]) -> str:
    rest = match["rest"].strip(" ,")
    where = re.split(r"[(;:.]", rest, maxsplit=1)[0].strip(" ,")
    fields = {
        "author": " and ".join(_authors(match["authors"])),
        "title": f"{{{match['title']}}}",
        "howpublished": where if not _YEAR.fullmatch(where) else "",
        "year": year[0] if (year := _YEAR.search(rest)) else "",
        "eprint": number[1] if (number := _ARXIV.search(rest)) else "",
        "doi": doi[1] if (doi := _DOI.search(rest)) else "",
    }
    if fields["eprint"]:
        fields["archiveprefix"] = "arXiv"
    lines = []
    for name, value in fields.items():
        plain = value if name == "doi" else _SPECIAL.sub(r"\\\1", value)
        if plain:
            lines.append(f"  {name} = {{{plain}}},")
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _authors(text: str) -> list[str]:
    """Return surnames; words before the first of them (``see``, ``for example``) are no names."""
    last = re.split(r"[.;)] |\b(?:in|see|example|of|and later) ", text)[-1]
    names = [name.strip() for name in last.replace(" and ", ", ").split(",")]
    found: list[str] = []
    for name in filter(None, names):
        surname, more, _ = name.partition(" et al")
        # One of several words is a surname in braces, else BibTeX takes the first for a given name.
        found.append(f"{{{surname}}}" if " " in surname else surname)
        found += ["others"] if more else []
    return found
