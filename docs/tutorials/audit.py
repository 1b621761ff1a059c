"""Audit a strategy with very few models: a first look, which the report calls one."""

import fedunlearn

if __name__ == "__main__":
    found = fedunlearn.audit(
        {
            "rounds": 3,
            "recovery_rounds": 1,
            "data": {"clients": 4, "limit": 400, "seed": 0},
            "requests": [{"scope": "client", "clients": [3]}],
        },
        strategies=["no-t"],
        models=3,
        workers=1,
    )
    table = found.to_frame()
    print(table[["strategy", "metric", "value", "low", "high", "verdict"]].head(12))
    print("report:", found.report())
