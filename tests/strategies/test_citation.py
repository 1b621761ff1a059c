"""BibTeX entries out of the references that a module states."""

import re
import sys

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


def test_every_paper_that_a_strategy_cites_has_an_entry():
    """What stands between two titles is the end of one reference and the surnames of the next."""
    for name, cls in strategies().items():
        text = (sys.modules[cls.__module__].__doc__ or "").partition("References\n---")[2]
        titles = re.findall(r'[^"\s],\s"([^"]+?),?"', text)
        assert bibtex(cls, name).count("@misc{") == len(titles), name
    text = bibtex(strategies()["forget-loss"])
    authors = re.findall(r"author = \{(.*)\},", text)
    assert authors[0] == "{Zhang F.} and others"
    assert authors[2:4] == ["Fan and others"] * 2
    assert re.findall(r"year = \{(.*)\},", text) == ["2026", "2024", "2024", "2024", "2023"]
    text = bibtex(strategies()["ridge"])
    assert "author = {Quan and Wu and Montana}" in text
    assert "howpublished = {IEEE S\\&P}" in text
