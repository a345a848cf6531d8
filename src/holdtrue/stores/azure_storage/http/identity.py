"""Which identity opens an account, as .NET's settings name it (Functions: "identity-based connections"). Pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from holdtrue.core.errors import InvalidInput

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

MANAGED, WORKLOAD = "managedidentity", "workloadidentity"
KINDS = (MANAGED, WORKLOAD)


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """An identity: of a `kind`, or (None) whichever `azure-identity` finds on this machine.

    A managed one is named by its client's id or its resource's, where there are several; with tenant, client and
    secret it is an app registration.
    """

    client_id: str | None = None
    kind: str | None = None
    resource_id: str | None = None
    tenant_id: str | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Identity({self.client_id!r}, kind={self.kind!r}, ...)"

    def credential(self) -> "AsyncTokenCredential":
        """The credential of `azure-identity` for it."""
        from azure.identity import aio

        if self.kind == MANAGED:
            resource = None if self.resource_id is None else {"resource_id": self.resource_id}
            return aio.ManagedIdentityCredential(client_id=self.client_id, identity_config=resource)
        if self.kind == WORKLOAD:
            return aio.WorkloadIdentityCredential(client_id=self.client_id, tenant_id=self.tenant_id)
        if self.secret is not None:
            assert self.tenant_id is not None and self.client_id is not None
            return aio.ClientSecretCredential(self.tenant_id, self.client_id, self.secret)
        return aio.DefaultAzureCredential(
            managed_identity_client_id=self.client_id, workload_identity_client_id=self.client_id
        )


def identity_of(name: str, settings: Mapping[str, str]) -> Identity:
    """The identity of the connection `name`, by the settings `NAME__clientId` and its like (in lower case).

    Raises InvalidInput for settings that contradict each other, or that nobody knows.
    """

    def given(setting: str) -> str | None:
        return settings.get(f"{name}__{setting}".lower()) or None

    client, resource, tenant = given("clientId"), given("managedIdentityResourceId"), given("tenantId")
    secret, kind = given("clientSecret"), (given("credential") or "").lower() or None
    if kind not in (None, *KINDS):
        raise InvalidInput(f"{name}__credential is {kind!r}: there are {', '.join(KINDS)}, or leave it out")
    if client and resource:
        raise InvalidInput(
            f"{name}__clientId and {name}__managedIdentityResourceId both name the identity: leave one out"
        )
    if resource and kind is None:
        kind = MANAGED
    if resource and kind != MANAGED:
        raise InvalidInput(
            f"{name}__managedIdentityResourceId names a managed identity, and {name}__credential {kind!r}"
        )
    if secret and kind is not None:
        raise InvalidInput(f"{name}__clientSecret is an app's, and {name}__credential says {kind!r}: leave one out")
    if secret and not (tenant and client):
        raise InvalidInput(f"{name}__clientSecret needs {name}__tenantId and {name}__clientId")
    return Identity(client, kind=kind, resource_id=resource, tenant_id=tenant, secret=secret)
