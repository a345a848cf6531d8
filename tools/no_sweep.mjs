// Azurite sweeps up what is no longer in a queue every minute (in a blob every ten), and answers nobody meanwhile: for
// seconds after a thousand messages, for a minute after ten thousand. A figure would tell when it was taken, and a test
// would fail by when it ran.
const SWEEPS = [60_000, 600_000]
const NEVER = 2 ** 31 - 1
const later = globalThis.setTimeout

globalThis.setTimeout = (what, milliseconds, ...given) =>
  later(what, SWEEPS.includes(milliseconds) ? NEVER : milliseconds, ...given)
