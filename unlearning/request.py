"""What must be forgotten: requests, their scope, and the sum of all of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from unlearning.errors import RequestError

__all__ = ["Forgotten", "Guarantee", "Omission", "Request", "Scope", "check_id", "kinds"]

_LONGEST_ID = 120


class Scope(StrEnum):
    """The unit that a request asks to be forgotten."""

    CLIENT = "client"
    SAMPLE = "sample"
    CLASS = "class"
    TASK = "task"
    FEATURE = "feature"


class Guarantee(StrEnum):
    """How far the claim of a strategy goes; printed beside every result."""

    EXACT = "exact"  # distributed as retraining without the data
    CERTIFIED = "certified"  # within a stated (epsilon, delta) of retraining
    APPROXIMATE = "approximate"  # no proof; measured only
    SUPPRESSED = "suppressed"  # hidden in the output; some weights still hold it


@dataclass(frozen=True)
class Omission:
    """What one client leaves out of its data.

    Parameters
    ----------
    everything : bool
        The whole client is forgotten.
    samples : frozenset of int
        Positions in the client's own training set, counted from 0 and never renumbered.
    classes : frozenset of int
        Labels left out.
    tasks : frozenset of str
        Tasks left out (multi-task models).
    features : frozenset of int
        Positions in an example, counted from 0 over all its axes, whose value is 0 from now on.
    """

    everything: bool = False
    samples: frozenset[int] = frozenset()
    classes: frozenset[int] = frozenset()
    tasks: frozenset[str] = frozenset()
    features: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return self.everything or any((self.samples, self.classes, self.tasks, self.features))

    def __or__(self, other: Omission) -> Omission:
        return Omission(
            self.everything or other.everything,
            self.samples | other.samples,
            self.classes | other.classes,
            self.tasks | other.tasks,
            self.features | other.features,
        )

    def covers(self, other: Omission) -> bool:
        """Return whether all that ``other`` leaves out is left out here too.

        Examples
        --------
        >>> Omission(classes=frozenset({1, 2})).covers(Omission(classes=frozenset({2})))
        True
        >>> Omission(samples=frozenset({5})).covers(Omission(everything=True))
        False
        """
        return self.everything or self | other == self

    def to_json(self) -> dict[str, object]:
        """Return plain lists, for the wire and for tombstones on disk."""
        return {
            "everything": self.everything,
            "samples": sorted(self.samples),
            "classes": sorted(self.classes),
            "tasks": sorted(self.tasks),
            "features": sorted(self.features),
        }

    @staticmethod
    def from_json(value: Mapping[str, object]) -> Omission:
        """Return the omission that :meth:`to_json` wrote."""

        def items(key: str) -> list[object]:
            found = value.get(key, [])
            return list(found) if isinstance(found, (list, tuple)) else []

        return Omission(
            bool(value.get("everything", False)),
            frozenset(int(str(item)) for item in items("samples")),
            frozenset(int(str(item)) for item in items("classes")),
            frozenset(str(item) for item in items("tasks")),
            frozenset(int(str(item)) for item in items("features")),
        )


def check_id(name: str) -> None:
    """Refuse an id that cannot be a line of a report and the folder of a receipt.

    Raises
    ------
    RequestError
        If it is empty or over 120 characters long, begins with a dot, or holds a slash, a line's
        end or another character that is not printed.

    Examples
    --------
    >>> check_id("2026-11-leave (site 3)")
    >>> check_id("../elsewhere")
    Traceback (most recent call last):
    unlearning.errors.RequestError: '../elsewhere' cannot be the id of a request; \
give 1 to 120 printed characters, no slash among them and no dot at the beginning
    """
    is_line = 0 < len(name) <= _LONGEST_ID and name.isprintable()
    if not is_line or name.startswith(".") or "/" in name or "\\" in name:
        shown = repr(name if len(name) <= _LONGEST_ID else f"{name[:40]}...")
        raise RequestError(
            f"{shown} cannot be the id of a request; give 1 to {_LONGEST_ID} printed characters, "
            "no slash among them and no dot at the beginning"
        )


@dataclass(frozen=True)
class Request:
    """A demand that something be forgotten.

    Parameters
    ----------
    scope : Scope
        ``client``: all data of ``clients``. ``sample``: ``samples`` of their owners, or, with
        ``clients`` and ``classes``, the examples of these classes at these clients. ``class``: all
        examples of ``classes``, wherever they are. ``task``: ``tasks``, at ``clients`` only if any
        are named (a partial request). ``feature``: the values of ``features`` in all examples, at
        ``clients`` only if any are named.
    clients, classes, tasks, features : tuple
        Stable client ids, labels, task names, positions in an example.
    called : tuple of str
        The words that ``features`` were asked for by, for people; () where they have none.
    samples : mapping of int to tuple of int
        Client id to positions in that client's training set.
    at_round : int or None
        Serve after this many rounds have been learned; None: at the next opportunity.
    asked_by : str
        Who asked, for the ledger.
    id : str
        Unique; the same id twice is one request.
    records : tuple of str
        The records' own ids by which ``samples`` were looked up, for ledger and receipt.

    Raises
    ------
    RequestError
        If the fields do not fit the scope.

    Examples
    --------
    >>> leave = Request(Scope.CLIENT, clients=(3,), id="first")
    >>> leave.describe(), leave.leavers
    ('client 3', frozenset({3}))
    >>> some = Request(Scope.SAMPLE, samples={4: (8, 2, 2)}, id="second")
    >>> some.samples  # in order, each once
    {4: (2, 8)}
    >>> some.omission(4).samples == {2, 8}, bool(some.omission(5))
    (True, False)
    >>> Request(Scope.CLASS, clients=(1,))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    unlearning.errors.RequestError: a request of scope 'class' names ['clients']; ...
    """

    scope: Scope
    clients: tuple[int, ...] = ()
    samples: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    classes: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    features: tuple[int, ...] = ()
    called: tuple[str, ...] = ()
    at_round: int | None = None
    asked_by: str = "operator"
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    records: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Bring the fields into one order and refuse combinations without a meaning."""
        for name in ("clients", "classes", "tasks", "features", "records"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        samples = {int(k): tuple(sorted(set(v))) for k, v in sorted(self.samples.items())}
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "scope", Scope(self.scope))
        fields = ("clients", "samples", "classes", "tasks", "features")
        given = {name for name in fields if getattr(self, name)}
        allowed: dict[Scope, list[set[str]]] = {
            Scope.CLIENT: [{"clients"}],
            Scope.SAMPLE: [{"samples"}, {"clients", "classes"}],
            Scope.CLASS: [{"classes"}],
            Scope.TASK: [{"tasks"}, {"tasks", "clients"}],
            Scope.FEATURE: [{"features"}, {"features", "clients"}],
        }
        if given not in allowed[self.scope]:
            wanted = " or ".join(" with ".join(sorted(names)) for names in allowed[self.scope])
            raise RequestError(
                f"a request of scope {self.scope.value!r} names {sorted(given) or 'nothing'}; "
                f"it needs {wanted}, each not empty"
            )
        if self.records and not samples:
            raise RequestError("records are looked up as samples of their owners; none are named")
        if empty := [client for client, chosen in samples.items() if not chosen]:
            raise RequestError(f"no sample is named for client {empty[0]}; name at least one")

    def omission(self, client: int) -> Omission:
        """Return what this request makes ``client`` leave out."""
        if self.scope is Scope.CLIENT:
            return Omission(everything=client in self.clients)
        if self.scope is Scope.SAMPLE:
            classes = self.classes if client in self.clients else ()
            return Omission(
                samples=frozenset(self.samples.get(client, ())), classes=frozenset(classes)
            )
        if self.scope is Scope.CLASS:
            return Omission(classes=frozenset(self.classes))
        if self.clients and client not in self.clients:
            return Omission()
        if self.scope is Scope.FEATURE:
            return Omission(features=frozenset(self.features))
        return Omission(tasks=frozenset(self.tasks))

    def owners(self, clients: Iterable[int]) -> tuple[int, ...]:
        """Return those of ``clients`` that may hold something of what is to be forgotten."""
        return tuple(client for client in sorted(clients) if self.omission(client))

    @property
    def leavers(self) -> frozenset[int]:
        """The clients that leave the federation for good."""
        return frozenset(self.clients) if self.scope is Scope.CLIENT else frozenset()

    def describe(self) -> str:
        """Return the request in words, without its id."""
        if self.scope is Scope.CLIENT:
            return "client " + ", ".join(map(str, self.clients))
        if self.scope is Scope.SAMPLE and self.samples:
            some = "; ".join(f"{len(v)} sample(s) of client {k}" for k, v in self.samples.items())
            return f"{_listed(self.records)} ({some})" if self.records else some
        if self.scope is Scope.FEATURE:
            where = f" at client {', '.join(map(str, self.clients))}" if self.clients else ""
            return "feature " + ", ".join(self.called or map(str, self.features)) + where
        if self.scope is Scope.TASK:
            where = f" at client {', '.join(map(str, self.clients))}" if self.clients else ""
            return "task " + ", ".join(self.tasks) + where
        where = f" at client {', '.join(map(str, self.clients))}" if self.clients else ""
        return "class " + ", ".join(map(str, self.classes)) + where

    def to_json(self) -> dict[str, object]:
        """Return the request as plain values, for the ledger."""
        return {
            "scope": self.scope.value,
            "clients": list(self.clients),
            "samples": {str(k): list(v) for k, v in self.samples.items()},
            "classes": list(self.classes),
            "tasks": list(self.tasks),
            **({"features": list(self.features)} if self.features else {}),
            **({"called": list(self.called)} if self.called else {}),
            "at_round": self.at_round,
            "asked_by": self.asked_by,
            "id": self.id,
            **({"records": list(self.records)} if self.records else {}),
        }

    @staticmethod
    def from_json(value: Mapping[str, object]) -> Request:
        """Return the request that :meth:`to_json` wrote."""

        def items(key: str) -> list[object]:
            found = value.get(key, [])
            return list(found) if isinstance(found, (list, tuple)) else []

        samples = value.get("samples", {})
        at_round = value.get("at_round")
        return Request(
            scope=Scope(str(value["scope"])),
            clients=tuple(int(str(item)) for item in items("clients")),
            samples={
                int(str(k)): tuple(int(str(item)) for item in v)
                for k, v in (samples.items() if isinstance(samples, Mapping) else ())
            },
            classes=tuple(int(str(item)) for item in items("classes")),
            tasks=tuple(str(item) for item in items("tasks")),
            features=tuple(int(str(item)) for item in items("features")),
            called=tuple(str(item) for item in items("called")),
            at_round=None if at_round is None else int(str(at_round)),
            asked_by=str(value.get("asked_by", "operator")),
            id=str(value["id"]),
            records=tuple(str(item) for item in items("records")),
        )


def kinds(request: Request) -> tuple[str, ...]:
    """Return what sort of request it is, in words by which strategies tell what they refuse.

    Examples
    --------
    >>> kinds(Request(Scope.TASK, tasks=("a", "b"), clients=(1,)))
    ('task a at clients', 'task b at clients')
    >>> kinds(Request(Scope.SAMPLE, clients=(1,), classes=(7,)))
    ('sample by class',)
    """
    if request.scope is Scope.SAMPLE:
        return ("sample by class" if request.classes else "sample",)
    if request.scope is Scope.TASK:
        where = " at clients" if request.clients else ""
        return tuple(f"task {name}{where}" for name in request.tasks)
    if request.scope is Scope.FEATURE and request.clients:
        return ("feature at clients",)
    return (request.scope.value,)


_NAMED = 5  # records that are named one by one


def _listed(records: tuple[str, ...]) -> str:
    rest = f" and {len(records) - _NAMED} more" if len(records) > _NAMED else ""
    return "record " + ", ".join(records[:_NAMED]) + rest


@dataclass(frozen=True)
class Forgotten:
    """Everything that may never be trained on again: the sum of all requests received.

    Examples
    --------
    >>> leave = Request(Scope.CLIENT, clients=(3,), id="first")
    >>> seven = Request(Scope.CLASS, classes=(7,), id="second")
    >>> total = Forgotten() | leave | seven | leave  # the same id twice is one request
    >>> len(total.requests), total.clients
    (2, frozenset({3}))
    >>> total.omission(1).classes
    frozenset({7})
    """

    requests: tuple[Request, ...] = ()

    @property
    def clients(self) -> frozenset[int]:
        """The clients that have left."""
        return frozenset().union(*(request.leavers for request in self.requests))

    def omission(self, client: int) -> Omission:
        """Return all that ``client`` must leave out."""
        # Asked for every client in every round, after hundreds of requests: added up once.
        known: dict[int, Omission] = self.__dict__.setdefault("_omissions", {})
        if client not in known:
            total = Omission()
            for request in self.requests:
                total = total | request.omission(client)
            known[client] = total
        return known[client]

    def __or__(self, request: Request) -> Forgotten:
        if request.id in {known.id for known in self.requests}:
            return self
        made = Forgotten((*self.requests, request))
        known: dict[int, Omission] = self.__dict__.get("_omissions", {})
        made.__dict__["_omissions"] = {
            client: gone | request.omission(client) for client, gone in known.items()
        }
        made.__dict__["_prior"] = self
        for known_before in ("_prior", "_without"):  # no more than one step back
            self.__dict__.pop(known_before, None)
        return made

    def without(self, request_id: str) -> Forgotten:
        """Return all requests but one; what is known of the others is not added up again."""
        known: dict[str, Forgotten] = self.__dict__.setdefault("_without", {})
        if request_id not in known:
            rest = tuple(one for one in self.requests if one.id != request_id)
            prior = self.__dict__.get("_prior")
            known[request_id] = prior if prior and prior.requests == rest else Forgotten(rest)
        return known[request_id]
