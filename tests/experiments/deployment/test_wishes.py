"""Wishes of sites: own data alone, signed, once, of now."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from experiments.deployment import keys, wishes
from experiments.deployment.members import LEFT, Members
from unlearning.columns import Named
from unlearning.errors import ConfigError, RequestError


@pytest.fixture
def sites(tmp_path):
    """Two sites' keys, the roster that knows them, and the inbox."""
    members = Members(tmp_path / "roster.toml")
    private = {}
    for client, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        public = keys.make_site_key(tmp_path / name / "site.key", name)
        private[client] = tmp_path / name / "site.key"
        members.add(name, keys.read_public(public))
    return private, members, wishes.Inbox(tmp_path / "wishes", "fed", members)


def logged(tmp_path):
    lines = (tmp_path / "wishes" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["verdict"] for line in lines]


def test_a_private_key_is_readable_by_its_owner_alone(sites):
    private, _, _ = sites
    assert private[0].stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="exists already"):
        keys.make_site_key(private[0], "a")


def test_a_site_asks_for_samples_of_its_own(sites, tmp_path):
    private, _, inbox = sites
    request = inbox.take(wishes.compose("fed", 1, private[1], [8, 4]), sender=1)
    assert request.samples == {1: (4, 8)}
    assert request.asked_by == "b (own key)"
    assert logged(tmp_path) == ["taken"]


def test_a_site_asks_to_leave(sites):
    private, _, inbox = sites
    assert inbox.take(wishes.compose("fed", 0, private[0], None)).clients == (0,)


def test_a_site_withdraws_a_feature_of_its_own(sites, tmp_path):
    private, _, inbox = sites
    wish = wishes.compose("fed", 1, private[1], None, features=Named((7, 2), ("age",)))
    request = inbox.take(wishes.parse(json.dumps(wish)), sender=1)
    assert request.scope == "feature"
    assert (request.clients, request.features, request.called) == ((1,), (2, 7), ("age",))
    assert logged(tmp_path) == ["taken"]


@pytest.mark.parametrize(
    "changes",
    [
        {"features": []},
        {"features": [-1]},
        {"features": ["age"]},
        {"called": [3]},
        {"samples": [1]},
        {"scope": "client"},
        {"scope": []},
    ],
)
def test_a_wish_for_features_has_their_form(sites, changes):
    private, _, _ = sites
    wish = wishes.compose("fed", 1, private[1], None, features=Named((2,)))
    with pytest.raises(RequestError, match="wish"):
        wishes.parse(json.dumps({**wish, "body": {**wish["body"], **changes}}))


def changed(wish, **changes):
    return {**wish, "body": {**wish["body"], **changes}}


@pytest.mark.parametrize(
    ("spoil", "sender", "said"),
    [
        (lambda w, p: changed(w, samples=[5]), None, "not signed"),
        (lambda w, p: changed(w, client=1), None, "not signed"),
        (lambda w, p: changed(w, client=7), None, "no site"),
        (lambda w, p: changed(w, federation="other"), None, "is for federation 'other'"),
        (lambda w, p: {**w, "signature": "00"}, None, "not signed"),
        (lambda w, p: {**w, "signature": "no hex"}, None, "not signed"),
        (lambda w, p: w, 1, "asks for data of client 0"),
        (lambda w, p: wishes.compose("fed", 0, p[1], [4]), None, "not signed"),
        (lambda w, p: changed(w, nonce="../../../../etc/x"), None, "not signed"),
        (lambda w, p: wishes.compose("other", 0, p[0], [4]), None, "is for federation"),
    ],
)
def test_what_is_not_a_sites_own_word_is_refused_and_logged(sites, tmp_path, spoil, sender, said):
    private, _, inbox = sites
    wish = spoil(wishes.compose("fed", 0, private[0], [4]), private)
    with pytest.raises(RequestError, match=said):
        inbox.take(wish, sender)
    assert [verdict.partition(":")[0] for verdict in logged(tmp_path)] == ["refused"]


def test_a_wish_counts_once(sites):
    private, _, inbox = sites
    wish = wishes.compose("fed", 0, private[0], [4])
    inbox.take(wish)
    with pytest.raises(RequestError, match="it counts once"):
        inbox.take(wish)


@pytest.mark.parametrize("days", [-31, 1])
def test_a_wish_is_of_now(sites, days):
    private, _, inbox = sites
    at = datetime.now(UTC) + timedelta(days=days)
    with pytest.raises(RequestError, match="days old and not of the future"):
        inbox.take(wishes.compose("fed", 0, private[0], [4], at))


def test_who_left_asks_for_nothing(sites):
    private, members, inbox = sites
    members.change(0, state=LEFT)
    with pytest.raises(RequestError, match="has left already"):
        inbox.take(wishes.compose("fed", 0, private[0], [4]))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"body": {}}', '{"body": [], "signature": ""}', "[" * 100_000],
)
def test_what_is_no_wish_is_refused_in_words(text):
    with pytest.raises(RequestError, match="no wish of a site"):
        wishes.parse(text)


def test_a_wish_that_names_nothing_is_refused(sites):
    private, _, _ = sites
    wish = wishes.compose("fed", 0, private[0], [])
    with pytest.raises(RequestError, match="names samples, or none"):
        wishes.parse(json.dumps(wish))


def test_a_key_is_entered_once(sites):
    _, members, _ = sites
    known = members.of_client(0)
    with pytest.raises(ConfigError, match="a key is used once"):
        members.add("c", known.key)


def test_a_name_is_given_once(sites, tmp_path):
    _, members, _ = sites
    public = keys.make_site_key(tmp_path / "site.key", "c")
    with pytest.raises(ConfigError, match=r"a site 'b' is there already; choose another name"):
        members.add("b", keys.read_public(public))
    with pytest.raises(ConfigError, match=r"no site is named 'c' \(known: a, b\)"):
        members.named("c")
    assert Members(tmp_path / "roster.toml").named("b").client == 1
