"""The settings of the Azure Storage store, and every setting of the .NET provider and of host.json beside them.

`SETTINGS` is the one table: the check of a host.json, the page of the reference and the limits of
`AzureStorageSettings` are drawn from it.  Times are seconds here, time spans (`00:05:00`) in host.json.
"""

import msgspec

from holdtrue.core.errors import InvalidInput

from .app_lease import AppLeaseTerms
from .partitions import Terms
from .reconciling import Pace
from .renewing import RenewalTerms
from .setting import Setting
from .settings_needless import NEEDLESS
from .settings_table import USED

SETTINGS: tuple[Setting, ...] = (*USED, *NEEDLESS)
"""All of them."""
BLOB_LEASES = range(15, 61)
"""Seconds for which the service leases a blob."""


class AzureStorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the store uses its account.  All times are in seconds.

    What each says, its range, and its names in host.json and .NET: the settings' reference page.  Raises
    InvalidInput for a value out of its range, and for values that contradict each other.
    """

    app_name: str = ""
    connection_name: str = "AzureWebJobsStorage"
    tracking_store_connection_name: str | None = None
    tracking_store_name_prefix: str = "DurableTask"
    partition_count: int = 4
    control_queue_batch_size: int = 32
    control_queue_buffer_threshold: int = 256
    max_queue_polling_interval: float = 30.0
    queue_message_encoding: str = "UTF8"
    max_concurrent_activities: int | None = None
    max_concurrent_orchestrations: int | None = None
    max_storage_operations: int | None = None
    worker_id: str | None = None
    use_app_lease: bool = True
    app_lease_interval: float = 60.0
    app_lease_renew_interval: float = 25.0
    app_lease_acquire_interval: float = 300.0
    use_table_partition_management: bool = True
    lease_interval: float = 30.0
    lease_acquire_interval: float = 10.0
    lease_renew_interval: float = 10.0
    partition_table_operation_timeout: float = 2.0
    drain_limit: float = 60.0
    beside_dotnet: bool = False
    take_visibility: int = 5
    renew_messages_after: float = 3.0
    renewed_visibility: int = 30
    row_delay: float = 1.0
    scan_interval: float = 60.0
    scan_requests_a_minute: int = 120
    silence_limit: float = 300.0
    renew_in_process: bool = False
    local_activities: bool = True

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            if setting.field is not None:
                problem = setting.refuses(getattr(self, setting.field))
                if problem:
                    raise InvalidInput(f"{setting.field}={getattr(self, setting.field)!r}: it must be {problem}")
        if not self.renew_messages_after < self.take_visibility:
            raise InvalidInput(
                f"messages are taken for {self.take_visibility} s and renewed after {self.renew_messages_after:g} s: "
                "set renew_messages_after to less than take_visibility, or they come to another host meanwhile"
            )
        if self.use_app_lease and not self.app_lease_renew_interval < self.app_lease_interval:
            raise InvalidInput(
                f"the app lease of {self.app_lease_interval:g} s is renewed every {self.app_lease_renew_interval:g} s: "
                "set app_lease_renew_interval to less than app_lease_interval"
            )
        if not self.use_table_partition_management and self.lease_interval not in BLOB_LEASES:
            raise InvalidInput(
                f"lease_interval={self.lease_interval:g}: a lease on a blob lasts {BLOB_LEASES[0]} to "
                f"{BLOB_LEASES[-1]} whole seconds. Set it to one of them, or share out partitions by the table "
                "(use_table_partition_management)"
            )
        self.partition_terms()

    def partition_terms(self) -> Terms:
        """For how long partitions are owned."""
        return Terms(
            lease=self.lease_interval,
            acquire=self.lease_acquire_interval,
            drain=self.drain_limit,
            operation=self.partition_table_operation_timeout,
        )

    def pace(self) -> Pace:
        """How often the rows are read through, and at which cost."""
        return Pace(every_seconds=self.scan_interval, requests_a_minute=self.scan_requests_a_minute)

    def app_lease_terms(self) -> AppLeaseTerms:
        """For how long the app lease is."""
        return AppLeaseTerms(
            lease=int(self.app_lease_interval),
            acquire=self.app_lease_acquire_interval,
        )

    def renewal_terms(self, owner: str, table: str, leases: str = "") -> RenewalTerms:
        """How all that a host has is renewed; `owner` is its name in the rows of `table`, or the blobs of `leases`.

        Partitions are renewed at least as often as they are looked at, the app lease when a third of it is left.
        """
        return RenewalTerms(
            me=owner,
            table=table,
            leases="" if self.use_table_partition_management else leases,
            rows=self.partition_terms(),
            renew=min(self.lease_renew_interval, self.lease_acquire_interval),
            app_lease=int(self.app_lease_interval),
            renew_app_lease=min(self.app_lease_renew_interval, self.app_lease_interval * 2 / 3),
            take=self.take_visibility,
            renew_messages_after=self.renew_messages_after,
            renewed=self.renewed_visibility,
            silence=self.silence_limit,
        )
