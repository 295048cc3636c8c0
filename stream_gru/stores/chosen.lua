-- The model that a reload gave to a group: every field and value, the files only if asked for.
-- KEYS: the group's model.  ARGV: '1' for the files too.
local held = {}
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if ARGV[1] == '1' or string.sub(name, 1, 5) ~= 'file:' then
    held[#held + 1] = name
    held[#held + 1] = redis.call('HGET', KEYS[1], name)
  end
end
return held
