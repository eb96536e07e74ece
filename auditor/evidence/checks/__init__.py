"""The steps of the re-check, by what they look at; ``auditor.evidence.check`` numbers them and carries them out."""
