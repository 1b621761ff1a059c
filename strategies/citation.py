"""The papers behind a strategy as BibTeX, read from its module's references."""

from __future__ import annotations

import re
import sys

from strategies.discovery import alias

__all__ = ["bibtex"]

_TITLE = re.compile(r", \"(?P<title>[^\"]+?),?\"")  # surnames stand before it
# Where surnames begin: behind the end of a sentence (not behind an initial) or such a word.
_BEGIN = re.compile(r"(?<! [A-Z])[.;)] |\b(?:in|see|example|of|and later) ")
_SHORT = re.compile(r"^ \((?!arXiv)[^)]*\),")  # what a method is called, behind the title
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
      howpublished = {CVPR},
      year = {2025},
      eprint = {2503.05657},
      archiveprefix = {arXiv},
    }
    """
    key = name or alias(cls)
    text = sys.modules[cls.__module__].__doc__ or ""
    paragraphs = text.partition("References\n----------\n")[2].split("\n\n")
    found = [one for part in paragraphs for one in _references(" ".join(part.split()))]
    if not found:
        return f"% {key}: no paper is cited"
    keys = [key, *(f"{key}-{chr(ord('b') + i)}" for i in range(len(found) - 1))]
    return "\n\n".join(_entry(key, *one) for key, one in zip(keys, found, strict=True))


def _references(text: str) -> list[tuple[str, str, str]]:
    """Return surnames, title and the rest of every reference in a text.

    The rest ends where the next one's surnames begin.
    """
    titles = list(_TITLE.finditer(text))
    if not titles:
        return []
    ends = [0, *(title.end() for title in titles)]
    between = [text[end : t.start()] for end, t in zip(ends, titles, strict=False)]
    authors = [_BEGIN.split(part)[-1] for part in between]
    rests = [part[: len(part) - len(a)] for part, a in zip(between, authors, strict=True)]
    rests = [*rests[1:], text[ends[-1] :]]
    return [
        (who, title["title"], rest) for who, title, rest in zip(authors, titles, rests, strict=True)
    ]


def _entry(key: str, authors: str, title: str, rest: str) -> str:
    rest = _SHORT.sub("", rest).strip(" ,")
    where = re.split(r"[(;:.]|, for ", rest, maxsplit=1)[0].strip(" ,")
    year = match[0] if (match := _YEAR.search(rest)) else ""
    fields = {
        "author": " and ".join(_authors(authors)),
        "title": f"{{{title}}}",
        "howpublished": where.removesuffix(year).rstrip(" ,"),  # else a style tells the year twice
        "year": year,
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
    """Return surnames, each as BibTeX takes it."""
    names = [name.strip() for name in text.replace(" and ", ", ").split(",")]
    found: list[str] = []
    for name in filter(None, names):
        surname, more, _ = name.partition(" et al")
        # One of several words is a surname in braces, else BibTeX takes the first for a given name.
        found.append(f"{{{surname}}}" if " " in surname else surname)
        found += ["others"] if more else []
    return found
