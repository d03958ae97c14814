-- Replay a dead letter with its number of deliveries reset; delete its stored failure, unless that
-- has been replaced.
-- KEYS: dead, stream, result. ARGV: id, message, the failure as stored or "".
-- Returns 1, or 0 if the dead letter does not exist.

if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[3] ~= '' and redis.call('GET', KEYS[3]) == ARGV[3] then redis.call('DEL', KEYS[3]) end
redis.call('XADD', KEYS[2], '*', 'message', ARGV[2])
return 1
