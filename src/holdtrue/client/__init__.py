"""The client of a task hub: `client.Client` (async), `sync.SyncClient` (blocking)."""
