-- Append all messages to a stream, or none if it would exceed its maximum length.
-- KEYS: stream. ARGV: maximum length, message, ...

if redis.call('XLEN', KEYS[1]) + #ARGV - 1 > tonumber(ARGV[1]) then
  return redis.error_reply('QUEUEFULL ' .. KEYS[1] .. ' holds ' .. ARGV[1] .. ' messages')
end
for i = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'message', ARGV[i]) end
return #ARGV - 1
