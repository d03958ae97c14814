-- Delay a held message; returns 1, or 0 if it is not held any more.
-- KEYS: delayed, stream. ARGV: group, id, time when it is due in seconds, priority step

local message = take(KEYS[2], ARGV[1], ARGV[2])
if not message then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4] .. ':' .. message)
drop(KEYS[2], ARGV[1], ARGV[2])
return 1
