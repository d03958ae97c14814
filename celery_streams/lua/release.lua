-- Release messages, to be fetched before others of their priority.
-- KEYS: returned, stream. ARGV: group, increment of the number of deliveries, "1" if their tasks'
-- rate limits permit them to run, id, ...
-- Returns the number of messages released.

local count = 0
for i = 4, #ARGV do
  local message, deliveries, published = take(KEYS[2], ARGV[1], ARGV[i])
  if message then
    deliveries = deliveries + tonumber(ARGV[2])
    give_back(KEYS[2], ARGV[1], ARGV[i], KEYS[1], message, deliveries, published,
      'is_permitted', ARGV[3])
    count = count + 1
  end
end
return count
