"""A worker, its renewals and a client on an account that a managed identity opens: tokens, and HTTPS.

The emulator looks at a token's times and whom it is for, not at its signature; a small server of the test gives them,
as that of an App Service does.
"""

import base64
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tools import azurite

LONG_SECONDS = 9
"""Longer than a message that was got stays hidden: the process of its own has renewed it, with tokens of its own."""
APP = """
import asyncio
import holdtrue
app = holdtrue.App()

@app.activity
async def long(ctx, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"

@app.orchestrator
async def waits(ctx, seconds: float) -> str:
    return await ctx.call_activity(long, input=seconds)
"""
HOST = {
    "extensions": {
        "durableTask": {
            "hubName": "ByToken",
            "storageProvider": {"connectionName": "Mine", "partitionCount": 1},
        }
    }
}


def certificate(folder: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class Tokens(BaseHTTPRequestHandler):
    """Gives tokens for the storage service to who knows the secret; `asked` are the queries."""

    asked: list[dict[str, list[str]]] = []

    def do_GET(self) -> None:
        if self.headers.get("X-IDENTITY-HEADER") != "secret":
            self.send_error(401)
            return
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(query)
        now = int(time.time())
        claims = {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000001/",
            "iat": now - 60,
            "nbf": now - 60,
            "exp": now + 3_600,
        }
        parts = ({"alg": "RS256", "typ": "JWT"}, claims)
        texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        answer = json.dumps(
            {
                "access_token": ".".join((*texts, "c2lnbmF0dXJl")),
                "expires_on": str(now + 3_600),
                "resource": query["resource"][0],
                "token_type": "Bearer",
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_worker_and_a_client_with_a_managed_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Tokens.asked.clear()
    tokens = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    Thread(target=tokens.serve_forever, daemon=True).start()
    cert, key = certificate(tmp_path)
    emulator = azurite.start(certificate=(cert, key))
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "host.json").write_text(json.dumps(HOST))
    account = emulator.new_account()
    environment = {
        **os.environ,
        "SSL_CERT_FILE": str(cert),
        "IDENTITY_ENDPOINT": f"http://127.0.0.1:{tokens.server_address[1]}/token",
        "IDENTITY_HEADER": "secret",
        "HOLDTRUE_HOST_JSON": str(tmp_path / "host.json"),
        "Mine__credential": "managedidentity",
        "Mine__clientId": "the-client",
        **{
            f"Mine__{service}ServiceUri": f"https://127.0.0.1:{port}/{account}"
            for service, port in emulator.ports.items()
        },
    }

    def holdtrue(*words: str, environment: dict[str, str] = environment) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "holdtrue.cli", *words, "--hub", "azure-storage:"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    log = (tmp_path / "worker.log").open("w")
    worker = subprocess.Popen(
        [sys.executable, "-m", "holdtrue.cli", "run", "app.py", "--hub", "azure-storage:"],
        cwd=tmp_path,
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        started = holdtrue("start", "waits", str(LONG_SECONDS), "--id", "one", "--wait")
        told = (tmp_path / "worker.log").read_text()
        assert started.returncode == 0, started.stderr + told
        assert "done" in started.stdout
        assert "lost" not in told and "again" not in told and "ERROR" not in told, told
        assert len(Tokens.asked) >= 3  # the worker, its renewals, the client
        assert {tuple(query["client_id"]) for query in Tokens.asked} == {("the-client",)}
        refused = holdtrue("show", "one", environment={**environment, "IDENTITY_HEADER": "another"})
        assert refused.returncode not in (0, 1), refused.stdout
        assert "Traceback" not in refused.stderr and "identity" in refused.stderr.lower(), refused.stderr
    finally:
        worker.terminate()
        worker.wait(60)
        log.close()
        assert "Unclosed" not in (tmp_path / "worker.log").read_text()
        emulator.stop()
        tokens.shutdown()
