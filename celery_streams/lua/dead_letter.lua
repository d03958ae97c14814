-- Lay a message among the dead letters.
-- KEYS: dead, stream. ARGV: group, id, time as text, reason, greatest length. Returns 1, or 0
-- if another consumer has the message by now.

local message, deliveries = take(KEYS[2], ARGV[1], ARGV[2])
if not message then return 0 end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'message', message,
  'reason', ARGV[4], 'time', ARGV[3], 'deliveries', deliveries + 1)
drop(KEYS[2], ARGV[1], ARGV[2])
return 1
