-- Append a message to a stream, unless the last one with this note key had the same token.
-- KEYS: stream, note. ARGV: maximum length, message, token, note, expiry of the note in seconds.
-- Returns the note stored when the message with this token was appended, now or before.

local noted = redis.call('GET', KEYS[2])
local beginning = ARGV[3] .. ' '
if noted and string.sub(noted, 1, #beginning) == beginning then
  return string.sub(noted, #beginning + 1)
end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
  return redis.error_reply('QUEUEFULL ' .. KEYS[1] .. ' holds ' .. ARGV[1] .. ' messages')
end
redis.call('XADD', KEYS[1], '*', 'message', ARGV[2])
redis.call('SET', KEYS[2], beginning .. ARGV[4], 'EX', ARGV[5])
return ARGV[4]
