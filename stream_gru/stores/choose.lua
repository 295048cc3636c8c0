-- The model that a reload gives to a group, and what it takes out of use.
-- KEYS: the group's model.  ARGV: digest, name, how many are replaced, the digest and name of each, then file, bytes, ...
local replaced = tonumber(ARGV[3])
for i = 1, replaced do
  redis.call('HSET', KEYS[1], 'replaced:' .. ARGV[2 + 2 * i], ARGV[3 + 2 * i])
end
redis.call('HDEL', KEYS[1], 'replaced:' .. ARGV[1])
for i = 4 + 2 * replaced, #ARGV, 2 do
  redis.call('HSET', KEYS[1], 'file:' .. ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'name', ARGV[2])
return redis.status_reply('OK')
