"""Receipts of a run: two files, one for programs and one for people, and how they are checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from experiments.reporting.receipt_template import PAGE
from experiments.runs.folder import COMPARE, RunFolder
from experiments.runs.risks import residual_risks
from unlearning.errors import FedUnlearnError, LedgerError, RequestError
from unlearning.records.files import write_atomically
from unlearning.records.receipt import Check, check, make, parse
from unlearning.records.seal import canonical, fingerprint_of, read_public

__all__ = ["Verified", "check_file", "draw", "write"]

_EMBEDDED = re.compile(rb'<script type="application/json" id="receipt">(.*?)</script>', re.DOTALL)
_FATES = {
    "fulfilled": "fulfilled",
    "refused": "refused: nothing was done",
    "withdrawn": "withdrawn by who asked",
    "failed": "not fulfilled: the attempt failed; the data stay out of training",
    "held": "not fulfilled yet: it is held",
    "deletion-pending": "not fulfilled yet: not every owner has confirmed the deletion",
}


@dataclass(frozen=True)
class Verified:
    """What was checked of a receipt.

    Parameters
    ----------
    state, forget : str
        Of the request.
    checks : tuple of Check
        One line each.
    cannot_prove : tuple of str
        What no receipt can.
    fingerprint : str
        Of the key that signed.
    """

    state: str
    forget: str
    checks: tuple[Check, ...]
    cannot_prove: tuple[str, ...]
    fingerprint: str

    @property
    def is_good(self) -> bool:
        """Whether everything holds."""
        return all(one.holds for one in self.checks)


def write(folder: RunFolder, request_id: str, out: Path) -> tuple[Path, Path]:
    """Write the receipt of a request, ``receipt.json`` and ``receipt.html``, below ``out``.

    Raises
    ------
    RequestError
        In a comparison: there every strategy answers, and no data of anybody are at stake.
    LedgerError
        If the request is unknown, the ledger has no key or head, or it is not sound.
    """
    if folder.read_federation().kind == COMPARE:
        raise RequestError(
            f"{folder.path} is a comparison, in which many strategies answer one request; receipts "
            "are made of a folder of `fedunlearn run`"
        )
    with folder.open_ledger(readonly=True) as ledger:
        ledger.verify()  # a receipt vouches for it
        data = make(ledger, request_id, ledger.seal, datetime.now(UTC))
    out.mkdir(parents=True, exist_ok=True)
    paths = out / "receipt.json", out / "receipt.html"
    for path, content in zip(paths, (data, draw(data)), strict=True):
        write_atomically(path, content)
    return paths


def draw(data: bytes) -> bytes:
    """Return the page of a receipt: the same content for people, the receipt itself inside."""
    from jinja2 import Environment, StrictUndefined

    found = parse(data)
    said = found["statement"]
    page = (
        Environment(autoescape=True, undefined=StrictUndefined)
        .from_string(PAGE)
        .render(
            receipt=found,
            said=said,
            fate=_FATES.get(said["state"], said["state"]),
            risks=residual_risks(
                {
                    "duplicates": said["duplicates"],
                    "step": None,
                    "deletion": {"residuals": said.get("residuals", ())},
                }
            ),
            fingerprint=fingerprint_of(found["key"]),
            # Inside a script element a "<" could end it; JSON may write it as an escape.
            embedded=data.decode().replace("<", "\\u003c"),
        )
    )
    return page.encode()


def check_file(path: Path, key: Path | None = None) -> Verified:
    """Check a receipt with nothing but its file and, if given, the operator's public key.

    Raises
    ------
    LedgerError
        If the file cannot be read or is no receipt, or the key is none.
    """
    public = None if key is None else read_public(key)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from error
    data, extra = content, []
    if (inside := _EMBEDDED.search(content)) is not None:
        data = canonical(parse(inside[1]))
        extra = [Check("the page shows what the receipt inside it says", _is_drawn(data, content))]
    try:
        found = parse(data)
        checks = (*check(data, public), *extra)
        said = found["statement"]
        return Verified(
            str(said["state"]),
            str(said["forget"]),
            checks,
            tuple(map(str, found["cannot_prove"])),
            fingerprint_of(str(found["key"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"{path} is no receipt: {error}") from error
    except LedgerError as error:
        raise LedgerError(f"{path}: {error}") from error


def _is_drawn(data: bytes, page: bytes) -> bool:
    from jinja2 import TemplateError

    try:
        return draw(data) == page
    except (FedUnlearnError, TemplateError, AttributeError, KeyError, TypeError, ValueError):
        return False
