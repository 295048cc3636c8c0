-- Rules R9 and R14: rows, if the owner is current and its last confirmed write is known. Without buckets, a probe.
-- KEYS: control, buckets.  ARGV: owner, confirmed, the number of series in each bucket, then the series.
local held = redis.call('HMGET', KEYS[1], 'owner', 'seq')
if held[1] ~= ARGV[1] or tonumber(held[2]) < tonumber(ARGV[2]) then
  return redis.status_reply('FENCED')
end
local rows = {}
local at = 1 + #KEYS
for i = 2, #KEYS do
  local series = tonumber(ARGV[1 + i])
  rows[i - 1] = redis.call('HMGET', KEYS[i], unpack(ARGV, at + 1, at + series))
  at = at + series
end
return rows
