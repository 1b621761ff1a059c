"""BibTeX entries out of the references that a module states."""

import re

import pytest

from strategies.citation import bibtex
from strategies.registry import strategies


def test_every_strategy_has_entries_or_says_that_there_is_none():
    keys = []
    for name, cls in strategies().items():
        text = bibtex(cls, name)
        assert text.startswith(("@misc{", "% ")), name
        assert text.count("{") == text.count("}"), name
        keys += re.findall(r"@misc\{(.*?),", text)
    assert len(keys) == len(set(keys)) > 20


@pytest.mark.parametrize(
    ("name", "authors", "eprint"),
    [
        ("fed-eraser", "Liu and Ma and Yang and Wang and Liu", "2012.13891"),
        ("fine-tune", "Golatkar and Achille and Soatto", "1911.04933"),
    ],
)
def test_authors_are_the_surnames_alone(name, authors, eprint):
    text = bibtex(strategies()[name])
    assert f"author = {{{authors}}}" in text
    assert f"eprint = {{{eprint}}}" in text
