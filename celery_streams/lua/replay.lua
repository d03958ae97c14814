-- Put a letter back into its queue, with no deliveries counted; forget the failure it was answered
-- with, unless that is another by now.
-- KEYS: dead letters, stream, result. ARGV: id, message, the failure as it is stored or "".
-- Returns 1, or 0 where the letter is gone.

if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[3] ~= '' and redis.call('GET', KEYS[3]) == ARGV[3] then redis.call('DEL', KEYS[3]) end
redis.call('XADD', KEYS[2], '*', 'message', ARGV[2])
return 1
