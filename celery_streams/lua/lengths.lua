-- Count a queue's messages. Returns the numbers waiting, delayed, held, and dead.
-- KEYS: delayed, dead, then streams and kombu's lists. ARGV: group

local function number(...)
  local reply = redis.pcall(...)
  return type(reply) == 'number' and reply or 0
end
local waiting, held = 0, 0
for k = 3, #KEYS do
  waiting = waiting + number('LLEN', KEYS[k]) + number('XLEN', KEYS[k])
  local pending = redis.pcall('XPENDING', KEYS[k], ARGV[1])
  if not pending.err then held = held + pending[1] end
end
return {waiting - held, number('ZCARD', KEYS[1]), held, number('XLEN', KEYS[2])}
