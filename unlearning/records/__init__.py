"""What is kept: the ledger of requests, the history of training, what clients remember."""
