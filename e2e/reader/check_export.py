"""Check an export (docs/formats/export.md) without any program of Candor's.

Every JSON document is read, the cell's keys are checked with its root key, and the account's chain is folded by its rules,
with the keys that the recovery phrase makes. Prints what it found; exits with 1 if anything is not as the documents say.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from candor_reader import statements as st
from candor_reader.chain import Chain
from candor_reader.errors import ReaderError, Refused
from candor_reader.keys import Recovery

LISTS = ("backups.json", "folders.json", "consents.json", "erasures.json", "chain.json")


def document(folder: Path, name: str) -> Any:
    value = json.loads((folder / name).read_text(encoding="utf-8"))
    if value["version"] != 1:
        raise Refused(f"{name} is of another version")
    return value


def acknowledgement_keys(folder: Path, root: bytes) -> tuple[bytes, dict[int, bytes]]:
    """The cell, and the keys of all generations that its root key signed."""
    found: dict[int, bytes] = {}
    cell = st.cell_id(root)
    for keys in st.cell_description((folder / "chain/cell-keys.cbor").read_bytes()):
        if keys.cell != cell or not keys.signed_by(root):
            raise Refused("the cell's keys are not signed by its root key")
        found[keys.serial] = keys.acknowledgement
    return cell, found


def check_chain(folder: Path, phrase: str, account: dict[str, Any]) -> Chain:
    cell, keys = acknowledgement_keys(folder, bytes.fromhex(account["cell_root"]))
    listed = document(folder, "chain.json")["list"]
    records = [st.Record.decode((folder / one["file"]).read_bytes()) for one in listed]
    files = sorted(path.name for path in folder.glob("chain/[0-9]*.cbor"))
    if files != [Path(one["file"]).name for one in listed]:
        raise Refused("chain.json does not name the files that are there")
    if any(record.acknowledgement is None for record in records):
        raise Refused("a statement was not acknowledged")
    ids = [record.commitment.hex() for record in records]
    if ids != [one["id"] for one in listed]:
        raise Refused("chain.json names other statements than its files hold")
    chain = Chain(Recovery(phrase), bytes.fromhex(account["account"]["account"]), keys)
    chain.fold(records)
    if chain.cell != cell:
        raise Refused("the account is at another cell")
    return chain


def check(folder: Path, phrase: str) -> str:
    documents = {name: document(folder, name)["list"] for name in LISTS}
    account = document(folder, "account.json")
    summary = document(folder, "export.json")
    if summary["problems"] or summary["exported"]["problems"]:
        raise Refused("the export says that something in it is not as it should be")
    for one in documents["backups.json"] + documents["folders.json"]:
        if one["folder"] and not (folder / one["folder"]["text"]).is_dir():
            raise Refused(f"{one['folder']['text']} is not there")
    chain = check_chain(folder, phrase, account)
    known = {device["device"] for device in account["devices"]}
    if {device.hex() for device in chain.devices} != known:
        raise Refused("account.json names other devices than the chain")
    consents = documents["consents.json"]
    if len(consents) != len(chain.consents):
        raise Refused("consents.json has another number of consents than the chain")
    for consent in consents:
        said = json.loads((folder / f"receipts/{consent['id']}.jsonld").read_text(encoding="utf-8"))
        if "@context" not in said or not (folder / f"receipts/{consent['id']}.receipt").stat().st_size:
            raise Refused(f"the receipt of {consent['id']} is not there")
    lines = (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    numbers = [json.loads(line)["ledger-line"]["sequence"] for line in lines]
    if not numbers or len(set(numbers)) != len(numbers):
        raise Refused("the ledger names a line twice, or has none")
    if not (folder / "log/checkpoint").read_text(encoding="utf-8").count("\n— "):
        raise Refused("the checkpoint bears no signature")
    counts = f"{len(documents['chain.json'])} statements, {len(consents)} consents, {len(lines)} lines of the ledger"
    return f"the export is as the documents say: {counts}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--phrase-file", type=Path, required=True)
    given = parser.parse_args()
    try:
        print(check(given.folder, given.phrase_file.read_text(encoding="utf-8").strip()))
    except (ReaderError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"refused: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
