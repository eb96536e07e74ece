"""Bundle → HTML and PDF: a pure function of the evidence, rendered after the evidence is on disk.

``inputs`` reads what a report may see, ``html`` renders it, ``pdf`` turns the HTML into a PDF/A-3 in a separate
process, ``signer`` signs that PDF and ``pdf_check`` verifies it.
"""
