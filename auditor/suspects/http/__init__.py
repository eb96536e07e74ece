"""A suspect behind HTTP: patient with a network, suspicious of every byte that comes back."""

from auditor.suspects.http.adapter import HttpSuspect

__all__ = ["HttpSuspect"]
