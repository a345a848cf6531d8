"""Connection strings, and what opens a request."""

import asyncio
import base64
from typing import Any

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.http.connection import (
    EMULATOR_ACCOUNT,
    Sas,
    SharedKey,
    Token,
    from_connection_string,
    with_credential,
)
from holdtrue.stores.azure_storage.http.signing import SharedKeySigner, TokenSigner, signer_of

KEY = base64.b64encode(b"secret of the account").decode()


def urls(text: str) -> tuple[str, str, str]:
    found = from_connection_string(text)
    return found.table.url, found.queue.url, found.blob.url


def test_the_string_of_the_accounts_page() -> None:
    text = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={KEY};EndpointSuffix=core.windows.net"
    assert urls(text) == (
        "https://acc.table.core.windows.net",
        "https://acc.queue.core.windows.net",
        "https://acc.blob.core.windows.net",
    )
    assert from_connection_string(text).key == SharedKey("acc", b"secret of the account")
    assert (
        urls(text.replace("core.windows.net", "core.chinacloudapi.cn"))[0] == "https://acc.table.core.chinacloudapi.cn"
    )
    assert urls(f"accountname=acc; ACCOUNTKEY={KEY};")[1] == "https://acc.queue.core.windows.net"


def test_endpoints_that_are_named_come_before_those_made_of_the_name() -> None:
    text = f"AccountName=acc;AccountKey={KEY};TableEndpoint=http://127.0.0.1:10002/acc/;QueueEndpoint=https://q.example"
    assert urls(text) == ("http://127.0.0.1:10002/acc", "https://q.example", "https://acc.blob.core.windows.net")


def test_the_emulator() -> None:
    found = from_connection_string("UseDevelopmentStorage=true")
    assert (found.account, found.table.url) == (EMULATOR_ACCOUNT, "http://127.0.0.1:10002/devstoreaccount1")
    text = "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://storage.local"
    assert urls(text)[2] == "http://storage.local:10000/devstoreaccount1"
    assert urls(text.replace("storage.local", "[::1]"))[1] == "http://[::1]:10001/devstoreaccount1"


def test_a_shared_access_signature() -> None:
    text = "BlobEndpoint=https://a.blob.x;QueueEndpoint=https://a.queue.x;TableEndpoint=https://a.table.x;"
    found = from_connection_string(text + "SharedAccessSignature=sv=2020&sig=a%2Bb%3D")
    assert found.key == Sas((("sv", "2020"), ("sig", "a+b=")))
    assert found.account == "a"
    headers: dict[str, str] = {}
    query = asyncio.run(signer_of(found.key, Environment()).sign("queue", "GET", "/q", "a=b", headers))
    assert (query, headers) == ("a=b&sv=2020&sig=a%2Bb%3D", {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("nonsense", "Name=Value"),
        ("AccountName=acc", "neither AccountKey nor SharedAccessSignature"),
        (f"AccountKey={KEY}", "needs AccountName"),
        ("AccountName=acc;AccountKey=no base64", "not base64"),
        ("AccountName=acc;AccountKey=", "not base64"),
        (f"AccountName=acc;AccountName=b;AccountKey={KEY}", "twice"),
        (f"AccountName=acc;AccountKey={KEY};DefaultEndpointsProtocol=ftp", "neither http nor https"),
        (f"AccountName=acc;AccountKey={KEY};TableEndpoint=acc.table", "TableEndpoint"),
        (f"AccountName=acc;AccountKey={KEY};TableEndpoint=https://x:port/", "TableEndpoint"),
        (f"AccountName=acc;AccountKey={KEY};TableEndpoint=https://x/?sig=topsecret", "a query"),
        ("SharedAccessSignature=sv=1&sig=topsecret;TableEndpoint=https://x", "neither AccountName nor BlobEndpoint"),
        ("AccountName=acc;SharedAccessSignature=sv=topsecret", "no sig"),
    ],
)
def test_a_string_that_cannot_be_used_is_refused_without_showing_it(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        from_connection_string(text)
    for secret in (KEY, "topsecret", "no base64"):
        assert secret not in str(caught.value)


def test_secrets_do_not_show_where_a_connection_is_printed() -> None:
    text = repr(from_connection_string(f"AccountName=acc;AccountKey={KEY}"))
    assert "acc" in text and "secret" not in text and KEY not in text


def test_an_account_opened_by_tokens() -> None:
    credential: Any = object()
    found = with_credential(credential, account="acc")
    assert (found.table.url, found.key) == ("https://acc.table.core.windows.net", Token(credential))
    given = {"blob": "https://b.x", "queue": "https://q.x/", "table": "https://t.x"}
    assert with_credential(credential, endpoints=given).queue.url == "https://q.x"
    with pytest.raises(InvalidInput, match="URL of the queue service"):
        with_credential(credential, endpoints={"blob": "https://b.x", "table": "https://t.x"})


def test_a_queue_request_is_signed_as_the_service_says() -> None:
    """The text to sign is written out; its signature was made with openssl."""
    headers = {"x-ms-date": "Thu, 01 Jan 2026 00:00:00 GMT", "x-ms-version": "2025-05-05", "content-length": "0"}
    signer = SharedKeySigner(SharedKey("acc", b"key"))
    query = asyncio.run(
        signer.sign("queue", "PUT", "/acc/q/messages/1", "visibilitytimeout=5&popreceipt=a%2Bb", headers)
    )
    assert query == "visibilitytimeout=5&popreceipt=a%2Bb"
    assert headers["authorization"] == "SharedKey acc:n7eSJwkYjEphDWgpytrfrauxqm7o8gsuO0JNV46AUj8="


def test_a_table_request_is_signed_lightly() -> None:
    headers = {"x-ms-date": "Thu, 01 Jan 2026 00:00:00 GMT", "x-ms-version": "2020-12-06"}
    signer = SharedKeySigner(SharedKey("acc", b"key"))
    asyncio.run(signer.sign("table", "GET", "/T(PartitionKey='%27')", "$top=1", headers))
    assert headers["authorization"] == "SharedKeyLite acc:EEEMpuIV3pBw08n2NZioB12KQCB8jwVrlPyi9OuafDY="


class _Clock(Environment):
    seconds = 1_000

    def now(self) -> int:
        return self.seconds * TICKS_PER_SECOND


class _Credential:
    """Gives tokens that last an hour."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self.asked: list[tuple[str, ...]] = []

    async def get_token(self, *scopes: str) -> Any:
        self.asked.append(scopes)
        await asyncio.sleep(0)

        class Got:
            token = f"token{len(self.asked)}"
            expires_on = self.clock.seconds + 3_600

        return Got


def test_a_token_serves_until_shortly_before_its_end_and_is_asked_for_once() -> None:
    async def main() -> None:
        clock = _Clock()
        credential = _Credential(clock)
        signer = TokenSigner(Token(credential), clock)  # type: ignore[arg-type]

        async def header() -> str:
            headers: dict[str, str] = {}
            assert await signer.sign("table", "GET", "/T", "q", headers) == "q"
            return headers["authorization"]

        assert await asyncio.gather(*(header() for _ in range(5))) == ["Bearer token1"] * 5
        clock.seconds += 3_299
        assert await header() == "Bearer token1"
        clock.seconds += 2
        assert await header() == "Bearer token2"
        assert credential.asked == [("https://storage.azure.com/.default",)] * 2

    asyncio.run(main())
