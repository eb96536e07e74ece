"""Blind line-ups: the custodian commits, serves and opens; the examiner audits; the judge asks again."""
