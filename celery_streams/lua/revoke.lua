-- Store the ids of revoked jobs, scored by the server's time; remove the oldest.
-- KEYS: a sorted set. ARGV: retention in seconds, maximum number of ids, id, ...
-- Returns the positions of the new ids among those given, from 1.

local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local added = {}
for i = 3, #ARGV do
  if redis.call('ZADD', KEYS[1], 'NX', now, ARGV[i]) == 1 then added[#added + 1] = i - 2 end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return added
