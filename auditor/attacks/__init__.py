"""What a thief would do to a model: attacks that turn a victim into a surrogate."""

ATTACKS = {
    "finetune": "auditor.attacks.finetune:FineTune",
    "prune": "auditor.attacks.prune:Prune",
}
"""Built-in attacks by name, resolved when used; see :func:`auditor.attacks.base.attack_class`."""
