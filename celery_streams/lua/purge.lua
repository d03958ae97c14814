-- Remove and return messages that have not been delivered, up to a maximum number from each key.
-- KEYS: delayed, then streams, then kombu's lists. ARGV: group, maximum number, number of lists

local left, lists = tonumber(ARGV[2]), tonumber(ARGV[3])
local gone = {}
for _, due in ipairs(redis.call('ZRANGE', KEYS[1], 0, left - 1)) do
  gone[#gone + 1] = due:match('^%d+:(.*)$') or due
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, left - 1)
for k = #KEYS - lists + 1, #KEYS do
  for _, message in ipairs(redis.call('LRANGE', KEYS[k], 0, left - 1)) do
    gone[#gone + 1] = message
  end
  redis.call('LTRIM', KEYS[k], left, -1)
end
for k = 2, #KEYS - lists do
  if redis.call('EXISTS', KEYS[k]) == 1 then
    local last = '-'
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[k])) do
      local about = {}
      for i = 1, #group, 2 do about[group[i]] = group[i + 1] end
      if about['name'] == ARGV[1] then last = '(' .. about['last-delivered-id'] end
    end
    for _, entry in ipairs(redis.call('XRANGE', KEYS[k], last, '+', 'COUNT', left)) do
      for i = 1, #entry[2], 2 do
        if entry[2][i] == 'message' then gone[#gone + 1] = entry[2][i + 1] end
      end
      redis.call('XDEL', KEYS[k], entry[1])
    end
  end
end
return gone
