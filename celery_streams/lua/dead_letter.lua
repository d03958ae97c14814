-- Dead-letter a held message.
-- KEYS: dead, stream. ARGV: group, id, time as text, reason, maximum number of dead letters.
-- Returns 1, or 0 if the message is not held any more.

local message, deliveries = take(KEYS[2], ARGV[1], ARGV[2])
if not message then return 0 end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'message', message,
  'reason', ARGV[4], 'time', ARGV[3], 'deliveries', deliveries + 1)
drop(KEYS[2], ARGV[1], ARGV[2])
return 1
