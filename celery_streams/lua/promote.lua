-- Move due messages, and those in kombu's lists, into the streams.
-- KEYS: delayed, then for each priority step its stream and its list.
-- ARGV: maximum number of messages to move from each key, then the priority steps.
-- Returns the server's time in seconds, as text; the time when the next delayed message is due, as
-- text, or ""; the largest number of messages moved from one key.

local most = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = string.format('%d.%06d', clock[1], clock[2])
local stream_of = {}
for i = 2, #ARGV do stream_of[ARGV[i]] = KEYS[2 * i - 2] end

local due = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
for _, each in ipairs(due) do
  local step, message = each:match('^(%d+):(.*)$')
  redis.call('XADD', stream_of[step] or KEYS[2], '*', 'message', message or each)
  redis.call('ZREM', KEYS[1], each)
end
local moved = #due
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')

for k = 3, #KEYS, 2 do
  local messages = redis.call('LRANGE', KEYS[k], -most, -1)
  for i = #messages, 1, -1 do
    redis.call('XADD', KEYS[k - 1], '*', 'message', messages[i])
    redis.call('RPOP', KEYS[k])
  end
  moved = math.max(moved, #messages)
end
return {now, first[2] or '', moved}
