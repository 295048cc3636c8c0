-- Rule R1: make a never-used owner current, with sequence 0, and return what is held.
-- KEYS: control, every bucket.  ARGV: owner, identity to take where there is none.
local held = redis.call('HMGET', KEYS[1], 'owner', 'offset', 'identity', 'marks', 'reading')
local rows = 0
for i = 2, #KEYS do
  if held[1] then
    rows = rows + redis.call('HLEN', KEYS[i])
  else
    redis.call('UNLINK', KEYS[i]) -- rows without control fields belong to nothing
  end
end
if not held[1] then
  redis.call('HSET', KEYS[1], 'identity', ARGV[2])
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'seq', '0')
return {held[2], held[3], held[4], rows, held[5]}
