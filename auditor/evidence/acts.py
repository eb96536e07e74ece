"""What may happen to a key set or a signed bundle, and in which role somebody signs: plain names, nothing imported."""

from enum import StrEnum


class HandAct(StrEnum):
    """An act that a person enters into a custody log."""

    HANDED_OVER = "handed-over"
    RECEIVED = "received"
    STORED = "stored"
    OPENED = "opened"
    COPIED = "copied"
    RE_ENCRYPTED = "re-encrypted"
    RETURNED = "returned"
    DESTROYED = "destroyed"
    NOTED = "noted"


class CommandAct(StrEnum):
    """An act that the command records which does it; it names the file it made or signed."""

    SIGNED = "signed"
    TIME_STAMPED = "time-stamped"
    COSIGNED = "cosigned"
    ISSUED = "issued"


class CosignerRole(StrEnum):
    """In which role somebody signs a finished bundle."""

    WITNESS = "witness"
    JUDGE = "judge"
    OWNER = "owner"
