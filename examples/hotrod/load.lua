-- A load for wrk: dispatches for the four customers in turn, each with the baggage that the page would send.
--
--   wrk --threads 1 --connections 8 --duration 20s --script examples/hotrod/load.lua http://127.0.0.1:8080
--
-- At the end it prints a table of latencies, and fails the run's last line when an answer was not 200.

local customers = { 123, 392, 731, 567 }
local session = "load"
local sent = 0

function request()
  sent = sent + 1
  local headers = { baggage = "session=" .. session .. ",request=" .. session .. "-" .. sent }
  return wrk.format("GET", "/dispatch?customer=" .. customers[sent % #customers + 1], headers)
end

function done(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read
    + summary.errors.write + summary.errors.timeout
  io.write(string.format("\nrequests      %d\nfailed        %d\nrequests/s    %.1f\n",
    summary.requests, failed, summary.requests / summary.duration * 1e6))
  for _, percent in ipairs({ 50, 90, 95, 99, 99.9 }) do
    io.write(string.format("p%-5s  %9.1f ms\n", percent, latency:percentile(percent) / 1000))
  end
  io.write(string.format("max     %9.1f ms\n", latency.max / 1000))
end
