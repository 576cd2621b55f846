-- Sends the requests of a file in turn, and says in one JSON line what came of them.
-- The file: each request as it goes over the wire, behind its length in eight digits.

local requests, turn = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local size = file:read(8)
  while size do
    requests[#requests + 1] = file:read(tonumber(size))
    size = file:read(8)
  end
  file:close()
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"duration_us":%d,"answers":%d,"refusals":%d,"timeouts":%d,"dropped":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.duration, summary.requests, errors.status, errors.timeout,
    errors.connect + errors.read + errors.write, latency:percentile(50), latency:percentile(99)))
end
