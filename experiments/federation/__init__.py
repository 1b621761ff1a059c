"""What a federation is made of and how a run goes: task, grid, rounds, requests, judgement."""
