"""Where the emulator is started from: `tools/azurite.py`."""

from tools.azurite import ACCOUNTS, KEY, Azurite, start

__all__ = ["ACCOUNTS", "KEY", "Azurite", "start"]
