"""Hooks for schemathesis: bodies in CBOR, requests of a real account, and a line for each call.

`check.py` starts schemathesis with these and says in `CANDOR_SCHEMATHESIS` where the settings are:

* calls: where to write one line for each call: operation, method, status, code of the refusal;
* signed: whether requests are signed. Then what schemathesis made up for a name that only a real account has (account,
  vault, object, root) is replaced by one that the cell knows, and the request is signed by the account's device or root
  key. What schemathesis spoilt on purpose stays spoilt.
"""

import copy
import itertools
import json
import os
import pathlib
import random

import blake3
import requests
import schemathesis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from device import Device, Invitation, KeyStore, decode, encode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoverageScenario, coverage_scenario, negated_parameters

MEDIA_CBOR = "application/cbor"

# The smallest object that a cell takes, in bytes (docs/formats/api.md).
OBJECT_BYTES = 64 * 1024

SETTINGS = json.loads(pathlib.Path(os.environ["CANDOR_SCHEMATHESIS"]).read_text())
CALLS = open(SETTINGS["calls"], "a", encoding="utf-8", buffering=1)

# Files that every log has (docs/formats/api.md, ReadLog), and in between what schemathesis makes up.
LOG_FILES = itertools.cycle(["checkpoint", None, "report.txt", None, "report.json", None])

# Makes objects of which no two are the same in one run, and which are the same in the next run.
OBJECTS = random.Random(1)


def to_cbor(value):
    """A value of the document's JSON as the CBOR that it stands for: keys are integers, strings are byte strings."""
    if isinstance(value, dict):
        return {int(key) if key.isascii() and key.isdigit() else key: to_cbor(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [to_cbor(inner) for inner in value]
    if isinstance(value, str):
        # One byte for each character, so that lengths stay what the schema says.
        return bytes(ord(character) % 256 for character in value)
    return value


def from_cbor(value):
    """The same backwards."""
    if isinstance(value, dict):
        return {str(key): from_cbor(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [from_cbor(inner) for inner in value]
    return value.decode("latin-1") if isinstance(value, bytes) else value


@schemathesis.serializer(MEDIA_CBOR)
def serialize(_context, value):
    return encode(to_cbor(value))


@schemathesis.deserializer(MEDIA_CBOR)
def deserialize(_context, response):
    """Also holds that the cell's encoding is the deterministic one."""
    return from_cbor(decode(response.content))


@schemathesis.check
def what_is_in_no_row_does_not_exist(_context, response, case):
    """A method that the document does not list is answered like any other unknown thing."""
    if coverage_scenario(case) == CoverageScenario.UNSPECIFIED_HTTP_METHOD and response.status_code != 404:
        raise AssertionError(f"{case.method} is not in the document and is answered with {response.status_code}")


@schemathesis.hook
def after_call(context, case, response):
    refused = response.status_code >= 400 and case.method != "HEAD"
    line = {
        "operation": context.operation.definition.raw["operationId"],
        "is_listed": case.method.lower() == context.operation.method.lower(),
        "status": response.status_code,
        "code": decode(response.content)[1] if refused else None,
    }
    CALLS.write(json.dumps(line) + "\n")


class Account:
    """What the signed requests are made with."""

    def __init__(self, settings):
        store = KeyStore(pathlib.Path(settings["keys"]))
        phrase = pathlib.Path(settings["phrase"]).read_text()
        self.device = Device(Invitation(settings["invitation"]), store, phrase)
        self.signer = store.device.hex()
        self.names = {name: settings[name] for name in ("account", "vault", "root", "link")}
        self.device.take_link(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(settings["link_key"])))
        self.objects, self.grant = settings["objects"], settings["grant"]
        self.bodies = {name: from_cbor(decode(bytes.fromhex(body))) for name, body in settings["bodies"].items()}
        self.calls, self.has_good_body = 0, False

    def authority(self, operation):
        """Signer and authority: every grant and errand that the document names for an operation, in turn."""
        if operation["x-candor-caller"] == "Root":
            return "root", self.device.errand("recover", "root")
        if operation["x-candor-caller"] == "Linker":
            return "link", self.device.errand("join", "link")
        choices = [self.device.errand(purpose, self.signer) for purpose in operation["x-candor-errands"]]
        if "backup" in operation["x-candor-grants"]:
            choices.append(f"grant {self.grant}")
        # A good body comes with what opens the operation first of all; for AppendChain, the errand of consent.
        return self.signer, choices[0 if self.has_good_body else self.calls % len(choices)]

    def steer(self, case, operation):
        """Puts names in that the cell knows, where schemathesis did not spoil them, and a good body every other time."""
        self.calls, self.has_good_body = self.calls + 1, False
        if not case.meta.is_negative_at(ParameterLocation.PATH):
            case.path_parameters |= {name: self.names[name] for name in case.path_parameters if name in self.names}
            if "object" in case.path_parameters:
                case.path_parameters["object"] = self.objects[self.calls % len(self.objects)]
        is_wait = operation["operationId"] == "ReadHead" and "after" in (case.query or {})
        if is_wait and not case.meta.is_negative_at(ParameterLocation.QUERY):
            # Every head has a counter above 0, so that no call waits for one.
            case.query["after"] = 0
        if case.meta.is_negative_at(ParameterLocation.BODY):
            return
        if operation["operationId"] == "PutObject":
            case.body = OBJECTS.randbytes(OBJECT_BYTES)
            if not case.meta.is_negative_at(ParameterLocation.PATH):
                case.path_parameters["object"] = blake3.blake3(case.body).hexdigest()
        elif operation["operationId"] in self.bodies and self.calls % 2 == 0:
            # A copy, since schemathesis goes on spoiling it.
            case.body = copy.deepcopy(self.bodies[operation["operationId"]])
            self.has_good_body = True

    def sign(self, case, operation):
        """Signs what is really sent, and spoils again what was spoilt."""
        spoilt = {name.lower() for name, where in negated_parameters(case.meta) if where == ParameterLocation.HEADER}
        kept = {name: case.headers.get(name) for name in spoilt}
        sent = case.as_transport_kwargs()
        prepared = requests.Request(**sent).prepare()
        is_message = MEDIA_CBOR in operation.get("requestBody", {}).get("content", {})
        message = (prepared.body or b"") if is_message else None
        signer, authority = self.authority(operation)
        headers = self.device.sign(prepared.method, prepared.path_url, signer, authority, message)
        case.headers.update(headers)
        for name, value in kept.items():
            case.headers.pop(name, None)
            if value is not None:
                case.headers[name] = value


if SETTINGS["signed"]:
    ACCOUNT = Account(SETTINGS)

    @schemathesis.auth()
    class Signatures:
        """Tells schemathesis that signatures are no accident. They are made at the last moment, below."""

        def get(self, _case, _context):
            return ACCOUNT

        def set(self, case, data, context):
            pass


@schemathesis.hook
def before_call(context, case, **_arguments):
    operation = context.operation.definition.raw
    if case.meta is None:
        return
    if operation["operationId"] == "ReadLog" and not case.meta.is_negative_at(ParameterLocation.PATH):
        case.path_parameters["file"] = next(LOG_FILES) or case.path_parameters["file"]
    if SETTINGS["signed"] and operation["security"]:
        ACCOUNT.steer(case, operation)
        ACCOUNT.sign(case, operation)
