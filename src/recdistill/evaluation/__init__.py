"""Evaluation: the same users and targets for every model, metrics, tests, size and time.

`protocol` fixes who is ranked against what, `rankers` are what is ranked by, `metrics` and `popularity` are
pure functions of the lists, `lineage` reads the manifests, `comparison` and `significance` set models
against each other, `results` and `tables` write it down, `latency` measures what it costs, `validate` is
what training stops by.
"""
