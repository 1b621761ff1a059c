"""Print which strategies of the build whose worktree this is serve a client's leaving a network."""

import json

from strategies.registry import strategies


def main() -> None:
    """Print ``names``."""
    serving = [
        name
        for name, kind in strategies().items()
        if any(str(scope) == "client" for scope in kind.scopes) and kind.models is None
    ]
    print(json.dumps({"names": serving}))


if __name__ == "__main__":
    main()
