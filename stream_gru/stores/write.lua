-- Rules R2 and R4: one numbered write; the rows first, then the control fields.
-- KEYS: control, the buckets that it touches (all of them in a reload).
-- ARGV: owner, n, offset or '', marks, identity or '', the number of values for each bucket, then series, row, ...
local held = redis.call('HMGET', KEYS[1], 'owner', 'seq', 'offset')
local n = tonumber(ARGV[2])
if held[1] ~= ARGV[1] then
  return redis.status_reply('FENCED')
end
if tonumber(held[2]) >= n then
  return redis.status_reply('OK') -- a repetition
end
if tonumber(held[2]) ~= n - 1 then
  return redis.status_reply('FENCED')
end
if ARGV[3] ~= '' and held[3] and tonumber(ARGV[3]) < tonumber(held[3]) then
  return redis.error_reply('ERR the offset would go back from ' .. held[3] .. ' to ' .. ARGV[3])
end
local at = 4 + #KEYS
for i = 2, #KEYS do
  local values = tonumber(ARGV[4 + i])
  if ARGV[5] ~= '' then
    redis.call('UNLINK', KEYS[i])
  end
  if values > 0 then
    redis.call('HSET', KEYS[i], unpack(ARGV, at + 1, at + values))
    at = at + values
  end
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'identity', ARGV[5])
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'seq', ARGV[2], 'offset', ARGV[3], 'marks', ARGV[4])
else
  redis.call('HSET', KEYS[1], 'seq', ARGV[2])
end
return redis.status_reply('OK')
