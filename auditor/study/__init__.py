"""Dry runs: schemes × attacks × seeds → what an audit could show, before anybody is accused of anything."""
