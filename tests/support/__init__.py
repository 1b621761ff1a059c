"""What several tests build on: toy federations, finished runs, reports, a browser."""
