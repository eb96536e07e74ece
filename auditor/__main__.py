"""Entry point of ``auditor`` and ``python -m auditor``."""

from auditor.cli.app import app


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
