"""Let three strategies forget a client with a backdoor, and look at what is left of it."""

import fedunlearn

CONFIG = {
    "rounds": 6,
    "recovery_rounds": 2,
    "data": {"name": "digits", "clients": 5},
    "train": {"local_epochs": 2},
    "marker": {"kind": "backdoor", "client": 3},  # the evidence
    "requests": [{"scope": "client", "clients": [3]}],
    "engine": {"grid": "local"},  # in this process; leave it out for worker processes
}

if __name__ == "__main__":
    found = fedunlearn.compare(
        CONFIG,
        strategies={"fed-eraser": {"interval": 1}, "gradient-ascent": {}},
        seeds=[0, 1],
    )
    columns = ["test_accuracy", "backdoor_success", "speedup_examples"]
    print(found.to_frame().groupby("strategy", sort=False)[columns].mean().round(3))
    found.plot("backdoor_success").figure.savefig("backdoor.png")
    print("report:", found.report())
