"""The domain of federated unlearning: requests, ledger, history, arithmetic and judgement.

Knows nothing of Flower or PyTorch. Import from the modules themselves, for example
``from unlearning.request import Request``.
"""
