-- Rule R9 in bulk: some rows of one bucket and the cursor of the next call, '0' after the last.
-- KEYS: control, bucket.  ARGV: owner, confirmed, cursor, count.
local held = redis.call('HMGET', KEYS[1], 'owner', 'seq')
if held[1] ~= ARGV[1] or tonumber(held[2]) < tonumber(ARGV[2]) then
  return redis.status_reply('FENCED')
end
return redis.call('HSCAN', KEYS[2], ARGV[3], 'COUNT', ARGV[4])
