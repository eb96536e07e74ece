"""Watermarking schemes: how keys are drawn and how a model is made to carry them."""

SCHEMES = {
    "new-label": "auditor.schemes.new_label:NewLabel",
    "wrong-label": "auditor.schemes.wrong_label:WrongLabel",
    "margin": "auditor.schemes.margin:Margin",
    "plain-trigger": "auditor.schemes.margin:PlainTrigger",
}
"""Built-in schemes by name, resolved when used; see :func:`auditor.schemes.base.scheme_class`."""
