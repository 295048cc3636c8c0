-- Forget a partition; whoever still owns it is fenced. Returns the number of its rows.
-- KEYS: control, every bucket.
local rows = 0
for i = 2, #KEYS do
  rows = rows + redis.call('HLEN', KEYS[i])
end
for i = 1, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return rows
