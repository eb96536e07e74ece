"""Evidence: sealed key sets, hash-chained transcripts, signed bundles, and the re-check that believes none of them.

``merkle`` and ``signing`` are the primitives, ``seal`` and ``keyset`` what an owner fixes before an audit,
``transcript`` and ``custody`` what is recorded during it, ``bundle`` what is handed over, ``check`` the judge's tool.
"""
