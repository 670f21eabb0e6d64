"""DNA sequences with a Titans neural memory: reserved name, no content yet.

This release ships the neural memory (``titans_core``) and the forecaster
(``titans_ts``) only; nothing in this package can be used today.
"""
