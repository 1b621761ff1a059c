"""The site's side of the mail: wishes leave with the next reply, verdicts are kept at home."""

from __future__ import annotations

import json
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message

from clients.app import Answering
from unlearning.protocol import part
from unlearning.records.files import write_atomically

__all__ = ["carry"]

_MAIL = "mail"
_MOST_BYTES = 1 << 20


def carry(message: Message, context: Context, call_next: Answering) -> Message:
    """Keep what the server tells, answer, and send what lies in the outbox along; a Flower mod."""
    home = context.node_config.get("home")
    if not home or not (Path(str(home)) / "outbox").parent.is_dir():
        return call_next(message, context)
    place = Path(str(home))
    told = part(message.content, _MAIL, ConfigRecord)
    if told is not None:
        for text in told.values():
            _keep(place, str(text))
        del message.content[_MAIL]
    reply = call_next(message, context)
    letters = [
        path
        for path in sorted((place / "outbox").glob("*.json"))
        if path.stat().st_size <= _MOST_BYTES
    ]
    if letters and not reply.has_error():
        record = ConfigRecord()
        for number, path in enumerate(letters):
            record[str(number)] = path.read_text(encoding="utf-8")
        reply.content[_MAIL] = record
    return reply


def _keep(home: Path, text: str) -> None:
    """Keep a verdict or a receipt; a wish that was judged leaves the outbox."""
    try:
        letter = json.loads(text)
        nonce = str(letter["nonce"])
    except (ValueError, KeyError, TypeError):
        return
    if not nonce.isalnum():  # it names files
        return
    kind = "receipts" if letter.get("kind") == "receipt" else "verdicts"
    folder = home / kind
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{nonce}.json", json.dumps(letter, indent=1).encode())
    asked = home / "outbox" / f"{nonce}.json"
    if asked.exists():
        (home / "sent").mkdir(exist_ok=True)
        asked.replace(home / "sent" / asked.name)
