// Azurite with this (`node --import`) has the clock of whoever asks: a request's header `holdtrue-clock` sets it, in
// milliseconds.  Without one it is the time of the last that had it.
//
// Its tags of rows are made of the time and of digits of the clock's nanoseconds: two writes of one moment would else
// have one tag, and so these digits count.

import http from 'node:http'

const Real = Date
let now = Real.now()
let writes = 0

globalThis.Date = new Proxy(Real, {
  construct: (_, given, made) => Reflect.construct(Real, given.length ? given : [now], made),
  get: (_, name) => (name === 'now' ? () => now : Reflect.get(Real, name)),
})

process.hrtime = Object.assign(() => [0, (1000 + (writes++ % 9000)) * 100000], process.hrtime)

const emit = http.Server.prototype.emit
http.Server.prototype.emit = function (event, request, ...rest) {
  if (event === 'request') {
    if (request.headers['holdtrue-clock']) now = Number(request.headers['holdtrue-clock'])
    // A character that comes in two pieces of a body would become two that nobody sent.
    if (/json|xml/.test(request.headers['content-type'])) request.setEncoding('utf8')
  }
  return emit.call(this, event, request, ...rest)
}
