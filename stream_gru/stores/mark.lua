-- Rule R21: word of what the owner reads, for whoever is assigned next; '' when it hands over.
-- KEYS: control.  ARGV: owner, word.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then
  return redis.status_reply('FENCED')
end
redis.call('HSET', KEYS[1], 'reading', ARGV[2])
return redis.status_reply('OK')
