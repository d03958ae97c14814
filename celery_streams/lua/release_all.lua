-- Release all messages that a consumer holds, except those to keep; returns their number.
-- KEYS: returned, stream. ARGV: group, consumer, id to keep, ...

local keep, count, start = {}, 0, '-'
for i = 3, #ARGV do keep[ARGV[i]] = true end
repeat
  local held = redis.pcall('XPENDING', KEYS[2], ARGV[1], start, '+', 1000, ARGV[2])
  if held.err then return count end
  for _, each in ipairs(held) do
    local message, deliveries, published
    if not keep[each[1]] then message, deliveries, published = take(KEYS[2], ARGV[1], each[1]) end
    if message then
      give_back(KEYS[2], ARGV[1], each[1], KEYS[1], message, deliveries, published)
      count = count + 1
    end
    start = '(' .. each[1]
  end
until #held < 1000
return count
