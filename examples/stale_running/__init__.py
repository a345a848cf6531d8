"""The known failure, shown on a hub written in .NET's order of writes, and cured by Holdtrue on the same hub."""
