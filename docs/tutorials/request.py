"""Serve a request in a run, and read what the ledger says of it."""

import fedunlearn

if __name__ == "__main__":
    done = fedunlearn.run(
        {
            "strategy": "fed-eraser",
            "rounds": 5,
            "recovery_rounds": 2,
            "data": {"clients": 5},
            "requests": [{"scope": "client", "clients": [3], "at_round": 4, "id": "letter-17"}],
            "engine": {"grid": "local"},
        },
        options={"interval": 1},
    )
    print(done.requests())
    print(done.model())
    print("the log:", (done.path / "run.log").read_text(encoding="utf-8"), sep="\n")
