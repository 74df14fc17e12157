"""A device of an account, written from docs/formats alone: it opens an unprotected key store, makes errands, signs
requests (RFC 9421), and reaches a cell over TLS 1.3 that proves the key in the invitation.

Nothing here comes from the program that is tested, so that a reading of the documents that differs is noticed.
"""

import base64
import datetime
import hashlib
import http.client
import secrets
import socket
import socketserver
import ssl
import threading
import time

import blake3
import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from mnemonic import Mnemonic

# Purposes of errands by name (docs/formats/statements.md).
PURPOSES = dict(
    zip(
        (
            "create",
            "list",
            "recover",
            "consent",
            "restore",
            "verify",
            "re-anchor",
            "erase",
            "revoke",
            "link",
            "join",
        ),
        range(1, 12),
        strict=True,
    )
)

# Kinds of statements that are looked for (docs/formats/statements.md).
KIND_CONSENT = 4

# How long an errand is valid, in milliseconds: longer than a run takes, and far from the day that is allowed.
ERRAND_MS = 3_600_000

# How long a reply may take, in seconds: the cell answers Busy after ten at the latest.
REPLY_MAX_SECONDS = 30

# How much is relayed at once, in bytes.
PIECE_BYTES = 64 * 1024


def encode(value):
    """Deterministic CBOR (RFC 8949, section 4.2.1)."""
    return cbor2.dumps(value, canonical=True)


def decode(data):
    """Reads deterministic CBOR, and nothing else."""
    value = cbor2.loads(data)
    if encode(value) != data:
        raise ValueError("the encoding is not deterministic")
    return value


def in_domain(label, data):
    """The bytes that are signed for a domain of version 1."""
    return label.encode() + b"\x00\x01" + data


def unpadded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Invitation:
    """What `candor server invite` prints (docs/formats/cell.md)."""

    def __init__(self, text):
        encoded = text.strip().removeprefix("candor1:")
        data = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        content, check = data[:-4], data[-4:]
        if blake3.blake3(content).digest()[:4] != check:
            raise ValueError("the invitation is damaged")
        fields = decode(content)
        self.root, self.addresses, self.right = fields[1], fields[2], fields.get(3)
        self.cell = blake3.blake3(self.root, derive_key_context="candor 2026 cell id v1").digest()[:16]

    @property
    def authority(self):
        """The cell's name in TLS and in signatures, whatever its address."""
        return f"{self.cell.hex()}.cell.invalid"


class KeyStore:
    """An unprotected key store (docs/formats/keystore.md)."""

    def __init__(self, path):
        data = path.read_bytes()
        outside, check = data[:-16], data[-16:]
        if blake3.blake3(outside, derive_key_context="candor 2026 key store check v1").digest()[:16] != check:
            raise ValueError("the key store is damaged")
        outside = decode(outside)
        if 1 in outside:
            raise ValueError("the key store is protected")
        content = outside[2]
        content = decode(content) if isinstance(content, bytes) else content
        self.account, self.device = content[1], content[3]
        self.key = Ed25519PrivateKey.from_private_bytes(content[9][:32])


def root_key(phrase):
    """The Ed25519 half of the root key that follows from a recovery phrase (docs/formats/keystore.md)."""
    entropy = bytes(Mnemonic("english").to_entropy(phrase.split()))
    seed = HKDF(hashes.SHA256(), 32, None, b"candor/phrase/root/ed25519/1").derive(entropy)
    return Ed25519PrivateKey.from_private_bytes(seed)


def link(sequence, kind, previous, commitment):
    """A chain's link (docs/formats/statements.md)."""
    place = sequence.to_bytes(8, "big") + bytes([kind])
    return hashlib.sha256(b"candor link\x00\x01" + place + previous + commitment).digest()


# Whoever signs without being a device: the account's root key, and the key of a link.
WITHOUT_ID = ("root", "link")


class Device:
    """Signs requests of one device, of the root key of its account, and of the key of a link."""

    def __init__(self, invitation, store, phrase):
        self.invitation, self.store = invitation, store
        self.keys = {store.device.hex(): store.key, "root": root_key(phrase)}
        self.errands = {}

    def take_link(self, key):
        """Signs as "link" with this key from now on, and tells the link's name (docs/formats/linking.md)."""
        self.keys["link"] = key
        return key.public_key().public_bytes_raw().hex()

    def errand(self, purpose, signer):
        """The header for an errand; one is kept for each purpose and signer."""
        if (purpose, signer) not in self.errands:
            self.errands[purpose, signer] = self._new_errand(purpose, signer)
        return f"errand {self.errands[purpose, signer]}"

    def _new_errand(self, purpose, signer):
        now = int(time.time() * 1000)
        token = {0: 1, 3: PURPOSES[purpose], 4: self.invitation.cell, 5: now, 6: now + ERRAND_MS}
        token[7] = secrets.token_bytes(16)
        if signer not in WITHOUT_ID:
            token |= {1: self.store.account, 2: self.store.device}
        data = encode(token)
        return unpadded(encode({0: data, 1: self.keys[signer].sign(in_domain("candor errand", data))}))

    def sign(self, method, target, signer, authority, message):
        """The headers of a signed request. `message` is the body if it is CBOR, and `None` otherwise."""
        path, _, query = target.partition("?")
        covered = [
            ("@method", method),
            ("@authority", self.invitation.authority),
            ("@path", path),
            ("@query", f"?{query}"),
            ("candor-device", "root" if signer in WITHOUT_ID else signer),
            ("candor-authority", authority),
            ("candor-placement", "1"),
        ]
        if message is not None:
            digest = base64.b64encode(hashlib.sha256(message).digest()).decode()
            covered.append(("content-digest", f"sha-256=:{digest}:"))
        names = " ".join(f'"{name}"' for name, _ in covered)
        parameters = (
            f'({names});created={int(time.time())};nonce="{secrets.token_hex(16)}"'
            f';keyid="{"root" if signer in WITHOUT_ID else signer}";alg="ed25519";tag="candor-request-1"'
        )
        lines = [f'"{name}": {value}' for name, value in covered]
        base = "\n".join([*lines, f'"@signature-params": {parameters}'])
        signature = base64.b64encode(self.keys[signer].sign(base.encode())).decode()
        headers = {name: value for name, value in covered if not name.startswith("@")}
        return headers | {"signature-input": f"candor={parameters}", "signature": f"candor=:{signature}:"}


class Tunnel(socketserver.ThreadingTCPServer):
    """Listens on loopback and relays every byte to the cell and back, over TLS that proves the cell's key. What it
    relays it does not look at."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, invitation):
        self.invitation = invitation
        super().__init__(("127.0.0.1", 0), _Relay)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def connect(self):
        """A connection to the cell. The handshake proves the key in the certificate, the check whose it is."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["http/1.1"])
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        host, _, port = self.invitation.addresses[0].rpartition(":")
        plain = socket.create_connection((host.strip("[]"), int(port)), timeout=REPLY_MAX_SECONDS)
        secured = context.wrap_socket(plain, server_hostname=self.invitation.authority)
        check_certificate(secured.getpeercert(binary_form=True), self.invitation)
        # From here on both ends decide how long they wait.
        secured.settimeout(None)
        return secured

    def call(self, method, target, headers, body=None):
        """One request over a connection of its own. Returns status and body."""
        connection = http.client.HTTPConnection(*self.server_address, timeout=REPLY_MAX_SECONDS)
        connection.request(method, target, body, headers)
        reply = connection.getresponse()
        read = reply.read()
        connection.close()
        return reply.status, read


def check_certificate(der, invitation):
    """Refuses every certificate but one that the cell's root key signed for the cell's name (docs/formats/cell.md)."""
    certificate = x509.load_der_x509_certificate(der)
    root = Ed25519PublicKey.from_public_bytes(invitation.root)
    root.verify(certificate.signature, certificate.tbs_certificate_bytes)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    now = datetime.datetime.now(datetime.timezone.utc)
    if names.get_values_for_type(x509.DNSName) != [invitation.authority]:
        raise ValueError("the certificate is for another name")
    if certificate.issuer.rfc4514_string() != f"CN={invitation.cell.hex()}":
        raise ValueError("the certificate is somebody else's")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ValueError("the certificate is not valid now")


class _Relay(socketserver.BaseRequestHandler):
    def handle(self):
        with self.server.connect() as cell:
            back = threading.Thread(target=relay, args=(cell, self.request), daemon=True)
            back.start()
            relay(self.request, cell)
            back.join()


def relay(source, sink):
    """Copies until one side ends, and then ends the other."""
    try:
        while piece := source.recv(PIECE_BYTES):
            sink.sendall(piece)
    except OSError:
        pass
    for side in (source, sink):
        try:
            side.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
