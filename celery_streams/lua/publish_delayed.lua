-- Publish a delayed message.
-- KEYS: delayed. ARGV: maximum length, time when it is due in seconds, priority step, message

if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  return redis.error_reply('QUEUEFULL ' .. KEYS[1] .. ' holds ' .. ARGV[1] .. ' messages')
end
return redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3] .. ':' .. ARGV[4])
