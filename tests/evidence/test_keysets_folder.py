from pathlib import Path

from auditor.evidence.seal import open_seal

FOLDER = Path(__file__).parent.parent.parent / "keysets"


def test_the_folder_holds_no_key_but_only_its_page_and_published_seals():
    for path in FOLDER.rglob("*"):
        if path.name == "README.md" or path.is_dir():
            continue
        assert path.name.endswith(".seal.json"), f"{path.name} does not belong into a public repository"
        open_seal(path.read_bytes())


def test_the_page_names_every_member():
    from auditor.evidence.keyset import INNER_RULES, OPTIONAL_RULES, OUTER_RULES

    page = (FOLDER / "README.md").read_text()
    for name in (*INNER_RULES, *OPTIONAL_RULES, *OUTER_RULES):
        assert f"| `{name}` |" in page
