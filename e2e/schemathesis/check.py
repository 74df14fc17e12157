#!/usr/bin/env python3
"""Lets schemathesis loose on a running cell with the kept OpenAPI document, unsigned and signed.

    check.py DOCUMENT INVITATION KEYS PHRASE WORK

DOCUMENT is docs/openapi.json, INVITATION the text with which the account was opened, KEYS its unprotected key store,
PHRASE the file with its recovery phrase, WORK a directory to write into. The account has a consent for backups, and
backed something up.

It ends with 0 if schemathesis found nothing and the runs were worth something: every operation of the document was
called in both, whoever did not sign was let through nowhere, whoever signed got past the gate everywhere, and a document
that says something else than the cell does is noticed.
"""

import collections
import hashlib
import json
import os
import pathlib
import subprocess
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from device import KIND_CONSENT, Device, Invitation, KeyStore, Tunnel, decode, encode, link

# The same examples in every run.
SEED = 1

# Generated requests of one operation and phase: both runs together take less than two minutes on two cores.
EXAMPLES = 30

# Every value at the bounds of the schemas, and random ones. The document has neither examples nor links, so that the
# other phases have nothing to do.
PHASES = "coverage,fuzzing"

HERE = pathlib.Path(__file__).resolve().parent

# What it reads has names that nobody can guess, and that the account does not have yet: every call is NotFound.
UNGUESSABLE = "ReadErasure"

# Code of the refusal that only the handler of AppendChain gives (docs/formats/api.md): the statements that are sent
# do not continue the chain. A statement that does needs keys and rules of a whole device, which is the program's work.
CODE_CHAIN = 17


def facts(invitation, store, phrase, tunnel):
    """What the cell has of the account, read as its device reads it."""
    device = Device(invitation, store, phrase)
    signer, account = store.device.hex(), store.account.hex()

    def read(target, authority):
        status, body = tunnel.call("GET", target, device.sign("GET", target, signer, authority, None))
        if status != 200:
            raise SystemExit(f"GET {target}: {status}")
        return decode(body)

    chain = read(f"/v1/accounts/{account}/chain", device.errand("list", signer))
    records = [{key: value for key, value in record.items() if key != 5} for record in chain[1]]
    tip = bytes(32)
    for record in records:
        tip = link(record[1], record[2], tip, record[3])
    consent = next(record for record in records if record[2] == KIND_CONSENT)
    vault = decode(decode(decode(consent[4][0])[0])[8])[4].hex()
    grant = f"grant {consent[3].hex()}"
    vault_path = f"/v1/accounts/{account}/vaults/{vault}"
    objects = [entry[0] for entry in read(f"{vault_path}/objects", grant)[1]]
    head = read(f"{vault_path}/head", grant)[1]
    before = decode(head[0]).get(4)
    genesis = decode(decode(decode(records[0][4][0])[0])[8])
    link_key = Ed25519PrivateKey.generate()
    opening = f"/v1/accounts/{account}/links/{device.take_link(link_key)}"
    errand = device.errand("link", signer)
    status, _ = tunnel.call("PUT", opening, device.sign("PUT", opening, signer, errand, None))
    if status != 204:
        raise SystemExit(f"PUT {opening}: {status}")
    bodies = {
        # Repetitions of what was done: they change nothing and succeed.
        "OpenAccount": {0: 1, 1: store.account, 2: invitation.right, 3: records[:3]},
        "SwapHead": {0: 1, 2: head} | ({1: before} if before else {}),
        # Continues the chain in form only.
        "AppendChain": {0: 1, 1: tip, 2: [consent]},
        "HasObjects": {0: 1, 1: [*objects, bytes(32)]},
        "PutLinkMessage": {0: 1, 1: 0, 2: b"a message"},
    }
    return {
        "account": account,
        "vault": vault,
        "root": fingerprint(genesis[0]),
        "objects": [name.hex() for name in objects],
        "grant": consent[3].hex(),
        "link": link_key.public_key().public_bytes_raw().hex(),
        "link_key": link_key.private_bytes_raw().hex(),
        "bodies": {name: encode(body).hex() for name, body in bodies.items()},
    }


def fingerprint(key):
    """Of a signing key (docs/formats/statements.md)."""
    return hashlib.sha256(b"candor key fingerprint\x00\x01" + key[0] + key[1]).hexdigest()


def run(document, url, settings, work, only=()):
    """One run of schemathesis. Returns whether it found nothing, and all calls."""
    name = "signed" if settings["signed"] else "unsigned"
    calls, told = work / f"{name}.calls", work / f"{name}.json"
    calls.write_text("")
    told.write_text(json.dumps(settings | {"calls": str(calls)}))
    words = [sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / f"{name}.toml", "run", document]
    words += [word for operation in only for word in ("--include-operation-id", operation)]
    words += ["--warnings", "off", "--url", url, "--seed", SEED, "--max-examples", EXAMPLES, "--phases", PHASES]
    print(f"--- {name} requests, {pathlib.Path(document).name}", flush=True)
    environment = os.environ | {"CANDOR_SCHEMATHESIS": str(told), "SCHEMATHESIS_HOOKS": "hooks"}
    environment |= {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run([str(word) for word in words], env=environment, cwd=work)
    return ended.returncode == 0, [json.loads(line) for line in calls.read_text().splitlines()]


def judge(operations, calls, is_signed):
    """What is wrong with a run that found nothing."""
    wrong = []
    statuses = collections.defaultdict(collections.Counter)
    passed = collections.Counter()
    for call in calls:
        if not call["is_listed"]:
            continue
        statuses[call["operation"]][call["status"]] += 1
        passed[call["operation"]] += call["status"] < 300 or call["code"] == CODE_CHAIN
    for name, operation in sorted(operations.items()):
        listed = ", ".join(f"{status}: {count}" for status, count in sorted(statuses[name].items()))
        print(f"{name:<14} {sum(statuses[name].values()):>5} calls, {passed[name]:>4} past the gate  ({listed})")
        is_open = not operation["security"]
        if not statuses[name]:
            wrong.append(f"{name} was never called")
        if name == UNGUESSABLE:
            if passed[name]:
                wrong.append(f"{name} let somebody through who guessed")
        elif (is_signed or is_open) and not passed[name]:
            wrong.append(f"{name} never got past the gate")
        if not is_signed and not is_open and passed[name]:
            wrong.append(f"{name} let somebody through who did not sign")
    return wrong


def notices(document, url, settings, work):
    """Whether it is found when a document promises another success than the cell has."""
    changed = json.loads(pathlib.Path(document).read_text())
    replies = changed["paths"]["/v1/cell"]["get"]["responses"]
    replies["204"] = replies.pop("200")
    other = work / "changed.json"
    other.write_text(json.dumps(changed))
    found_nothing, calls = run(other, url, settings, work, only=["DescribeCell"])
    return bool(calls) and not found_nothing


def main():
    document, invitation, keys, phrase, work = sys.argv[1:]
    document, keys, phrase, work = (str(pathlib.Path(path).resolve()) for path in (document, keys, phrase, work))
    work = pathlib.Path(work)
    text = pathlib.Path(document).read_text()
    methods = [method for path in json.loads(text)["paths"].values() for method in path.values()]
    operations = {operation["operationId"]: operation for operation in methods}
    tunnel = Tunnel(Invitation(invitation))
    known = facts(Invitation(invitation), KeyStore(pathlib.Path(keys)), pathlib.Path(phrase).read_text(), tunnel)
    known |= {"invitation": invitation, "keys": keys, "phrase": phrase}
    wrong = []
    if not notices(document, tunnel.url, known | {"signed": False}, work):
        wrong.append("a wrong document was not noticed")
    for is_signed in (False, True):
        found_nothing, calls = run(document, tunnel.url, known | {"signed": is_signed}, work)
        if not found_nothing:
            wrong.append(f"schemathesis found something with {'signed' if is_signed else 'unsigned'} requests")
        wrong += judge(operations, calls, is_signed)
    print("\n".join(wrong) or f"{len(operations)} operations, and nothing was found but what was put there")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
